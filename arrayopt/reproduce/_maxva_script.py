r"""MAdam (authors' script): with another mean in its weight than the paper's.

The scripts beside the paper (https://github.com/zhuchen03/MaxVA, ``synthetic_data``) differ from
its equation 7, and so from ``maxva_madam``, in the mean :math:`\bar u` and :math:`\sigma^2`:

.. math::

    \mathrm{nqm.py:}\quad & c = m_t / w, \quad \sigma^2 = v / w - c^2, \quad D = (g - c)^2 \\
    \mathrm{nonconvex.py:}\quad & c = u, \quad \sigma^2 = \max(v / w - (u / w)^2, 0),
        \quad D = (g - c)^2

where :math:`u, v, w` are of the step before and :math:`m_t` has seen this step's gradient.
``mean`` is ``"m/w"`` or ``"u"``. What those scripts run is here to tell what the difference makes.
"""

from typing import Literal, NamedTuple

from .._math import clip, debias
from .._types import Array, Decay, Epsilon, Fraction, Namespace, Positive, Rate, Scalar

DECAY = "decoupled"


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the gradient, in units of g
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
    b_hi: Fraction = 0.99,
    b_first: Decay = 0.99,
    eps: Epsilon = 1e-10,
    delta: Positive = 1e-16,
    mean: Literal["m/w", "u"] = "m/w",
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    _, u, v, w = state
    m = b1 * state.m + (1 - b1) * grad
    w1 = xp.where(w == 0, 1.0, w)
    if mean == "m/w":
        center = m / w1
        var = v / w1 - center * center
    else:
        center = u
        var = xp.maximum(v / w1 - (u / w1) * (u / w1), 0.0)
    dev = (grad - center) * (grad - center)
    beta = (dev + var) / (w * (dev - var) + dev + var + delta)
    beta = xp.where(w == 0, b_first, clip(beta, b_lo, b_hi, xp=xp))
    rest = 1 - beta
    u, v, w = beta * u + rest * grad, beta * v + rest * (grad * grad), beta * w + rest
    return param - lr / debias(b1, t, xp=xp) * m / (xp.sqrt(v / w) + eps), State(m, u, v, w)
