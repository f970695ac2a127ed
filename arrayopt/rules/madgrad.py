r"""MADGRAD: momentumised, adaptive, dual averaged gradient.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, :math:`s_0 = v_0 = 0`, :math:`x_0` the
parameter before the first step and :math:`\mu` the momentum, per element:

.. math::

    \lambda &= (\eta + \epsilon) \sqrt t, \qquad \lambda = 0 \text{ if } \eta = 0 \\
    s &\leftarrow s + \lambda g \\
    v &\leftarrow v + \lambda g^2 \\
    p &\leftarrow \mu p + (1 - \mu) \left(x_0 - \frac{s}{\sqrt[3] v + \epsilon}\right)

The step counts from :math:`x_0` and not from where the parameter is: what a decoupled weight decay
takes away is soon given back, so leave it coupled (L2). A step with :math:`\eta = 0` adds nothing
to the sums, but the parameter goes on to where they point.

Defazio & Jelassi, *Adaptivity without Compromise: A Momentumized, Adaptive, Dual Averaged Gradient
Method for Stochastic Optimization*, JMLR 2022, Algorithm 1, https://arxiv.org/abs/2101.11075.

Deviation from the paper: :math:`\epsilon` in :math:`\lambda`, as in the authors' code. Equal to
pytorch_optimizer, and to ``optax.contrib.madgrad`` where :math:`\eta > 0` (it has
:math:`\lambda = \epsilon \sqrt t` at :math:`\eta = 0`). torch and Keras have no such rule.
"""

from typing import NamedTuple

from .._math import cbrt, guarded, pick
from .._types import Array, Decay, Epsilon, Namespace, Rate, Scalar

DECAY = "coupled"  # the authors' MADGRAD
# The cube root is within an ulp or two of the true value everywhere, but not the same one.
PARITY_EPS = 100


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    s: Array  # weighted sum of gradients, in units of p g
    v: Array  # weighted sum of squared gradients, in units of p g**2
    x: Array  # the parameter before the first step


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(s=xp.zeros_like(param), v=xp.zeros_like(param), x=param)


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1e-2,
    momentum: Decay = 0.9,
    eps: Epsilon = 1e-6,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    lam = pick(lr == 0, 0.0, lr + eps, xp=xp) * t**0.5
    s = state.s + lam * grad
    v = state.v + lam * (grad * grad)
    x = state.x - s / guarded(cbrt(v, xp=xp), eps, xp=xp)
    return param + (1 - momentum) * (x - param), State(s, v, state.x)
