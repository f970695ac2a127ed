r"""LaMAdam: LaProp whose second-moment weight maximises the observed variance (MaxVA).

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, every slot 0 at first, and
:math:`\beta`, :math:`u`, :math:`v`, :math:`w` as in MAdam (``maxva_madam.py``), per element:

.. math::

    u, v, w &\leftarrow \beta \cdot (u, v, w) + (1 - \beta) \cdot (g, g^2, 1) \\
    m &\leftarrow \beta_1 m + (1 - \beta_1) \frac{g}{\sqrt{v / w} + \epsilon} \\
    p &\leftarrow p - \frac{\eta}{1 - \beta_1^t}\, m

``b_lo = b_hi`` is LaProp.

Zhu et al., *MaxVA: Fast Adaptation of Step Sizes by Maximizing Observed Variance of Gradients*,
2020, Algorithm 2, https://arxiv.org/abs/2006.11918.

Deviation from the authors' code: it folds the learning rate into :math:`m`, which is equal at a
constant rate.
"""

from typing import NamedTuple

from .._math import debias, guarded
from .._types import Array, Decay, Epsilon, Fraction, Namespace, Positive, Rate, Scalar
from .maxva_madam import average
from .maxva_madam import validate as validate

DECAY = "decoupled"


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the normalised gradient, without unit
    u: Array  # weighted sum of the gradient, in units of g
    v: Array  # weighted sum of the squared gradient, in units of g**2
    w: Array  # sum of the weights: 0 at first, then in (0, 1]


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
    b_lo: Fraction = 0.5,
    b_hi: Fraction = 0.98,
    b_first: Decay | None = None,
    eps: Epsilon = 1e-15,
    delta: Positive = 1e-16,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    u, v, w = average(grad, *state[1:], b_lo=b_lo, b_hi=b_hi, b_first=b_first, delta=delta, xp=xp)
    m = b1 * state.m + (1 - b1) * (grad / guarded(xp.sqrt(v / w), eps, xp=xp))
    return param - lr / debias(b1, t, xp=xp) * m, State(m, u, v, w)
