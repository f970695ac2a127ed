r"""ADOPT: Adam that normalises by the second moment before the gradient, then takes the mean.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and :math:`m_0 = 0`, per element:

.. math::

    v &\leftarrow g^2 \text{ at } t = 1, \text{ which moves nothing; after it:} \\
    u &= \mathrm{clip}\left(\frac{g}{\max(\sqrt v, \epsilon)},\ -c,\ c\right), \qquad
        c = (t - 1)^{1/4} \text{ unless given} \\
    m &\leftarrow \beta_1 m + (1 - \beta_1)\, u \\
    p &\leftarrow p - \eta\, m, \text{ or } p - \eta\, (\beta_1 m + (1 - \beta_1)\, u)
        \text{ with nesterov} \\
    v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2

Taniguchi et al., *ADOPT: Modified Adam Can Converge with Any* :math:`\beta_2` *with the Optimal
Rate*, NeurIPS 2024, ADOPT with clipping, https://arxiv.org/abs/2411.02853.

``clip`` is a number, infinity for none, or a schedule, which gets 0 in the first step. Equal to
``optax.contrib.adopt``, clipped and not. pytorch_optimizer takes :math:`c = t^{1/4}`:
``clip=lambda k: (k + 1) ** 0.25``. torch and Keras have no such rule. ``weight_decay`` is coupled
(L2) as in the authors' code; decoupled, it acts in the first step too.
"""

from typing import NamedTuple

from .._math import clip as clipped
from .._math import guarded, pick
from .._types import Array, Bound, Decay, Epsilon, Namespace, Rate, Scalar

DECAY = "coupled"  # the authors' ADOPT


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the normalised gradient, without unit
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
    b2: Decay = 0.9999,
    eps: Epsilon = 1e-6,
    clip: Bound | None = None,
    nesterov: bool = False,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    c = (t - 1) ** 0.25 if clip is None else clip
    root = guarded(xp.maximum(xp.sqrt(state.v), eps), 0.0, xp=xp)
    u = clipped(grad / root, -c, c, xp=xp)
    u = pick(t == 1, xp.zeros_like(grad), u, xp=xp)
    m = b1 * state.m + (1 - b1) * u
    d = b1 * m + (1 - b1) * u if nesterov else m
    q = grad * grad
    v = pick(t == 1, q, b2 * state.v + (1 - b2) * q, xp=xp)
    return param - lr * d, State(m, v)
