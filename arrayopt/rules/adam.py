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
Equal to ``torch.optim.Adam`` and ``optax.adam``. With ``eps_hat``, :math:`\epsilon` is the
paper's :math:`\hat\epsilon` (section 2), added before the bias correction of the root,
:math:`\sqrt{1 - \beta_2^t}\, m / (\sqrt{v + \epsilon_\mathrm{root}} + \epsilon)`: this is
Keras' ``Adam``, whose ``epsilon`` is 1e-7. Without ``bias_correction`` both :math:`1 - \beta^t`
are 1, as in MLX by default. ``weight_decay`` is coupled (L2) as in torch; ``decay="decoupled"`` is
AdamW, and what Keras does in ``Adam`` too.
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
    eps_hat: bool = False,
    bias_correction: bool = True,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    m = b1 * state.m + (1 - b1) * grad
    v = b2 * state.v + (1 - b2) * (grad * grad)
    c1, c2 = (debias(b, t, xp=xp) if bias_correction else 1.0 for b in (b1, b2))
    lr, c2 = (lr * c2**0.5, 1.0) if eps_hat else (lr, c2)
    root = xp.sqrt(v / c2 + eps_root)
    return param - lr / c1 * m / guarded(root, eps, xp=xp), State(m, v)
