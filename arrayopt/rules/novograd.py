r"""NovoGrad: momentum of gradients that are divided by the norm that each parameter's has had.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and its norm over one parameter:

.. math::

    v &\leftarrow \beta_2 v + (1 - \beta_2)\, \|g\|^2, \qquad v = \|g\|^2 \text{ at } t = 1 \\
    d &= \frac{g}{\sqrt{v + \epsilon_\mathrm{root}} + \epsilon} + \lambda p \\
    m &\leftarrow \beta_1 m + \alpha\, d, \qquad m = d \text{ at } t = 1 \\
    p &\leftarrow p - \eta\, m

with :math:`\alpha = 1`, or :math:`1 - \beta_1` with ``grad_averaging``.

Ginsburg et al., *Stochastic Gradient Methods with Layer-wise Adaptive Moments for Training of Deep
Networks*, 2019, Algorithm 1, https://arxiv.org/abs/1905.11286.

The paper's decay is ``inner_decay``, :math:`\lambda`: it goes through the momentum, and is what
``weight_decay`` is in ``optax.novograd`` and, unless decoupled, in ``pytorch_optimizer.NovoGrad``.
``weight_decay`` is decoupled.

Deviations from the paper: :math:`\epsilon_\mathrm{root}`, 0 unless given, as in optax, and
``grad_averaging``, as in pytorch_optimizer. Equal to both; optax has ``b1=0.9, b2=0.25, eps=1e-6``.
torch and Keras have no such rule.
"""

from typing import NamedTuple

from .._math import guarded, pick, scalar
from .._types import Array, Decay, Epsilon, Namespace, Rate, Scalar, Weight

DECAY = "decoupled"


class State(NamedTuple):
    """One slot of the parameter's shape, and one value per parameter."""

    m: Array  # decayed sum of the normalized gradient, a number
    v: Array  # 0-d: running mean of the gradient's squared norm, in units of g**2


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(m=xp.zeros_like(param), v=scalar(0.0, like=param, xp=xp))


def measure(
    param: Array, grad: Array, state: State, t: Scalar, *, xp: Namespace
) -> dict[str, Array]:
    """What is summed over the parameter: the gradient's squared norm."""
    return {"gg": grad * grad}


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    sums: dict[str, Array],
    lr: Rate = 1e-3,
    b1: Decay = 0.95,
    b2: Decay = 0.98,
    eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0,
    grad_averaging: bool = False,
    inner_decay: Weight = 0.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    v = pick(t == 1, sums["gg"], b2 * state.v + (1 - b2) * sums["gg"], xp=xp)
    d = grad / guarded(xp.sqrt(v + eps_root), eps, xp=xp) + inner_decay * param
    alpha = 1 - b1 if grad_averaging else 1.0
    m = pick(t == 1, d, b1 * state.m + alpha * d, xp=xp)
    return param - lr * m, State(m, v)
