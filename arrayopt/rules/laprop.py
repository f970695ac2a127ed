r"""LaProp: momentum of the normalised gradient, where Adam normalises the momentum.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and :math:`m_0 = v_0 = 0`, per
element:

.. math::

    v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2 \\
    m &\leftarrow \beta_1 m
        + (1 - \beta_1) \frac{g}{\sqrt{v / (1 - \beta_2^t)} + \epsilon} \\
    p &\leftarrow p - \frac{\eta}{1 - \beta_1^t}\, m

Ziyin et al., *LaProp: Separating Momentum and Adaptivity in Adam*, 2020, Algorithm 1,
https://arxiv.org/abs/2002.04839.

Deviation from the authors' code: it folds the learning rate into :math:`m`, which is equal at a
constant rate.
"""

from typing import NamedTuple

from .._math import debias, guarded
from .._types import Array, Decay, Epsilon, Namespace, Rate, Scalar

DECAY = "decoupled"


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the normalised gradient, without unit
    v: Array  # running mean of the squared gradient, in units of g**2


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(m=xp.zeros_like(param), v=xp.zeros_like(param))


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 4e-4,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: Epsilon = 1e-15,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    v = b2 * state.v + (1 - b2) * (grad * grad)
    root = xp.sqrt(v / debias(b2, t, xp=xp))
    m = b1 * state.m + (1 - b1) * (grad / guarded(root, eps, xp=xp))
    return param - lr / debias(b1, t, xp=xp) * m, State(m, v)
