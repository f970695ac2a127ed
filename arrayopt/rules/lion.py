r"""Lion: evolved sign momentum.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and :math:`m_0 = 0`, per element:

.. math::

    c &= \beta_1 m + (1 - \beta_1)\, g \\
    p &\leftarrow p - \eta\, \mathrm{sign}(c) \\
    m &\leftarrow \beta_2 m + (1 - \beta_2)\, g

Every element moves by :math:`\eta`: choose ``lr`` 3 to 10 times smaller than for AdamW, and
``weight_decay`` as many times larger.

Chen et al., *Symbolic Discovery of Optimization Algorithms*, NeurIPS 2023, Algorithm 2,
https://arxiv.org/abs/2302.06675.

Equal to ``optax.lion``, Keras, MLX and ``pytorch_optimizer.Lion``; optax's ``weight_decay`` is
1e-3 by default, and Keras' rate 1e-3. torch has no such rule.
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
    lr: Rate = 1e-4,
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    c = b1 * state.m + (1 - b1) * grad
    m = b2 * state.m + (1 - b2) * grad
    return param - lr * sign(c, xp=xp), State(m)
