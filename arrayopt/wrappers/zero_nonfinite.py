r"""Zero nonfinite: zeros in the place of the gradient's elements that are not finite.

.. math:: g \leftarrow g \text{ where it is finite, else } 0

``optax.zero_nans`` does so for NaN alone. :mod:`~arrayopt.wrappers.skip_nonfinite` skips the step.
"""

from .._types import Array, Namespace, Scalar


def gradient(param: Array, grad: Array, state: tuple[()], t: Scalar, *, xp: Namespace) -> Array:
    """The gradient, finite."""
    return xp.where(xp.isfinite(grad), grad, xp.zeros_like(grad))
