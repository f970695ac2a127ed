r"""Yogi: Adam whose second moment moves by an additive step towards the squared gradient.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and :math:`m_0 = v_0 =`
``initial_accumulator``, per element:

.. math::

    m &\leftarrow \beta_1 m + (1 - \beta_1)\, g \\
    v &\leftarrow v - (1 - \beta_2)\, \mathrm{sign}(v - g^2)\, g^2 \\
    p &\leftarrow p - \frac{\eta}{1 - \beta_1^t}
        \frac{m}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

Zaheer et al., *Adaptive Methods for Nonconvex Optimization*, NeurIPS 2018, Algorithm 2,
https://proceedings.neurips.cc/paper/2018/hash/90365351ccc7437a1309dc64e4db32a3-Abstract.html.

Deviation from the paper: the bias corrections and the start of both moments at a small positive
number, as in ``optax.yogi``.
"""

from typing import NamedTuple

from .._math import debias, guarded, sign
from .._types import Array, Decay, Epsilon, Namespace, Rate, Scalar, Weight

DECAY = "decoupled"


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the gradient, in units of g
    v: Array  # second moment, in units of g**2


def init(param: Array, *, initial_accumulator: Weight = 1e-6, xp: Namespace) -> State:
    """State before the first step."""
    return State(*(xp.zeros_like(param) + initial_accumulator for _ in State._fields))


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1e-2,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: Epsilon = 1e-3,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    q = grad * grad
    m = b1 * state.m + (1 - b1) * grad
    v = state.v - (1 - b2) * (sign(state.v - q, xp=xp) * q)
    root = xp.sqrt(v / debias(b2, t, xp=xp))
    return param - lr / debias(b1, t, xp=xp) * m / guarded(root, eps, xp=xp), State(m, v)
