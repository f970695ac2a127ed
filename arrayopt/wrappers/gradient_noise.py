r"""Gradient noise: Gaussian noise that fades is added to the gradient.

With :math:`n` a normal deviate of mean 0 and variance 1, another one for each element, parameter,
step and seed:

.. math:: g \leftarrow g + \sigma n, \qquad \sigma^2 = \sigma_1^2 / t^\gamma

with ``noise_eta`` :math:`\sigma_1^2`, a variance, and ``noise_gamma`` :math:`\gamma`.

Neelakantan et al., *Adding Gradient Noise Improves Learning for Very Deep Networks*, 2015,
section 3, https://arxiv.org/abs/1511.06807. The paper's :math:`(1 + t)^\gamma` is ours, as its
:math:`t` counts from 0. ``sgd+gradient_noise`` is ``optax.noisy_sgd`` but for the generator, here
Threefry-2x32 of the key (``noise_seed``, place of the parameter in its tree) and the counter (flat
index of the element, t). So a step that is taken again has the same noise, and it is that of every
array library, to the rounding of log and cos. Parameters that are split, merged or put into another
order have another one. Where a trace counts the steps, it does so in the dtype of the arithmetic:
after step 2**24 float32 gives each noise twice.
"""

from .._random import Key, normal
from .._types import Array, Namespace, Real, Scalar, Seed, Weight

ELEMENTWISE = False  # it depends on where an element is
PARITY_EPS = 50  # log and cos of the noise, which may be large beside the gradient


def gradient(
    param: Array,
    grad: Array,
    state: tuple[()],
    t: Scalar,
    *,
    place: Scalar,
    noise_eta: Weight = 0.01,
    noise_gamma: Real = 0.55,
    noise_seed: Seed = 0,
    xp: Namespace,
) -> Array:
    """The noisy gradient."""
    sigma = (noise_eta / t**noise_gamma) ** 0.5
    return grad + sigma * normal(Key(noise_seed, place, t), grad, xp=xp)
