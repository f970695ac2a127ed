r"""Adaptive clip: no unit's gradient is longer than a part of the unit.

Norms are over all axes but the last, a unit's weights in JAX' layout, or but the first
(``agc_layout="out_in"``, torch's); over all elements of an array of at most one axis.

.. math:: g \leftarrow \frac{c}{\max(\|g\|, c)}\, g, \qquad c = \lambda \max(\|p\|, \epsilon)

with ``agc_clip`` :math:`\lambda` and ``agc_eps`` :math:`\epsilon`.

Brock et al., *High-Performance Large-Scale Image Recognition Without Normalization*, ICML 2021,
section 4, https://arxiv.org/abs/2102.06171. Equal to ``optax.adaptive_grad_clip`` with the layout
``"in_out"``, but for arrays of three axes, of which optax takes the norm over the first alone.
"""

from typing import Literal

from .._types import Array, Namespace, Positive, Scalar

ELEMENTWISE = False
PARITY_EPS = 100  # sums over elements, each library in its order


def gradient(
    param: Array,
    grad: Array,
    state: tuple[()],
    t: Scalar,
    *,
    agc_clip: Positive = 0.01,
    agc_eps: Positive = 1e-3,
    agc_layout: Literal["in_out", "out_in"] = "in_out",
    xp: Namespace,
) -> Array:
    """The clipped gradient."""
    axes = list(range(len(param.shape)))
    if len(axes) > 1:
        axes.pop(-1 if agc_layout == "in_out" else 0)
    p, g = (xp.sqrt(xp.sum(x * x, axis=tuple(axes), keepdims=True)) for x in (param, grad))
    most = agc_clip * xp.maximum(p, agc_eps)
    return most / xp.maximum(g, most) * grad
