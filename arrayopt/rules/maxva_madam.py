r"""MAdam: Adam whose second-moment weight maximises the observed variance (MaxVA).

Not to be confused with Madam, the multiplicative rule, in ``madam.py``.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, every slot 0 at first, and
:math:`\bar u = u / w`, :math:`\sigma^2 = v / w - \bar u^2`, :math:`D = (g - \bar u)^2` of the
step before, per element:

.. math::

    \beta &= \mathrm{clip}\left(\frac{D + \sigma^2}{w (D - \sigma^2) + D + \sigma^2 + \delta},
        \ b_\mathrm{lo},\ b_\mathrm{hi}\right),
        \qquad \beta = b_\mathrm{first} \text{ where } w = 0 \\
    u, v, w &\leftarrow \beta \cdot (u, v, w) + (1 - \beta) \cdot (g, g^2, 1) \\
    m &\leftarrow \beta_1 m + (1 - \beta_1)\, g \\
    p &\leftarrow p - \frac{\eta}{1 - \beta_1^t} \frac{m}{\sqrt{v / w} + \epsilon}

``b_first`` is ``b_hi`` unless given. ``b_lo = b_hi`` is Adam. ``amsgrad`` divides by the largest
denominator so far; ``nesterov`` takes :math:`\beta_1 m + (1 - \beta_1) g` for :math:`m` in the
step.

Zhu et al., *MaxVA: Fast Adaptation of Step Sizes by Maximizing Observed Variance of Gradients*,
2020, Algorithm 1 and equation 7, https://arxiv.org/abs/2006.11918.

Deviation from the paper: its line 12 places :math:`\epsilon` so that it acts as
:math:`\epsilon / \sqrt w` (31.6 times larger in step 1); the authors' code and Adam place it as
here. With constant gradients :math:`\sigma^2` is rounding error alone and decides :math:`\beta`:
on such data no two libraries agree.
"""

from typing import NamedTuple

from .._math import clip, debias, guarded
from .._types import Array, Decay, Epsilon, Fraction, Namespace, Off, Positive, Rate, Scalar

DECAY = "decoupled"


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the gradient, in units of g
    u: Array  # weighted sum of the gradient, in units of g
    v: Array  # weighted sum of the squared gradient, in units of g**2
    w: Array  # sum of the weights: 0 at first, then in (0, 1]
    top: Array | Off  # with amsgrad: largest denominator so far, in units of g


def init(param: Array, *, amsgrad: bool, xp: Namespace) -> State:
    """State before the first step."""
    zeros = State(*(xp.zeros_like(param) for _ in State._fields))
    return zeros if amsgrad else zeros._replace(top=())


def validate(*, b_lo: Scalar, b_hi: Scalar, b_first: Scalar | None) -> None:
    """Conditions that bind several hyperparameters."""
    if b_lo > b_hi:
        raise ValueError(f"b_lo must not exceed b_hi, got b_lo={b_lo} and b_hi={b_hi}")
    if b_first is None and b_hi == 1:
        raise ValueError("b_hi=1 needs b_first, a weight in [0, 1) for the first step")


def average(
    g: Array,
    u: Array,
    v: Array,
    w: Array,
    *,
    b_lo: Scalar,
    b_hi: Scalar,
    b_first: Scalar | None,
    delta: Scalar,
    xp: Namespace,
) -> tuple[Array, Array, Array]:
    """The new ``u, v, w`` (paper, equation 7)."""
    fresh = w == 0
    w1 = xp.where(fresh, 1.0, w)
    mean = u / w1
    var = v / w1 - mean * mean
    dev = (g - mean) * (g - mean)
    beta = (dev + var) / (w * (dev - var) + dev + var + delta)
    first = b_hi if b_first is None else b_first
    beta = xp.where(fresh, first, clip(beta, b_lo, b_hi, xp=xp))
    rest = 1 - beta
    return beta * u + rest * g, beta * v + rest * (g * g), beta * w + rest


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1e-3,
    b1: Decay = 0.9,
    b_lo: Fraction = 0.5,
    b_hi: Fraction = 0.999,
    b_first: Decay | None = None,
    eps: Epsilon = 1e-8,
    delta: Positive = 1e-16,
    amsgrad: bool = False,
    nesterov: bool = False,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    u, v, w = average(grad, *state[1:4], b_lo=b_lo, b_hi=b_hi, b_first=b_first, delta=delta, xp=xp)
    m = b1 * state.m + (1 - b1) * grad
    ahead = b1 * m + (1 - b1) * grad if nesterov else m
    d = guarded(xp.sqrt(v / w), eps, xp=xp)
    top = xp.maximum(state.top, d) if amsgrad else ()
    d = top if amsgrad else d
    return param - lr / debias(b1, t, xp=xp) * ahead / d, State(m, u, v, w, top)
