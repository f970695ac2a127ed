r"""SGD: gradient descent with momentum, dampening and Nesterov's look-ahead.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, momentum :math:`\mu` and
dampening :math:`\tau`, per element:

.. math::

    m &\leftarrow \mu m + (1 - \tau)\, g, \qquad m = g \text{ at } t = 1 \\
    d &= g + \mu m \text{ with nesterov},\ m \text{ without};\ d = g \text{ if } \mu = 0 \\
    p &\leftarrow p - \eta\, d

Sutskever et al., *On the importance of initialization and momentum in deep learning*,
ICML 2013, equations 1-4, https://proceedings.mlr.press/v28/sutskever13.html.

Deviation from the paper: the learning rate multiplies the whole momentum and not the gradient
alone, as in ``torch.optim.SGD``; equal to Keras, which folds it in, at a constant rate. The
first momentum is the undampened gradient, as in torch.
"""

from typing import NamedTuple

from .._math import pick
from .._types import Array, Fraction, Namespace, Off, Rate, Scalar

DECAY = "coupled"  # torch.optim.SGD


class State(NamedTuple):
    """One slot of the parameter's shape; none without momentum."""

    m: Array | Off  # decayed sum of gradients, in units of g


def init(param: Array, *, momentum: Scalar, xp: Namespace) -> State:
    """State before the first step."""
    plain = isinstance(momentum, int | float) and momentum == 0
    return State(m=() if plain else xp.zeros_like(param))


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1e-3,
    momentum: Fraction = 0.0,
    dampening: Fraction = 0.0,
    nesterov: bool = False,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    if isinstance(state.m, tuple):
        return param - lr * grad, state
    m = pick(t == 1, grad, momentum * state.m + (1 - dampening) * grad, xp=xp)
    d = grad + momentum * m if nesterov else m
    return param - lr * d, State(m)
