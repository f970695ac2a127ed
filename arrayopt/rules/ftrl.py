r"""FTRL: follow the (proximally) regularized leader, with exact zeros by L1.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, :math:`z_0 = 0`, :math:`n_0 =`
``initial_accumulator`` and :math:`f(x) = \sqrt x`, or :math:`x^\mathrm{power}`, per element:

.. math::

    \sigma &= (f(n + g^2) - f(n)) / \eta, \qquad n \leftarrow n + g^2 \\
    z &\leftarrow z + g + \mathrm{l2\_shrinkage}\; p - \sigma p \\
    p &\leftarrow \frac{\mathrm{clip}(z,\ -\mathrm{l1},\ \mathrm{l1}) - z}
        {(f(n) + \beta) / \eta + \mathrm{l2}}

The parameter is placed anew in each step; where :math:`|z| \le` ``l1``, at 0. So with
:math:`n_0 > 0` the first step pulls it towards 0, and all the way where :math:`g = 0`. A decoupled
decay acts through :math:`\sigma p` alone: use ``l2``. Where the formula has no meaning nothing
changes: in an element whose denominator is 0, and with ``lr = 0``.

McMahan et al., *Ad Click Prediction: a View from the Trenches*, KDD 2013, Algorithm 1,
https://research.google.com/pubs/archive/41159.pdf.

Deviations from the paper: ``initial_accumulator``, ``power`` and ``l2_shrinkage``, as in Keras'
Ftrl, to which it is equal: its ``learning_rate_power`` is minus ``power``, its L2 strengths are
half of ``l2`` and ``l2_shrinkage`` here, where ``l2`` is the paper's. ``pytorch_optimizer.FTRL`` is
equal with ``initial_accumulator=0``; with another ``power`` it keeps the root in the denominator.
torch and optax have no such rule.
"""

from typing import NamedTuple

from .._math import clip, pick
from .._types import Array, Namespace, Rate, Scalar, Weight

DECAY = "decoupled"
# The rounding of p comes back in z, so that libraries which contract products drift apart, by 6
# eps in 100 steps of JAX; and x**power is within an ulp everywhere, but not the same ulp.
PARITY_EPS = 20


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    z: Array  # sum of the gradients and of what keeps near former parameters, in units of g
    n: Array  # sum of the squared gradients, in units of g**2


def init(param: Array, *, initial_accumulator: Weight = 0.1, xp: Namespace) -> State:
    """State before the first step."""
    return State(z=xp.zeros_like(param), n=xp.zeros_like(param) + initial_accumulator)


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1e-3,
    power: Weight | None = None,
    beta: Weight = 0.0,
    l1: Weight = 0.0,
    l2: Weight = 0.0,
    l2_shrinkage: Weight = 0.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    n = state.n + grad * grad
    before, f = (xp.sqrt(x) if power is None else x**power for x in (state.n, n))
    z = state.z + (grad + (l2_shrinkage - (f - before) / lr) * param)
    d = (f + beta) / lr + l2
    p = xp.where(d == 0, param, (clip(z, -l1, l1, xp=xp) - z) / d)
    p, z, n = (pick(lr == 0, a, b, xp=xp) for a, b in ((param, p), (state.z, z), (state.n, n)))
    return p, State(z, n)
