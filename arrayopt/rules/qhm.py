r"""QHM: quasi-hyperbolic momentum, a mixture of gradient and momentum.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and :math:`m_0 = 0`, per element:

.. math::

    m &\leftarrow \beta m + (1 - \beta)\, g \\
    p &\leftarrow p - \eta\, (\nu m + (1 - \nu)\, g)

:math:`\beta` is ``momentum``. With :math:`\nu = 0` this is plain SGD; with :math:`\nu = 1`,
momentum; with :math:`\nu = \beta`, Nesterov's. As the momentum is a mean and no sum, ``lr`` is
:math:`1 / (1 - \beta)` times that of ``sgd`` with the same momentum.

Ma & Yarats, *Quasi-hyperbolic momentum and Adam for deep learning*, ICLR 2019, equations 3 and 4,
https://arxiv.org/abs/1810.06801.

Defaults of ``momentum`` and ``nu`` are the paper's rule of thumb. Equal to
``pytorch_optimizer.QHM``, whose defaults are 0 and 1; torch, optax and Keras have no such rule.
``weight_decay`` is coupled (L2) as in the authors' code.
"""

from typing import NamedTuple

from .._types import Array, Decay, Fraction, Namespace, Rate, Scalar

DECAY = "coupled"  # the authors' qhoptim


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
    momentum: Decay = 0.999,
    nu: Fraction = 0.7,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    m = momentum * state.m + (1 - momentum) * grad
    return param - lr * (nu * m + (1 - nu) * grad), State(m)
