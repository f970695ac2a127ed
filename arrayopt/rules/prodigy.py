r"""Prodigy: Adam that estimates its own rate, by the distance from where it started.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, :math:`p_0` the first parameter, every
other slot, :math:`r` and :math:`s` 0 at first, :math:`d = d_0`, :math:`\beta_3 = \sqrt{\beta_2}`
unless given, and sums over all elements of all parameters:

.. math::

    \delta &= d\, \eta\, \sqrt{1 - \beta_2^t} / (1 - \beta_1^t) \\
    r &\leftarrow \beta_3 r + \delta\, (d / d_0) \sum g\, (p_0 - p) \\
    m &\leftarrow \beta_1 m + (1 - \beta_1)\, d\, g \\
    v &\leftarrow \beta_2 v + (1 - \beta_2)\, (d\, g)^2 \\
    s &\leftarrow \beta_3 s + \delta\, (d / d_0)\, g \\
    D &\leftarrow \max\left(D,\ \mathrm{d\_coef}\; r / \sum |s|\right) \\
    d' &= \min(D,\ \mathrm{growth\_rate}\; d) \\
    p &\leftarrow p - \delta\, \left(\frac{m}{\sqrt v + d' \epsilon} + \lambda p\right)

and :math:`d'` is the next step's :math:`d`. While d is :math:`d_0`, D itself bounds :math:`d'` and
no growth. Without any gradient so far, d stays. With ``safeguard_warmup``, s takes :math:`d` for
:math:`\delta`; without ``bias_correction`` :math:`\delta = d \eta`. ``lr`` is a factor for
schedules; the number 1 is right for it.

Mishchenko & Defazio, *Prodigy: An Expeditiously Adaptive Parameter-Free Learner*, ICML 2024,
"Adam version", https://arxiv.org/abs/2306.06101. Deviations from the paper, all as in the authors'
code: :math:`d'` beside :math:`\epsilon`, :math:`1 / d_0`, ``d_coef``, ``growth_rate``.

``inner_decay``, :math:`\lambda`, is ``weight_decay`` of ``optax.contrib.prodigy``, to which this is
equal but at steps before the first gradient, where that is NaN for ever, and of
``pytorch_optimizer.Prodigy``, which has ``bias_correction=False`` and keeps r in float32; its
coupled decay does nothing, as it is added too late. ``weight_decay`` is coupled here; decoupled,
its rate is ``lr`` and not :math:`\delta`, which is too much. torch and Keras have no such rule.
"""

import math
from typing import NamedTuple

from .._math import corrections, guarded
from .._types import Array, Bound, Decay, Epsilon, Namespace, Positive, Rate, Scalar, Weight

DECAY = "coupled"
# Sums over elements round differently in each library, and decide all later steps.
PARITY_EPS = 100


class Shared(NamedTuple):
    """State of the whole optimizer."""

    d: Scalar  # the estimate, for the step after
    now: Scalar  # the estimate that this step takes
    top: Scalar  # largest estimate so far
    r: Scalar  # weighted sum of products


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    p0: Array  # the first parameter
    m: Array  # running mean of d g
    v: Array  # running mean of (d g)**2
    s: Array  # weighted sum of the gradient


def share(*, d0: Scalar) -> Shared:
    """Shared state before the first step."""
    return Shared(d=d0, now=d0, top=d0, r=0.0)


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(param, *(xp.zeros_like(param) for _ in State._fields[1:]))


def measure(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    shared: Shared,
    lr: Scalar,
    b1: Scalar,
    b2: Scalar,
    b3: Scalar | None,
    d0: Scalar,
    bias_correction: bool,
    safeguard_warmup: bool,
    xp: Namespace,
) -> dict[str, Array]:
    """What is summed over all elements."""
    b3, d = b2**0.5 if b3 is None else b3, shared.d
    c = corrections(b1, b2, t, xp=xp) if bias_correction else 1.0
    s = b3 * state.s + (d if safeguard_warmup else d * lr * c) * (d / d0) * grad
    return {"gp": grad * (state.p0 - param), "s": xp.abs(s)}


def adapt(
    shared: Shared,
    sums: dict[str, Array],
    t: Scalar,
    *,
    lr: Scalar,
    b1: Scalar,
    b2: Scalar,
    b3: Scalar | None,
    d0: Scalar,
    bias_correction: bool,
    d_coef: Positive = 1.0,
    growth_rate: Bound = math.inf,
    xp: Namespace,
) -> Shared:
    """The estimate that this step takes, and the one of the next."""
    b3, d = b2**0.5 if b3 is None else b3, shared.d
    c = corrections(b1, b2, t, xp=xp) if bias_correction else 1.0
    r = b3 * shared.r + d * lr * c * (d / d0) * sums["gp"]
    found = d_coef * r / guarded(sums["s"], 0.0, xp=xp)
    top = xp.maximum(shared.top, found)
    start = xp.where(d == d0, xp.maximum(d, found), d)
    return Shared(xp.minimum(top, growth_rate * start), d, top, r)


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    shared: Shared,
    lr: Rate = 1.0,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay | None = None,
    d0: Positive = 1e-6,
    eps: Epsilon = 1e-8,
    bias_correction: bool = True,
    safeguard_warmup: bool = False,
    inner_decay: Weight = 0.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    b3, d = b2**0.5 if b3 is None else b3, shared.now
    c = corrections(b1, b2, t, xp=xp) if bias_correction else 1.0
    m = b1 * state.m + (1 - b1) * d * grad
    v = b2 * state.v + (1 - b2) * (d * grad * (d * grad))
    s = b3 * state.s + (d if safeguard_warmup else d * lr * c) * (d / d0) * grad
    step = m / guarded(xp.sqrt(v), shared.d * eps, xp=xp) + inner_decay * param
    return param - d * lr * c * step, State(state.p0, m, v, s)
