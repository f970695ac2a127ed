r"""QHAdam: quasi-hyperbolic Adam, whose moments are mixed with those of the gradient alone.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and :math:`m_0 = v_0 = 0`, per
element:

.. math::

    m &\leftarrow \beta_1 m + (1 - \beta_1)\, g \\
    v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2 \\
    p &\leftarrow p - \eta\, \frac{(1 - \nu_1)\, g + \nu_1 m / (1 - \beta_1^t)}
        {\sqrt{(1 - \nu_2)\, g^2 + \nu_2 v / (1 - \beta_2^t)} + \epsilon}

With :math:`\nu_1 = \nu_2 = 1`, the default, this is Adam; the authors advise
:math:`\nu_1 = 0.7`, :math:`\beta_1 = 0.995`. With :math:`\nu_1 = \beta_1` and :math:`\nu_2 = 1` it
is NAdam but for the bias corrections; with :math:`\nu_1 = 0` and :math:`\nu_2 = 1`, RMSprop with
one. A gradient whose square overflows makes its element NaN; in Adam it would stop.

Ma & Yarats, *Quasi-hyperbolic momentum and Adam for deep learning*, ICLR 2019, section 5,
https://arxiv.org/abs/1810.06801.

Equal to pytorch_optimizer, which averages with weights that it keeps in float32; torch, optax and
Keras have no such rule. ``weight_decay`` is coupled (L2) as in the authors' code.
"""

from typing import NamedTuple

from .._math import debias, guarded
from .._types import Array, Decay, Epsilon, Fraction, Namespace, Rate, Scalar

DECAY = "coupled"  # the authors' qhoptim


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
    nu1: Fraction = 1.0,
    nu2: Fraction = 1.0,
    eps: Epsilon = 1e-8,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    q = grad * grad
    m = b1 * state.m + (1 - b1) * grad
    v = b2 * state.v + (1 - b2) * q
    mean = (1 - nu1) * grad + nu1 / debias(b1, t, xp=xp) * m
    root = xp.sqrt((1 - nu2) * q + nu2 / debias(b2, t, xp=xp) * v)
    return param - lr * (mean / guarded(root, eps, xp=xp)), State(m, v)
