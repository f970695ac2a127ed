r"""Madam: multiplicative weight update.

Not to be confused with MAdam, the adaptive rule of MaxVA, in ``maxva_madam.py``.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, :math:`v_0 = 0` and :math:`s` the
root mean square of the parameter before the first step, per element:

.. math::

    v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2 \\
    q &= \mathrm{clip}\left(\frac{g}{\sqrt{v / (1 - \beta_2^t)}},\
        -\mathrm{g\_bound},\ \mathrm{g\_bound}\right), \qquad q = 0 \text{ where } v = 0 \\
    p &\leftarrow p\, \exp(-\eta\, q\, \mathrm{sign}(p)) \\
    p &\leftarrow \mathrm{clip}(p,\ -\mathrm{p\_scale}\, s,\ \mathrm{p\_scale}\, s)

The first step changes :math:`|p|` by exactly :math:`e^{\pm\eta}`. A zero weight never moves and
no sign ever flips, so start no weight at 0. Decay ``lr`` at the end: the solution jitters.
``p_scale`` is worth tuning in {1, 2, 3}. As :math:`|q| \le \sqrt{(1-\beta_2^t)/(1-\beta_2)}`,
the default ``g_bound`` cannot act before step 106.

Bernstein et al., *Learning compositional functions via multiplicative weight updates*, NeurIPS
2020, Algorithm 1, https://arxiv.org/abs/2006.14560.

Deviations from the authors' code: a gradient so small that :math:`g^2` underflows takes no step
(theirs takes the largest), a NaN gradient propagates (theirs freezes the element for ever), and
``lr = 0`` moves nothing, not even an element outside the bound.
"""

from typing import NamedTuple

from .._math import clip, debias, pick, rms, sign
from .._types import Array, Bound, Decay, Namespace, Positive, Rate, Scalar

DECAY = "decoupled"
# exp is within 1 ulp of the true value everywhere, but not the same ulp, and each step multiplies
# by it: 100 steps may part by 100 half-ulp roundings of p, in the mean far less.
PARITY_EPS = 100


class State(NamedTuple):
    """One slot of the parameter's shape, and one value per parameter."""

    v: Array  # running mean of the squared gradient, in units of g**2
    scale: Array  # 0-d: root mean square of the first parameter, in units of p


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(v=xp.zeros_like(param), scale=rms(param, xp=xp))


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 0.01,
    p_scale: Positive = 3.0,
    g_bound: Bound = 10.0,
    b2: Decay = 0.999,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing.

    ``t`` counts from 1. ``lr`` is the relative change of an element in one typical step.
    """
    v = b2 * state.v + (1 - b2) * (grad * grad)
    root = xp.sqrt(xp.where(v == 0, xp.inf, v))
    q = clip(debias(b2, t, xp=xp) ** 0.5 * grad / root, -g_bound, g_bound, xp=xp)
    p = param * xp.exp(q * (-lr * sign(param, xp=xp)))
    bound = p_scale * state.scale
    p = pick(lr == 0, param, clip(p, -bound, bound, xp=xp), xp=xp)
    return p, State(v, state.scale)
