r"""AdEMAMix: Adam with a second, much slower mean of the gradient.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and every slot 0 at first, per element:

.. math::

    m &\leftarrow \beta_1 m + (1 - \beta_1)\, g \\
    n &\leftarrow \beta_3 n + (1 - \beta_3)\, g \\
    v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2 \\
    p &\leftarrow p - \eta\, \frac{m / (1 - \beta_1^t) + \alpha n}
        {\sqrt{v / (1 - \beta_2^t) + \epsilon_\mathrm{root}} + \epsilon}

The slow mean's bias is not corrected: it fills slowly. For the same reason the paper warms up
:math:`\alpha` and :math:`\beta_3` over the first :math:`T` steps, the latter such that its half
life grows linearly. Both are schedules here (:math:`k = t - 1` counts from 0):

``alpha=lambda k: min((k + 1) / T, 1) * alpha`` and
``b3=lambda k: min(b3, exp(log(b1) * log(b3) / ((1 - s) * log(b3) + s * log(b1))))`` with
``s = (k + 1) / T``.

Pagliardini, Ablin & Grangier, *The AdEMAMix Optimizer: Better, Faster, Older*, ICLR 2025,
Algorithm 1, https://arxiv.org/abs/2409.03137.

Deviation from the paper: :math:`\epsilon_\mathrm{root}`, 0 unless given, as in optax. Equal to
``optax.contrib.ademamix`` and pytorch_optimizer; torch and Keras have no such rule.
``weight_decay`` is decoupled as in the paper.
"""

from typing import NamedTuple

from .._math import debias, guarded
from .._types import Array, Decay, Epsilon, Namespace, Rate, Scalar, Weight

DECAY = "decoupled"


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # fast running mean of the gradient, in units of g
    n: Array  # slow running mean of the gradient, in units of g
    v: Array  # running mean of the squared gradient, in units of g**2


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(*(xp.zeros_like(param) for _ in State._fields))


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    alpha: Weight = 5.0,
    eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    m = b1 * state.m + (1 - b1) * grad
    n = b3 * state.n + (1 - b3) * grad
    v = b2 * state.v + (1 - b2) * (grad * grad)
    root = xp.sqrt(v / debias(b2, t, xp=xp) + eps_root)
    mean = m / debias(b1, t, xp=xp) + alpha * n
    return param - lr * (mean / guarded(root, eps, xp=xp)), State(m, n, v)
