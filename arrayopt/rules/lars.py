r"""LARS: gradient descent with momentum whose rate fits each parameter's norm.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, :math:`m_0 = 0`, trust coefficient
:math:`\kappa`, momentum :math:`\mu`, dampening :math:`\tau` and norms over one parameter:

.. math::

    r &= \frac{\kappa \|p\|}{\|g\| + \lambda \|p\| + \epsilon}, \qquad r = 1 \text{ if } p = 0 \\
    d &= \eta\, r\, (g + \lambda p) \\
    m &\leftarrow \mu m + (1 - \tau)\, d \\
    p &\leftarrow p - m, \qquad p \leftarrow p - d - \mu m \text{ with nesterov}

You, Gitman & Ginsburg, *Large Batch Training of Convolutional Networks*, 2017, Algorithm 1,
https://arxiv.org/abs/1708.03888.

The paper's decay is ``inner_decay``, :math:`\lambda`: it has a norm of its own in the ratio.
``weight_decay`` is coupled, a part of :math:`g` and of its norm, as in ``optax.lars``. Where
:math:`g` and all terms below it are 0, :math:`d = 0`. Every parameter has a ratio, also biases: to
leave some out, give them to another rule.

Deviations from the paper: :math:`\epsilon`, dampening and Nesterov's look-ahead, which it does not
have. Equal to ``optax.lars``, and to ``pytorch_optimizer.LARS`` with ``inner_decay`` where ``lr``
is constant, as there it multiplies the momentum, and for matrices: vectors and scalars have no
ratio and no decay there. torch and Keras have no such rule.
"""

from typing import NamedTuple

from .._math import guarded
from .._types import Array, Epsilon, Fraction, Namespace, Off, Rate, Scalar, Weight

DECAY = "coupled"  # optax.lars


class State(NamedTuple):
    """One slot of the parameter's shape; none without momentum."""

    m: Array | Off  # decayed sum of steps, in units of p


def init(param: Array, *, momentum: Scalar, xp: Namespace) -> State:
    """State before the first step."""
    plain = isinstance(momentum, int | float) and momentum == 0
    return State(m=() if plain else xp.zeros_like(param))


def measure(
    param: Array, grad: Array, state: State, t: Scalar, *, xp: Namespace
) -> dict[str, Array]:
    """What is summed over the parameter: two squared norms."""
    return {"pp": param * param, "gg": grad * grad}


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    sums: dict[str, Array],
    lr: Rate = 1e-3,
    momentum: Fraction = 0.9,
    dampening: Fraction = 0.0,
    nesterov: bool = False,
    trust_coefficient: Weight = 1e-3,
    inner_decay: Weight = 0.0,
    eps: Epsilon = 0.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    p_norm, g_norm = xp.sqrt(sums["pp"]), xp.sqrt(sums["gg"])
    below = guarded(g_norm + inner_decay * p_norm, eps, xp=xp)
    r = xp.where(p_norm == 0, 1.0, trust_coefficient * p_norm / below)
    d = lr * r * (grad + inner_decay * param)
    if isinstance(state.m, tuple):
        return param - d, state
    m = momentum * state.m + (1 - dampening) * d
    return param - (d + momentum * m if nesterov else m), State(m)
