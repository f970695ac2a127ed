r"""Simplified AdEMAMix: a sum of gradients, plus the present one, over Adam's second moment.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and :math:`m_0 = v_0 = 0`, per
element:

.. math::

    m &\leftarrow \beta_1 m + g \\
    v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2 \\
    p &\leftarrow p - \eta\, \frac{m + \alpha g}
        {\sqrt{v / (1 - \beta_2^t) + \epsilon_\mathrm{root}} + \epsilon}

The momentum is a sum and its bias is not corrected: a constant gradient grows the step from
:math:`(1 + \alpha)\,\eta` to :math:`\eta / (1 - \beta_1)` and more. Choose ``lr`` smaller than
Adam's by :math:`1 - \beta_1`.

Morwani et al., *Connections between Schedule-Free Optimizers, AdEMAMix, and Accelerated SGD
Variants*, 2025, Algorithm 1, https://arxiv.org/abs/2502.02431.

Equal to ``optax.contrib.simplified_ademamix``, which has no default ``lr``; 1e-4 is the authors'.
``weight_decay`` is decoupled. pytorch_optimizer's rule of this name is another rule.
"""

from typing import NamedTuple

from .._math import debias, guarded
from .._types import Array, Decay, Epsilon, Namespace, Rate, Scalar, Weight

DECAY = "decoupled"


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # decayed sum of gradients, in units of g
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
    lr: Rate = 1e-4,
    b1: Decay = 0.99,
    b2: Decay = 0.95,
    alpha: Weight = 0.0,
    eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    m = b1 * state.m + grad
    v = b2 * state.v + (1 - b2) * (grad * grad)
    root = xp.sqrt(v / debias(b2, t, xp=xp) + eps_root)
    return param - lr * (m + alpha * grad) / guarded(root, eps, xp=xp), State(m, v)
