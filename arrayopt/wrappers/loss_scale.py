r"""Loss scale: the gradient of a loss that was multiplied by a number.

.. math:: g \leftarrow g / s

with ``loss_scale`` :math:`s`: float16 gradients that would vanish do not, if the loss is multiplied
by it. The division is in the compute dtype, float32 for float16.

Micikevicius et al., *Mixed Precision Training*, ICLR 2018, section 3.2,
https://arxiv.org/abs/1710.03740. Put :mod:`~arrayopt.wrappers.skip_nonfinite` around it.
"""

from .._types import Array, Namespace, Positive, Scalar


def gradient(
    param: Array,
    grad: Array,
    state: tuple[()],
    t: Scalar,
    *,
    loss_scale: Positive = 1.0,
    xp: Namespace,
) -> Array:
    """The gradient of the loss itself."""
    return grad / loss_scale
