r"""Adam: adaptive moment estimation.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and :math:`m_0 = v_0 = 0`, per
element:

.. math::

    m &\leftarrow \beta_1 m + (1 - \beta_1)\, g \\
    v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2 \\
    p &\leftarrow p - \frac{\eta}{1 - \beta_1^t}
        \frac{m}{\sqrt{v / (1 - \beta_2^t) + \epsilon_\mathrm{root}} + \epsilon}

Kingma & Ba, *Adam: A Method for Stochastic Optimization*, ICLR 2015, Algorithm 1,
https://arxiv.org/abs/1412.6980.

Deviation from the paper: :math:`\epsilon_\mathrm{root}`, 0 unless given, as in optax.
Equal to ``torch.optim.Adam`` and ``optax.adam``. Keras adds :math:`\epsilon` before the bias
correction of the root; MLX corrects no bias by default. ``weight_decay`` is coupled (L2) as in
torch; ``decay="decoupled"`` is AdamW.
"""

from typing import NamedTuple

from .._math import debias, guarded
from .._types import Array, Decay, Epsilon, Namespace, Rate, Scalar

DECAY = "coupled"  # torch.optim.Adam


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the gradient, in units of g
    v: Array  # running mean of the squared gradient, in units of g**2


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(m=xp.zeros_like(param), v=xp.zeros_like(param))


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    m = b1 * state.m + (1 - b1) * grad
    v = b2 * state.v + (1 - b2) * (grad * grad)
    root = xp.sqrt(v / debias(b2, t, xp=xp) + eps_root)
    return param - lr / debias(b1, t, xp=xp) * m / guarded(root, eps, xp=xp), State(m, v)
