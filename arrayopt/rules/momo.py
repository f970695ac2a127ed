r"""MoMo: momentum at the rate that would reach a known lower bound of the loss.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, :math:`f` the loss, :math:`f_*` its
``lower_bound``, :math:`\lambda` ``inner_decay``, :math:`a = 1 + \eta \lambda`, every mean equal to
what it is a mean of at :math:`t = 1`, and products over all elements of all parameters:

.. math::

    m &\leftarrow \beta m + (1 - \beta)\, g, \quad
    \bar f \leftarrow \beta \bar f + (1 - \beta)\, f, \quad
    \gamma \leftarrow \beta \gamma + (1 - \beta)\, \langle g, p \rangle \\
    h &= a\, (\bar f - \gamma) + \langle m, p \rangle \\
    \tau &= \min\left(\eta,\ \frac{\max(h - a f_*,\ 0)}{\|m\|^2}\right),
        \qquad \tau = 0 \text{ if } \|m\|^2 \le 2^{-52} \\
    p &\leftarrow p - \tau m - (1 - 1 / a)\, p

With ``adapt_lower_bound``, a step where :math:`h < a f_*` takes
:math:`\max(h / 2a,\ \mathrm{lower\_bound})` for :math:`f_*` (without it that changes nothing:
:math:`\tau` is 0 with either), and every step ends with :math:`f_* \leftarrow`
:math:`\max(\bar f + \langle m, p \rangle - \gamma - \tau \|m\|^2 / 2,\ \mathrm{lower\_bound})`.
Every step must be given the loss at the parameters, ``value=``; ``lr`` is the largest rate.

Schaipp et al., *MoMo: Momentum Models for Adaptive Learning Rates*, ICML 2024, Algorithm 1,
https://arxiv.org/abs/2305.07583.

Equal to ``optax.contrib.momo``, whose ``weight_decay`` is ``inner_decay``: the last term of the
step, which the rate takes into account. ``weight_decay`` is decoupled and unknown to the rate.
torch, Keras and pytorch_optimizer have no such rule.
"""

from typing import NamedTuple

from .._math import pick
from .._types import Array, Decay, Loss, Namespace, Rate, Real, Scalar, Weight

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
    """One slot of the parameter's shape."""

    m: Array  # running mean of the gradient, in units of g


def share(*, lower_bound: Scalar) -> Shared:
    """Shared state before the first step."""
    return Shared(f=0.0, gamma=0.0, floor=lower_bound, tau=0.0)


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(m=xp.zeros_like(param))


def average(grad: Array, state: State, t: Scalar, *, beta: Scalar, xp: Namespace) -> Array:
    """The new ``m``."""
    return pick(t == 1, grad, beta * state.m + (1 - beta) * grad, xp=xp)


def measure(
    param: Array, grad: Array, state: State, t: Scalar, *, beta: Scalar, xp: Namespace
) -> dict[str, Array]:
    """What is summed over all elements."""
    m = average(grad, state, t, beta=beta, xp=xp)
    return {"mm": m * m, "mp": m * param, "gp": grad * param}


def adapt(
    shared: Shared,
    sums: dict[str, Array],
    t: Scalar,
    *,
    lr: Scalar,
    beta: Scalar,
    inner_decay: Scalar,
    value: Loss | None = None,
    lower_bound: Real = 0.0,
    adapt_lower_bound: bool = False,
    xp: Namespace,
) -> Shared:
    """The means with this step's terms, and its rate."""
    a, mm, mp, floor = 1 + lr * inner_decay, sums["mm"], sums["mp"], shared.floor
    f = beta * pick(t == 1, shared.f + value, shared.f, xp=xp) + (1 - beta) * value
    gamma = pick(t == 1, sums["gp"], beta * shared.gamma + (1 - beta) * sums["gp"], xp=xp)
    h = a * (f - gamma) + mp
    low = xp.where(h < a * floor, xp.maximum(h / (2 * a), lower_bound), floor)
    tau = xp.where(mm <= SMALLEST, 0.0, xp.maximum(h - a * low, 0.0) / mm)
    tau = xp.minimum(tau, lr)
    if adapt_lower_bound:
        floor = xp.maximum(f + mp - gamma - tau * mm / 2, lower_bound)
    return Shared(f, gamma, floor, tau)


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    shared: Shared,
    lr: Rate = 1.0,
    beta: Decay = 0.9,
    inner_decay: Weight = 0.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    m = average(grad, state, t, beta=beta, xp=xp)
    shrink = lr * inner_decay / (1 + lr * inner_decay)
    return param - shared.tau * m - shrink * param, State(m)
