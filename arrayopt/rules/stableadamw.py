r"""StableAdamW: Adam whose rate falls where the gradient outruns its mean square.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, :math:`m_0 = v_0 = 0` and the mean over
one parameter's elements:

.. math::

    k_i &= (1 - \beta_i) / (1 - \beta_i^t) \\
    m &\leftarrow (1 - k_1)\, m + k_1\, g \\
    v &\leftarrow (1 - k_2)\, v + k_2\, g^2 \\
    \eta_t &= \eta / \max\left(1,\ \sqrt{\mathrm{mean}(g^2 / \max(v, \epsilon^2))}\right) \\
    p &\leftarrow p - \eta_t\, \left(\frac{m}{\sqrt v + \epsilon} + \lambda p\right)

Wortsman et al., *Stable and low-precision training for large-scale vision-language models*, NeurIPS
2023, Algorithm 2, https://arxiv.org/abs/2304.13013.

:math:`m` and :math:`v` are Adam's, their bias corrected as they are made. The paper's decay is
``inner_decay``, :math:`\lambda`: its rate falls too, as in ``pytorch_optimizer.StableAdamW``, where
its default is 0.01. ``weight_decay`` is decoupled, with ``lr`` itself.

Equal to ``pytorch_optimizer.StableAdamW`` in float32 and float64; in half precision that keeps
rounding errors in a slot of their own, and here the arithmetic is float32. torch, optax and Keras
have no such rule.
"""

from typing import NamedTuple

from .._math import debias, guarded
from .._types import Array, Decay, Epsilon, Namespace, Rate, Scalar, Weight

DECAY = "decoupled"


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # mean of the gradient, in units of g
    v: Array  # mean of the squared gradient, in units of g**2


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(m=xp.zeros_like(param), v=xp.zeros_like(param))


def measure(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    b2: Scalar,
    eps: Scalar,
    xp: Namespace,
) -> dict[str, Array]:
    """What is summed over the parameter: squared gradients over their mean, and elements."""
    k2 = (1 - b2) / debias(b2, t, xp=xp)
    v = (1 - k2) * state.v + k2 * (grad * grad)
    q = grad * grad / guarded(xp.maximum(v, eps**2), 0.0, xp=xp)
    return {"q": q, "n": xp.ones_like(grad)}


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    sums: dict[str, Array],
    lr: Rate = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    eps: Epsilon = 1e-8,
    inner_decay: Weight = 0.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    k1, k2 = ((1 - b) / debias(b, t, xp=xp) for b in (b1, b2))
    m = (1 - k1) * state.m + k1 * grad
    v = (1 - k2) * state.v + k2 * (grad * grad)
    lr_t = lr / xp.maximum(xp.sqrt(sums["q"] / sums["n"]), 1.0)
    d = m / guarded(xp.sqrt(v), eps, xp=xp) + inner_decay * param
    return param - lr_t * d, State(m, v)
