r"""MoMoAdam: Adam at the rate that would reach a known lower bound of the loss.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, :math:`f` the loss, :math:`f_*` its
``lower_bound``, :math:`\lambda` ``inner_decay``, :math:`a = 1 + \eta \lambda`,
:math:`c_i = 1 - \beta_i^t`, every mean 0 at first, and products over all elements of all
parameters:

.. math::

    m &\leftarrow \beta_1 m + (1 - \beta_1)\, g, \quad
    v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2, \quad D = \sqrt{v / c_2} + \epsilon \\
    \bar f &\leftarrow \beta_1 \bar f + (1 - \beta_1)\, f, \quad
    \gamma \leftarrow \beta_1 \gamma + (1 - \beta_1)\, \langle g, p \rangle \\
    h &= a\, (\bar f - \gamma) + \langle m, p \rangle, \quad n = \langle m, m / D \rangle \\
    \tau &= \min\left(\frac{\eta}{c_1},\ \frac{\max(h - a c_1 f_*,\ 0)}{n}\right),
        \qquad \tau = 0 \text{ if } n \le 2^{-52} \\
    p &\leftarrow p - \tau m / D - (1 - 1 / a)\, p

With ``adapt_lower_bound``, a step where :math:`h < a c_1 f_*` takes
:math:`\max(h / 2 a c_1,\ \mathrm{lower\_bound})` for :math:`f_*` (without it that changes nothing:
:math:`\tau` is 0 with either), and every step ends with :math:`f_* \leftarrow`
:math:`\max((\bar f + \langle m, p \rangle - \gamma - \tau n / 2) / c_1,\ \mathrm{lower\_bound})`.
Every step must be given the loss at the parameters, ``value=``; ``lr`` is the largest rate.

Schaipp et al., *MoMo: Momentum Models for Adaptive Learning Rates*, ICML 2024, "MoMo-Adam",
https://arxiv.org/abs/2305.07583.

Equal to ``optax.contrib.momo_adam``, whose ``weight_decay`` is ``inner_decay``: the last term of
the step, which the rate takes into account. ``weight_decay`` is decoupled and unknown to the rate.
torch, Keras and pytorch_optimizer have no such rule.
"""

from typing import NamedTuple

from .._math import debias, guarded
from .._types import Array, Decay, Epsilon, Loss, Namespace, Rate, Real, Scalar, Weight

DECAY = "decoupled"
# Sums over elements round differently in each library, and decide all later steps.
PARITY_EPS = 100
SMALLEST = 2.0**-52  # of a squared norm to divide by


class Shared(NamedTuple):
    """State of the whole optimizer."""

    f: Scalar  # running mean of the loss
    gamma: Scalar  # running mean of <g, p>
    floor: Scalar  # lower bound of the loss
    tau: Scalar  # the rate of this step


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the gradient, in units of g
    v: Array  # running mean of the squared gradient, in units of g**2


def share(*, lower_bound: Scalar) -> Shared:
    """Shared state before the first step."""
    return Shared(f=0.0, gamma=0.0, floor=lower_bound, tau=0.0)


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(m=xp.zeros_like(param), v=xp.zeros_like(param))


def average(
    grad: Array, state: State, t: Scalar, *, b1: Scalar, b2: Scalar, eps: Scalar, xp: Namespace
) -> tuple[Array, Array, Array]:
    """The new ``m, v`` and ``D``."""
    m = b1 * state.m + (1 - b1) * grad
    v = b2 * state.v + (1 - b2) * (grad * grad)
    return m, v, guarded(xp.sqrt(v / debias(b2, t, xp=xp)), eps, xp=xp)


def measure(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    b1: Scalar,
    b2: Scalar,
    eps: Scalar,
    xp: Namespace,
) -> dict[str, Array]:
    """What is summed over all elements."""
    m, _, D = average(grad, state, t, b1=b1, b2=b2, eps=eps, xp=xp)
    return {"n": m * m / D, "mp": m * param, "gp": grad * param}


def adapt(
    shared: Shared,
    sums: dict[str, Array],
    t: Scalar,
    *,
    lr: Scalar,
    b1: Scalar,
    inner_decay: Scalar,
    value: Loss | None = None,
    lower_bound: Real = 0.0,
    adapt_lower_bound: bool = False,
    xp: Namespace,
) -> Shared:
    """The means with this step's terms, and its rate."""
    a, n, mp, floor = 1 + lr * inner_decay, sums["n"], sums["mp"], shared.floor
    c1 = debias(b1, t, xp=xp)
    f = b1 * shared.f + (1 - b1) * value
    gamma = b1 * shared.gamma + (1 - b1) * sums["gp"]
    h = a * (f - gamma) + mp
    low = xp.where(h < a * c1 * floor, xp.maximum(h / (2 * a * c1), lower_bound), floor)
    tau = xp.where(n <= SMALLEST, 0.0, xp.maximum(h - a * c1 * low, 0.0) / n)
    tau = xp.minimum(tau, lr / c1)
    if adapt_lower_bound:
        floor = xp.maximum((f + mp - gamma - tau * n / 2) / c1, lower_bound)
    return Shared(f, gamma, floor, tau)


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    shared: Shared,
    lr: Rate = 1e-2,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: Epsilon = 1e-8,
    inner_decay: Weight = 0.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    m, v, D = average(grad, state, t, b1=b1, b2=b2, eps=eps, xp=xp)
    shrink = lr * inner_decay / (1 + lr * inner_decay)
    return param - shared.tau * m / D - shrink * param, State(m, v)
