r"""AdaMod: Adam whose rate per element is bounded by its own running mean.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and every slot 0 at first, per element:

.. math::

    m &\leftarrow \beta_1 m + (1 - \beta_1)\, g \\
    v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2 \\
    q &= \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \frac{\eta}{\sqrt v + \epsilon} \\
    s &\leftarrow \beta_3 s + (1 - \beta_3)\, q \\
    p &\leftarrow p - \min(q, s)\, m

The mean starts at 0 and is not corrected, which warms the rate up over some
:math:`1 / (1 - \beta_3)` steps.

Ding et al., *An Adaptive and Momental Bound Method for Stochastic Learning*, 2019, Algorithm 1,
https://arxiv.org/abs/1910.12249.

Deviations from the paper: :math:`\epsilon` is added before the bias correction of the root, and
the correction of :math:`m` is part of :math:`q`, as in the authors' code and pytorch_optimizer,
to both of which it is equal. torch, optax and Keras have no such rule. ``weight_decay`` is
decoupled as in both.
"""

from typing import NamedTuple

from .._math import debias, guarded
from .._types import Array, Decay, Epsilon, Namespace, Rate, Scalar

DECAY = "decoupled"


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the gradient, in units of g
    v: Array  # running mean of the squared gradient, in units of g**2
    s: Array  # running mean of the rate, in units of p / g


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
    b2: Decay = 0.999,
    b3: Decay = 0.999,
    eps: Epsilon = 1e-8,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    m = b1 * state.m + (1 - b1) * grad
    v = b2 * state.v + (1 - b2) * (grad * grad)
    rate = lr * debias(b2, t, xp=xp) ** 0.5 / debias(b1, t, xp=xp)
    one = xp.ones_like(v)  # torch takes number / array for a product with the reciprocal
    q = rate * one / guarded(xp.sqrt(v), eps, xp=xp)
    s = b3 * state.s + (1 - b3) * q
    return param - xp.minimum(q, s) * m, State(m, v, s)
