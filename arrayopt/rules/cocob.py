r"""COCOB: continuous coin betting, gradient descent without a learning rate.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` times ``lr``, :math:`p_0` the first
parameter, :math:`L_0 = \epsilon` and the other slots 0 at first, per element:

.. math::

    L &\leftarrow \max(L,\ |g|), \qquad G \leftarrow G + |g| \\
    R &\leftarrow \max(R - g\, (p - p_0),\ 0), \qquad \theta \leftarrow \theta - g \\
    p &\leftarrow p_0 + \frac{\theta}{\max(G + L,\ \alpha L)} \left(1 + \frac R L\right)

Its scale: the gradient's cancels, but the parameter's does not. The first step moves an element
by :math:`1 / \alpha`, whatever it measures, so it suits parameters of the order of 1. ``lr`` only
scales the gradient, for schedules; the number 1 is right for it. The parameter is placed anew in
each step: a decoupled decay moves it only through R, so use the coupled one.

Orabona & Tommasi, *Training Deep Networks without Learning Rates Through Coin Betting*, NeurIPS
2017, Algorithm 2 (COCOB-Backprop), https://arxiv.org/abs/1705.07795.

Deviations from the paper: :math:`L_0 = \epsilon` and not 0, and ``lr``, as in
``optax.contrib.cocob``, to which it is equal but for the order of the divisions, with which no
product overflows. torch and Keras have no such rule. ``weight_decay`` is coupled as in optax.
"""

from typing import NamedTuple

from .._types import Array, Namespace, Positive, Rate, Scalar

DECAY = "coupled"  # optax.contrib.cocob


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    p0: Array  # the first parameter
    theta: Array  # minus the sum of the gradients, in units of g
    L: Array  # largest |g| so far
    G: Array  # sum of |g|
    R: Array  # reward, in units of g times p


def init(param: Array, *, eps: Positive = 1e-8, xp: Namespace) -> State:
    """State before the first step."""
    zero = xp.zeros_like(param)
    return State(p0=param, theta=zero, L=zero + eps, G=xp.zeros_like(param), R=xp.zeros_like(param))


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1.0,
    alpha: Positive = 100.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    g = lr * grad
    L = xp.maximum(state.L, xp.abs(g))
    G = state.G + xp.abs(g)
    R = xp.maximum(state.R - g * (param - state.p0), 0.0)
    theta = state.theta - g
    p = state.p0 + theta / xp.maximum(G + L, alpha * L) * (1 + R / L)
    return p, State(state.p0, theta, L, G, R)
