r"""Adadelta: steps in units of the steps before, so that no rate needs to be chosen.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and :math:`v_0 = u_0 = 0`, per element:

.. math::

    v &\leftarrow \rho v + (1 - \rho)\, g^2 \\
    d &= \sqrt{\frac{u + \epsilon}{v + \epsilon}}\; g \\
    u &\leftarrow \rho u + (1 - \rho)\, d^2 \\
    p &\leftarrow p - \eta d

:math:`\epsilon` starts the motion: with :math:`u = 0` the first step is
:math:`\sqrt{\epsilon / (v + \epsilon)}\; g`.

Zeiler, *ADADELTA: An Adaptive Learning Rate Method*, 2012, Algorithm 1,
https://arxiv.org/abs/1212.5701.

Deviation from the paper: ``lr``, 1 unless given. Equal to ``torch.optim.Adadelta``,
``optax.adadelta`` and Keras, whose defaults differ (``lr=1e-3, rho=0.95, eps=1e-7``).
``weight_decay`` is coupled (L2) as in torch and optax.
"""

from typing import NamedTuple

from .._types import Array, Decay, Namespace, Positive, Rate, Scalar

DECAY = "coupled"  # torch.optim.Adadelta


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    v: Array  # running mean of the squared gradient, in units of g**2
    u: Array  # running mean of the squared step at lr = 1, in units of p**2


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(v=xp.zeros_like(param), u=xp.zeros_like(param))


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1.0,
    rho: Decay = 0.9,
    eps: Positive = 1e-6,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    v = rho * state.v + (1 - rho) * (grad * grad)
    d = xp.sqrt((state.u + eps) / (v + eps)) * grad
    u = rho * state.u + (1 - rho) * (d * d)
    return param - lr * d, State(v, u)
