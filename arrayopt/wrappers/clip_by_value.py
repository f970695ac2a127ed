r"""Clip by value: no element of the gradient is larger than a bound.

.. math:: g \leftarrow \min(\max(g, -c), c)

with ``clip_value`` :math:`c`. Equal to ``torch.nn.utils.clip_grad_value_`` and ``optax.clip``.
"""

from .._math import clip
from .._types import Array, Namespace, Positive, Scalar


def gradient(
    param: Array,
    grad: Array,
    state: tuple[()],
    t: Scalar,
    *,
    clip_value: Positive = 1.0,
    xp: Namespace,
) -> Array:
    """The clipped gradient."""
    return clip(grad, -clip_value, clip_value, xp=xp)
