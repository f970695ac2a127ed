r"""Clip by global norm: the gradient of all parameters together is no longer than a bound.

.. math:: g \leftarrow \frac{c}{\max(\|g\| + \epsilon, c)}\, g

with ``clip_norm`` :math:`c`, ``clip_eps`` :math:`\epsilon` and the norm over all parameters.
``state.shared`` keeps the norm, of the gradient as it came.

Pascanu et al., *On the difficulty of training recurrent neural networks*, ICML 2013, Algorithm 1,
https://arxiv.org/abs/1211.5063. Equal to ``optax.clip_by_global_norm``, and with ``clip_eps=1e-6``
to ``torch.nn.utils.clip_grad_norm_``.
"""

from typing import NamedTuple

from .._math import larger
from .._types import Array, Epsilon, Namespace, Positive, Scalar


class Shared(NamedTuple):
    """State of the whole optimizer."""

    norm: Array  # of the last gradient, before it was clipped


def share() -> Shared:
    """State before the first step."""
    return Shared(norm=0.0)


def measure(
    param: Array, grad: Array, state: tuple[()], t: Scalar, *, xp: Namespace
) -> dict[str, Array]:
    """What is summed over all elements: the squared norm."""
    return {"gg": grad * grad}


def adapt(shared: Shared, sums: dict[str, Array], t: Scalar, *, xp: Namespace) -> Shared:
    """The norm of this step."""
    return Shared(norm=xp.sqrt(sums["gg"]))


def gradient(
    param: Array,
    grad: Array,
    state: tuple[()],
    t: Scalar,
    *,
    shared: Shared,
    clip_norm: Positive = 1.0,
    clip_eps: Epsilon = 0.0,
    xp: Namespace,
) -> Array:
    """The clipped gradient."""
    return clip_norm / larger(shared.norm + clip_eps, clip_norm, xp=xp) * grad
