r"""AVGrad: Adam over the average, instead of AMSGrad's maximum, of its second moments.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and every slot 0 at first, per element:

.. math::

    m &\leftarrow \beta_1 m + (1 - \beta_1)\, g \\
    v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2 \\
    w &\leftarrow \frac{(t - 1)\, w + v}{t} \\
    p &\leftarrow p - \frac{\eta}{1 - \beta_1^t}
        \frac{m}{\sqrt{w / (1 - \beta_2^t)} + \epsilon}

Ozkara et al., *MADA: Meta-Adaptive Optimizers through hyper-gradient Descent*, 2024, section 3,
https://arxiv.org/abs/2401.08893.

Deviation from the paper: the bias corrections, so that it is MADA's corner ``rho = 0`` with
``accumulate="mean"``.
"""

from typing import NamedTuple

from .._math import debias, guarded
from .._types import Array, Decay, Epsilon, Namespace, Rate, Scalar

DECAY = "decoupled"


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the gradient, in units of g
    v: Array  # running mean of the squared gradient, in units of g**2
    w: Array  # average of every v so far, in units of g**2


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
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    m = b1 * state.m + (1 - b1) * grad
    v = b2 * state.v + (1 - b2) * (grad * grad)
    w = ((t - 1) * state.w + v) / t
    root = xp.sqrt(w / debias(b2, t, xp=xp))
    return param - lr / debias(b1, t, xp=xp) * m / guarded(root, eps, xp=xp), State(m, v, w)
