r"""ACProp: asynchronous centering, a gradient over the deviation known before it came.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, :math:`m_0 = s_0 = 0`, and primes for
the slots before the step, per element:

.. math::

    p &\leftarrow p - \eta\, \frac{g}{\sqrt{s' / (1 - \beta_2^{t-1})} + \epsilon}, \qquad
        \text{the root is 1 at } t = 1 \\
    m &= \beta_1 m' + (1 - \beta_1)\, g \\
    s &= \beta_2 s' + (1 - \beta_2)\, (g - m)^2 + \epsilon_\mathrm{root}

:math:`\epsilon_\mathrm{root}` is part of the slot and adds up there. The first step is plain SGD.
An element whose gradient was 0 so far has :math:`s' \approx \epsilon_\mathrm{root}` and then takes
a step as large as :math:`\eta g / \sqrt{\epsilon_\mathrm{root}}`: choose it with care.

Zhuang et al., *Momentum Centering and Asynchronous Update for Adaptive Gradient Methods*, NeurIPS
2021, https://arxiv.org/abs/2110.05454.

Deviations from the paper: :math:`\epsilon` and the bias correction, as in the authors' code and
``optax.contrib.acprop``. optax measures the residual from the mean before the step,
:math:`g - m'` (its docstring says :math:`g - m`): ``residual="before"``. As
:math:`g - m = \beta_1 (g - m')`, this is a step :math:`\beta_1` times as large but for
:math:`\epsilon`. The authors' code rectifies the step unless told not to; torch and Keras have no
such rule. ``weight_decay`` is decoupled in both.
"""

from typing import Literal, NamedTuple

from .._math import debias, guarded, pick
from .._types import Array, Decay, Epsilon, Namespace, Rate, Scalar

DECAY = "decoupled"  # the authors' ACProp, optax.contrib.acprop


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
    residual: Literal["after", "before"] = "after",
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    root = xp.sqrt(state.s / debias(b2, t - 1, xp=xp))
    root = pick(t == 1, xp.ones_like(grad), root, xp=xp)  # there it is 0 / 0
    m = b1 * state.m + (1 - b1) * grad
    d = grad - (m if residual == "after" else state.m)
    s = b2 * state.s + (1 - b2) * (d * d) + eps_root
    return param - lr * (grad / guarded(root, eps, xp=xp)), State(m, s)
