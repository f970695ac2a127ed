r"""AdaBelief: Adam with the gradient's variance in place of its second moment.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and :math:`m_0 = s_0 = 0`, per
element:

.. math::

    m &\leftarrow \beta_1 m + (1 - \beta_1)\, g \\
    s &\leftarrow \beta_2 s + (1 - \beta_2)\, (g - m)^2 + \epsilon_\mathrm{root} \\
    p &\leftarrow p - \frac{\eta}{1 - \beta_1^t}
        \frac{m}{\sqrt{s / (1 - \beta_2^t)} + \epsilon}

:math:`\epsilon_\mathrm{root}` is part of the slot and adds up there, to
:math:`\epsilon_\mathrm{root} / (1 - \beta_2)` in the end.

Zhuang et al., *AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients*,
NeurIPS 2020, Algorithm 2, https://arxiv.org/abs/2010.07468.

Equal to ``optax.adabelief``, also with ``nesterov``:
:math:`\beta_1 m / (1 - \beta_1^{t+1}) + (1 - \beta_1)\, g / (1 - \beta_1^t)` in the place of
:math:`m / (1 - \beta_1^t)`. The paper and pytorch_optimizer have one :math:`\epsilon` for both;
the authors' later code rectifies the step as RAdam does, unless told not to. torch and Keras have
no such rule. ``weight_decay`` is decoupled as in the authors' code.
"""

from typing import NamedTuple

from .._math import ahead, debias, guarded
from .._types import Array, Decay, Epsilon, Namespace, Rate, Scalar

DECAY = "decoupled"  # the authors' adabelief_pytorch


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the gradient, in units of g
    s: Array  # running variance of the gradient around m, in units of g**2


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(m=xp.zeros_like(param), s=xp.zeros_like(param))


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: Epsilon = 1e-16,
    eps_root: Epsilon = 1e-16,
    nesterov: bool = False,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    m = b1 * state.m + (1 - b1) * grad
    d = grad - m
    s = b2 * state.s + (1 - b2) * (d * d) + eps_root
    mean = ahead(m, grad, b1, t, xp=xp) if nesterov else m / debias(b1, t, xp=xp)
    root = xp.sqrt(s / debias(b2, t, xp=xp))
    return param - lr * (mean / guarded(root, eps, xp=xp)), State(m, s)
