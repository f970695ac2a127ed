r"""Centralize: the gradient of each unit has mean 0.

.. math:: g \leftarrow g - \bar g

with the mean over all axes but the first, for arrays of two axes or more; others are left alone.

Yong et al., *Gradient Centralization: A New Optimization Technique for Deep Neural Networks*,
ECCV 2020, equation 1, https://arxiv.org/abs/2004.01461. Equal to ``optax.centralize``.
"""

from .._types import Array, Namespace, Scalar

ELEMENTWISE = False
PARITY_EPS = 100  # sums over elements, each library in its order


def gradient(param: Array, grad: Array, state: tuple[()], t: Scalar, *, xp: Namespace) -> Array:
    """The centred gradient."""
    axes = tuple(range(1, len(grad.shape)))
    return grad - xp.mean(grad, axis=axes, keepdims=True) if axes else grad
