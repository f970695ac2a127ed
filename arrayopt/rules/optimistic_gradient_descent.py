r"""Optimistic Gradient Descent: gradient descent that expects the next change of the gradient.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and :math:`g'` the one before, per
element:

.. math::

    p \leftarrow p - \eta\, ((\alpha + \beta)\, g - \beta g'), \qquad g' = g \text{ at } t = 1

Made for games (min-max problems), where plain descent circles around the solution.

Mokhtari, Ozdaglar & Pattathil, *A Unified Analysis of Extra-gradient and Optimistic Gradient
Methods for Saddle Point Problems: Proximal Point Approach*, AISTATS 2020 (generalized OGDA),
https://arxiv.org/abs/1901.08511.

Deviation from the paper: there :math:`\alpha` and :math:`\beta` are step sizes; here they are
factors of ``lr``, as in ``optax.optimistic_gradient_descent``, to which it is equal. torch and
Keras have no such rule.
"""

from typing import NamedTuple

from .._math import pick
from .._types import Array, Namespace, Rate, Scalar, Weight

DECAY = "decoupled"


class State(NamedTuple):
    """One slot of the parameter's shape."""

    g: Array  # the gradient of the step before


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(g=xp.zeros_like(param))


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1e-3,
    alpha: Weight = 1.0,
    beta: Weight = 1.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    before = pick(t == 1, grad, state.g, xp=xp)
    return param - lr * ((alpha + beta) * grad - beta * before), State(grad)
