r"""Padam: partially adaptive momentum, between SGD and AMSGrad.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, every slot 0 at first and :math:`s`
the exponent ``partial``, per element:

.. math::

    m &\leftarrow \beta_1 m + (1 - \beta_1)\, g \\
    v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2, \qquad
        w \leftarrow \max(w, v) \text{ with amsgrad},\ v \text{ without} \\
    p &\leftarrow p - \eta\, \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}
        \frac{m}{(\sqrt w + \epsilon)^{2 s}}

With ``partial`` 1/2 this is AMSGrad (Adam without ``amsgrad``); towards 0 it becomes SGD with
momentum. The unit of ``lr`` changes with it, and 0.1 is the authors' for 1/4 and smaller.

Chen et al., *Closing the Generalization Gap of Adaptive Gradient Methods in Training Deep Neural
Networks*, IJCAI 2020, Algorithm 1, https://arxiv.org/abs/1806.06763.

Deviations from the paper, all as in the authors' code: :math:`\epsilon` and the bias corrections,
of which that of the root keeps its power 1/2 whatever ``partial`` is. pytorch_optimizer has
``amsgrad=False``; torch, optax and Keras have no such rule. ``weight_decay`` is coupled (L2) as in
the authors' code.
"""

from typing import Annotated, NamedTuple

from .._math import debias, guarded
from .._types import Array, Decay, Epsilon, Namespace, Off, Range, Rate, Scalar

DECAY = "coupled"  # the authors' Padam
# exp and log are within an ulp of the true value everywhere, but not the same one, and a power has
# that ulp of the logarithm as many times as the logarithm is large.
PARITY_EPS = 100


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the gradient, in units of g
    v: Array  # running mean of the squared gradient, in units of g**2
    w: Array | Off  # with amsgrad: largest v so far


def init(param: Array, *, amsgrad: bool, xp: Namespace) -> State:
    """State before the first step."""
    zeros = State(*(xp.zeros_like(param) for _ in State._fields))
    return zeros if amsgrad else zeros._replace(w=())


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 0.1,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    partial: Annotated[Scalar, Range("(0, 0.5]")] = 0.25,
    eps: Epsilon = 1e-8,
    amsgrad: bool = True,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    m = b1 * state.m + (1 - b1) * grad
    v = b2 * state.v + (1 - b2) * (grad * grad)
    w = xp.maximum(state.w, v) if amsgrad else ()
    d = guarded(xp.sqrt(w if amsgrad else v), eps, xp=xp)
    d = xp.exp(2 * partial * xp.log(d))  # loops of vectors have no power
    rate = lr * debias(b2, t, xp=xp) ** 0.5 / debias(b1, t, xp=xp)
    return param - rate * m / d, State(m, v, w)
