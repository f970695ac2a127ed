r"""diffGrad: Adam that slows down where the gradient hardly changes.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, :math:`g'` the one before (0 at
:math:`t = 1`) and :math:`m_0 = v_0 = 0`, per element:

.. math::

    m &\leftarrow \beta_1 m + (1 - \beta_1)\, g \\
    v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2 \\
    f &= \frac{1}{1 + e^{-|g' - g|}} \\
    p &\leftarrow p - \eta\, \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}
        \frac{f m}{\sqrt{v + \epsilon_\mathrm{root}} + \epsilon}

The friction :math:`f` is between 1/2 and 1, and depends on the gradient's unit.

Dubey et al., *diffGrad: An Optimization Method for Convolutional Neural Networks*, IEEE TNNLS
2020, https://arxiv.org/abs/1909.11015.

Deviations from the paper: :math:`\epsilon` is added before the bias correction of the root as in
the authors' code. Equal to pytorch_optimizer with ``eps_root=1e-15``. torch, optax and Keras have
no such rule. ``weight_decay`` is coupled (L2) as in the authors' code; pytorch_optimizer decouples
it.
"""

from typing import NamedTuple

from .._math import debias, guarded
from .._types import Array, Decay, Epsilon, Namespace, Rate, Scalar

DECAY = "coupled"  # the authors' diffgrad
# exp is within an ulp of the true value everywhere, but not the same one, in each step.
PARITY_EPS = 20


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the gradient, in units of g
    v: Array  # running mean of the squared gradient, in units of g**2
    g: Array  # the gradient of the step before


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(*(xp.zeros_like(param) for _ in State._fields))


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
    f = 1 / (1 + xp.exp(-xp.abs(state.g - grad)))
    rate = lr * debias(b2, t, xp=xp) ** 0.5 / debias(b1, t, xp=xp)
    root = xp.sqrt(v + eps_root)
    return param - rate * (f * m) / guarded(root, eps, xp=xp), State(m, v, grad)
