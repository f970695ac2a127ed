r"""Tiger: the sign of the momentum, Lion with one beta.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and :math:`m_0 = 0`, per element:

.. math::

    m &\leftarrow \beta_1 m + (1 - \beta_1)\, g \\
    p &\leftarrow p - \eta\, \mathrm{sign}(m)

It is ``signum`` with another default, and decoupled decay; made to need one slot, also when
gradients are accumulated.

Su, *Tiger: A Tight-fisted Optimizer*, 2023, https://github.com/bojone/tiger.

Deviations from the author's code: there the rate of a weight is multiplied by its root mean square
(of each row in embeddings), that of biases and norms is halved, gradients are accumulated in m,
and a step with NaN shrinks the weights. As here, ``pytorch_optimizer.Tiger`` has none of these,
to which it is equal; its ``weight_decay`` is 0.01 by default. torch, optax and Keras have no such
rule.
"""

from typing import NamedTuple

from .._math import sign
from .._types import Array, Decay, Namespace, Rate, Scalar

DECAY = "decoupled"


class State(NamedTuple):
    """One slot of the parameter's shape."""

    m: Array  # running mean of the gradient, in units of g


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(m=xp.zeros_like(param))


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1e-3,
    b1: Decay = 0.965,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    m = b1 * state.m + (1 - b1) * grad
    return param - lr * sign(m, xp=xp), State(m)
