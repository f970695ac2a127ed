r"""Clip by norm: the gradient of each parameter by itself is no longer than a bound.

.. math:: g \leftarrow \frac{c}{\max(\|g\|, c)}\, g

with ``clip_param_norm`` :math:`c` and the norm over one parameter. Equal to Keras' ``clipnorm``.
"""

from .._math import larger
from .._types import Array, Namespace, Positive, Scalar


def measure(
    param: Array, grad: Array, state: tuple[()], t: Scalar, *, xp: Namespace
) -> dict[str, Array]:
    """What is summed over the parameter: the squared norm."""
    return {"gg": grad * grad}


def gradient(
    param: Array,
    grad: Array,
    state: tuple[()],
    t: Scalar,
    *,
    sums: dict[str, Array],
    clip_param_norm: Positive = 1.0,
    xp: Namespace,
) -> Array:
    """The clipped gradient."""
    return clip_param_norm / larger(xp.sqrt(sums["gg"]), clip_param_norm, xp=xp) * grad
