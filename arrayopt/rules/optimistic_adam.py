r"""Optimistic Adam: Adam that expects its direction to change as it has just changed.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, :math:`m_0 = v_0 = 0`, :math:`r'` the
direction of the step before and :math:`\omega` the ``optimism``, per element:

.. math::

    m &\leftarrow \beta_1 m + (1 - \beta_1)\, g \\
    v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2 \\
    r &= \frac{m / (1 - \beta_1^t)}
        {\sqrt{v / (1 - \beta_2^t) + \epsilon_\mathrm{root}} + \epsilon} \\
    p &\leftarrow p - \eta\, (r + \omega\, (r - r')), \qquad r' = r \text{ at } t = 1

Made for games (min-max problems), where Adam circles around the solution.

Daskalakis et al., *Training GANs with Optimism*, ICLR 2018, Algorithm 1,
https://arxiv.org/abs/1711.00141.

Deviation from the paper: there :math:`r' = 0` at :math:`t = 1`, so that the first step is twice as
long; :math:`\epsilon_\mathrm{root}`, 0 unless given. As in optax, whose two functions have
``nesterov`` by default: :math:`\beta_1 m / (1 - \beta_1^{t+1}) + (1 - \beta_1)\, g / (1 -
\beta_1^t)` in the place of :math:`m / (1 - \beta_1^t)`. ``optax.optimistic_adam_v2`` with
``alpha`` and ``beta`` has ``lr * alpha`` as :math:`\eta` and ``beta / alpha`` as :math:`\omega`;
``optax.optimistic_adam`` gives its ``optimism`` absolutely, :math:`\eta \omega`. torch and Keras
have no such rule.
"""

from typing import NamedTuple

from .._math import ahead, debias, guarded, pick
from .._types import Array, Decay, Epsilon, Namespace, Rate, Scalar, Weight

DECAY = "decoupled"


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the gradient, in units of g
    v: Array  # running mean of the squared gradient, in units of g**2
    r: Array  # the direction of the step before, without unit


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
    optimism: Weight = 1.0,
    eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0,
    nesterov: bool = False,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    m = b1 * state.m + (1 - b1) * grad
    v = b2 * state.v + (1 - b2) * (grad * grad)
    mean = ahead(m, grad, b1, t, xp=xp) if nesterov else m / debias(b1, t, xp=xp)
    root = xp.sqrt(v / debias(b2, t, xp=xp) + eps_root)
    r = mean / guarded(root, eps, xp=xp)
    before = pick(t == 1, r, state.r, xp=xp)
    return param - lr * (r + optimism * (r - before)), State(m, v, r)
