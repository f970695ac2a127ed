r"""Signum: the sign of the momentum; signSGD without momentum.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and :math:`m_0 = 0`, per element:

.. math::

    m &\leftarrow \beta m + (1 - \beta)\, g \\
    p &\leftarrow p - \eta\, \mathrm{sign}(m)

:math:`\beta` is ``momentum``. At 0 this is signSGD, which needs no slot. Every element moves by
:math:`\eta` in every step, and stays where m = 0.

Bernstein et al., *signSGD: Compressed Optimisation for Non-Convex Problems*, ICML 2018,
Algorithms 1 (signSGD) and 2 (Signum), https://arxiv.org/abs/1802.04434.

Equal to ``optax.signum``, ``optax.sign_sgd`` (with ``momentum=0``) and
``pytorch_optimizer.SignSGD``; torch and Keras have neither. ``weight_decay`` is decoupled as in
the last one.
"""

from typing import NamedTuple

from .._math import sign
from .._types import Array, Decay, Namespace, Off, Rate, Scalar

DECAY = "decoupled"


class State(NamedTuple):
    """One slot of the parameter's shape; none without momentum."""

    m: Array | Off  # running mean of the gradient, in units of g


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
    momentum: Decay = 0.9,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    if isinstance(state.m, tuple):
        return param - lr * sign(grad, xp=xp), state
    m = momentum * state.m + (1 - momentum) * grad
    return param - lr * sign(m, xp=xp), State(m)
