r"""Adan: adaptive Nesterov momentum.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, :math:`g'` the one before, every
slot 0 at first, and :math:`\hat x = x / (1 - \beta^t)` with the slot's own :math:`\beta`
(:math:`\hat x = x` without ``bias_correction``), per element:

.. math::

    d &= g - g', \qquad d = 0 \text{ at } t = 1 \\
    m &\leftarrow \beta_1 m + (1 - \beta_1)\, g \\
    n &\leftarrow \beta_2 n + (1 - \beta_2)\, d \\
    v &\leftarrow \beta_3 v + (1 - \beta_3)\, (g + \omega d)^2 \\
    p &\leftarrow p - \eta\, \frac{\hat m + \omega \hat n}
        {\sqrt{\hat v + \epsilon_\mathrm{root}} + \epsilon}, \qquad \omega = \beta_2

Xie et al., *Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models*, 2022,
Algorithm 1, https://arxiv.org/abs/2208.06677.

Deviations from the paper: a :math:`\beta` here is the weight of the past (the paper's is
:math:`1 - \beta`); bias correction as in the authors' code; weight decay is decoupled and not
proximal. ``optax.adan`` takes :math:`\omega = 1 - \beta_2`: give ``difference_weight`` for it.
"""

from typing import NamedTuple

from .._math import debias, guarded, pick
from .._types import Array, Decay, Epsilon, Namespace, Rate, Scalar, Weight

DECAY = "decoupled"


class State(NamedTuple):
    """Slots of the parameter's shape and device, each in units of g or g**2."""

    m: Array  # running mean of the gradient
    n: Array  # running mean of the gradient's difference
    v: Array  # running mean of the squared look-ahead gradient
    g: Array  # the gradient of the step before


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
    b1: Decay = 0.98,
    b2: Decay = 0.92,
    b3: Decay = 0.99,
    difference_weight: Weight | None = None,
    eps: Epsilon = 1e-8,
    eps_root: Epsilon = 1e-8,
    bias_correction: bool = True,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    c1, c2, c3 = (debias(b, t, xp=xp) if bias_correction else 1.0 for b in (b1, b2, b3))
    omega = b2 if difference_weight is None else difference_weight
    d = pick(t == 1, xp.zeros_like(grad), grad - state.g, xp=xp)
    ahead = grad + omega * d
    m = b1 * state.m + (1 - b1) * grad
    n = b2 * state.n + (1 - b2) * d
    v = b3 * state.v + (1 - b3) * (ahead * ahead)
    root = xp.sqrt(v / c3 + eps_root)
    step = lr * (m / c1 + omega / c2 * n) / guarded(root, eps, xp=xp)
    return param - step, State(m, n, v, grad)
