r"""SM3: square root of minima of sums of maxima of squared gradients, one accumulator per axis.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, and :math:`\mu_i`, 0 at first, an
accumulator for each position :math:`r` along axis :math:`i`:

.. math::

    \nu &= \beta_2 \min_i \mu_i + (1 - \beta_2)\, g^2
        \text{, with a factor of 1 before } g^2 \text{ if } \beta_2 = 1 \\
    \mu_i(r) &\leftarrow \max_{j : j_i = r} \nu_j \\
    m &\leftarrow \mu m + (1 - \mu)\, g / \sqrt{\nu + \epsilon} \\
    p &\leftarrow p - \eta\, m

The state of an n by k matrix is n + k numbers, and the momentum. A vector has an accumulator for
each element, which makes of it Adagrad.

Anil et al., *Memory-Efficient Adaptive Optimization*, NeurIPS 2019, Algorithm SM3-II,
https://arxiv.org/abs/1901.11150.

Deviations from the paper: :math:`\epsilon` and :math:`\beta_2`, which both frameworks have. Equal
to ``optax.sm3`` with ``momentum=0.9, eps=1e-8``, which has no scalars. pytorch_optimizer's ``beta``
is b2 (its 0 is our 1), and with it an accumulator never falls: ``monotone=True``.
"""

import functools
from typing import NamedTuple

from .._math import guarded, packed, pick, unpacked
from .._types import Array, Decay, Epsilon, Fraction, Namespace, Off, Rate, Scalar

DECAY = "decoupled"
ELEMENTWISE = False


class State(NamedTuple):
    """The accumulators, one after another; and the momentum, none without it."""

    mu: Array  # for each axis and position, the largest nu there, in units of g**2
    m: Array | Off  # running mean of the scaled gradient, without a unit


def init(param: Array, *, momentum: Scalar, xp: Namespace) -> State:
    """State before the first step."""
    plain = isinstance(momentum, int | float) and momentum == 0
    zeros = xp.zeros_like(param)
    return State(mu=packed(_tops(zeros, xp), like=zeros, xp=xp), m=() if plain else zeros)  # a copy


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 0.1,
    momentum: Decay = 0.9,
    b2: Fraction = 1.0,
    monotone: bool = False,
    eps: Epsilon = 1e-30,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    mu = unpacked(state.mu, [x.shape for x in _tops(grad, xp)], xp=xp)
    nu = b2 * functools.reduce(xp.minimum, mu) + pick(b2 == 1, 1.0, 1 - b2, xp=xp) * (grad * grad)
    mu = [xp.maximum(a, b) if monotone else b for a, b in zip(mu, _tops(nu, xp), strict=True)]
    u = grad / guarded(xp.sqrt(nu + eps), 0.0, xp=xp)
    if isinstance(state.m, tuple):
        m, u = (), u
    else:
        m = u = momentum * state.m + (1 - momentum) * u
    return param - lr * u, State(packed(mu, like=grad, xp=xp), m)


def _tops(x: Array, xp: Namespace) -> list[Array]:
    """For each axis the largest elements of the slices along it; ``x`` itself if it has one."""
    axes = range(len(x.shape))
    if len(axes) < 2 or 0 in x.shape:
        return [x]
    return [xp.max(x, axis=tuple(j for j in axes if j != i), keepdims=True) for i in axes]
