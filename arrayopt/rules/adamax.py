r"""Adamax: Adam with the infinity norm in place of the second moment.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and :math:`m_0 = u_0 = 0`, per
element:

.. math::

    m &\leftarrow \beta_1 m + (1 - \beta_1)\, g \\
    u &\leftarrow \max(\beta_2 u,\ |g|) \\
    p &\leftarrow p - \frac{\eta}{1 - \beta_1^t} \frac{m}{u + \epsilon}

Kingma & Ba, *Adam: A Method for Stochastic Optimization*, ICLR 2015, Algorithm 2,
https://arxiv.org/abs/1412.6980.

Deviation from the paper: :math:`\epsilon`, which it leaves out; with ``eps = 0`` a gradient that
was always 0 gives the step 0. With ``eps_in_max`` the rule is that of ``torch.optim.Adamax`` and
``optax.adamax``: :math:`u \leftarrow \max(\beta_2 u, |g| + \epsilon)` and :math:`m / u`. Keras is
as here, with other defaults (lr 1e-3, eps 1e-7). Without ``bias_correction``, :math:`1 - \beta_1^t`
is 1, as in MLX. ``weight_decay`` is coupled (L2) as in torch; ``optax.adamaxw`` decouples it.
"""

from typing import NamedTuple

from .._math import debias, guarded
from .._types import Array, Decay, Epsilon, Namespace, Rate, Scalar

DECAY = "coupled"  # torch.optim.Adamax


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the gradient, in units of g
    u: Array  # decayed infinity norm of the gradient, in units of g


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(m=xp.zeros_like(param), u=xp.zeros_like(param))


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 2e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: Epsilon = 1e-8,
    eps_in_max: bool = False,
    bias_correction: bool = True,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing.

    ``t`` counts from 1. An element moves by at most about ``lr`` a step.
    """
    m = b1 * state.m + (1 - b1) * grad
    g = xp.abs(grad) + eps if eps_in_max else xp.abs(grad)
    u = xp.maximum(b2 * state.u, g)
    d = guarded(u, 0.0, xp=xp) if eps_in_max else guarded(u, eps, xp=xp)
    c1 = debias(b1, t, xp=xp) if bias_correction else 1.0
    return param - lr / c1 * m / d, State(m, u)
