r"""DAdaptAdam: Adam that estimates its own rate, by D-Adaptation.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, every slot and :math:`r` 0 at
first, :math:`d = d_0`, :math:`b = \sqrt{\beta_2}`, and sums over all elements of all parameters:

.. math::

    \delta &= d\, \eta\, \sqrt{1 - \beta_2^t} / (1 - \beta_1^t) \\
    r &\leftarrow b\, r + (1 - b)\, \delta \sum g\, s / (\sqrt v + \epsilon) \\
    m &\leftarrow \beta_1 m + (1 - \beta_1)\, \delta\, g \\
    v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2 \\
    s &\leftarrow b\, s + (1 - b)\, \delta\, g \\
    p &\leftarrow p - m / (\sqrt v + \epsilon) - \delta\, \lambda\, p \\
    d &\leftarrow \max\left(d,\ \min\left(\frac{r}{(1 - b) \sum |s|},\
        \mathrm{growth\_rate}\; d\right)\right)

The first sum is over what was there before the step; the last line is for the step after. Without
any gradient so far, d stays. ``lr`` is a factor for schedules; the number 1 is right for it.
Without ``bias_correction`` :math:`\delta = d \eta`.

Defazio & Mishchenko, *Learning-Rate-Free Learning by D-Adaptation*, ICML 2023, "Adam with
D-Adaptation", https://arxiv.org/abs/2301.07733.

``inner_decay``, :math:`\lambda`, is ``weight_decay`` of ``optax.contrib.dadapt_adamw``, to which
this is equal but at steps before the first gradient, where that is NaN for ever.
``pytorch_optimizer.DAdaptAdam`` has ``bias_correction=False``, keeps r in float32 and, at
``lr = 0``, keeps d. ``weight_decay`` is coupled as there; decoupled, its rate is ``lr`` and not
:math:`\delta`, which is too much. torch and Keras have no such rule.
"""

import math
from typing import NamedTuple

from .._math import corrections, guarded
from .._types import Array, Bound, Decay, Epsilon, Namespace, Positive, Rate, Scalar, Weight

DECAY = "coupled"  # pytorch_optimizer.DAdaptAdam
# Sums over elements round differently in each library, and decide all later steps.
PARITY_EPS = 100


class Shared(NamedTuple):
    """State of the whole optimizer."""

    d: Scalar  # the estimate, for the step after
    now: Scalar  # the estimate that this step takes
    r: Scalar  # weighted sum of products


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the gradient times its rate, in units of p
    v: Array  # running mean of the squared gradient, in units of g**2
    s: Array  # slower mean of the gradient times its rate


def share(*, d0: Positive = 1e-6) -> Shared:
    """Shared state before the first step."""
    return Shared(d=d0, now=d0, r=0.0)


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(*(xp.zeros_like(param) for _ in State._fields))


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
    eps: Scalar,
    bias_correction: bool,
    xp: Namespace,
) -> dict[str, Array]:
    """What is summed over all elements."""
    b = b2**0.5
    c = corrections(b1, b2, t, xp=xp) if bias_correction else 1.0
    delta = shared.d * lr * c
    s = b * state.s + (1 - b) * delta * grad
    gs = grad * state.s / guarded(xp.sqrt(state.v), eps, xp=xp)
    return {"gs": gs, "s": xp.abs(s)}


def adapt(
    shared: Shared,
    sums: dict[str, Array],
    t: Scalar,
    *,
    lr: Scalar,
    b1: Scalar,
    b2: Scalar,
    bias_correction: bool,
    growth_rate: Bound = math.inf,
    xp: Namespace,
) -> Shared:
    """The estimate that this step takes, and the one of the next."""
    b, d = b2**0.5, shared.d
    c = corrections(b1, b2, t, xp=xp) if bias_correction else 1.0
    delta = d * lr * c
    r = b * shared.r + (1 - b) * delta * sums["gs"]
    found = r / guarded((1 - b) * sums["s"], 0.0, xp=xp)
    return Shared(xp.maximum(d, xp.minimum(found, growth_rate * d)), d, r)


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
    eps: Epsilon = 1e-8,
    bias_correction: bool = True,
    inner_decay: Weight = 0.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    b = b2**0.5
    c = corrections(b1, b2, t, xp=xp) if bias_correction else 1.0
    delta = shared.now * lr * c
    m = b1 * state.m + (1 - b1) * delta * grad
    v = b2 * state.v + (1 - b2) * (grad * grad)
    s = b * state.s + (1 - b) * delta * grad
    step = m / guarded(xp.sqrt(v), eps, xp=xp) + delta * inner_decay * param
    return param - step, State(m, v, s)
