r"""LAMB: Adam whose step is as long as the parameter is, times the rate.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, :math:`m_0 = v_0 = 0` and norms over
one parameter:

.. math::

    m &\leftarrow \beta_1 m + (1 - \beta_1)\, g \\
    v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2 \\
    u &= \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t) + \epsilon_\mathrm{root}} + \epsilon}
        + \lambda p \\
    r &= \min(\|p\|, \mathrm{max\_norm}) / \|u\|, \qquad r = 1 \text{ if } p = 0 \\
    p &\leftarrow p - \eta\, r\, u

You et al., *Large Batch Optimization for Deep Learning: Training BERT in 76 minutes*, ICLR 2020,
Algorithm 2, https://arxiv.org/abs/1904.00962.

The paper's decay is ``inner_decay``, :math:`\lambda`: it is a part of what is scaled, as in
``optax.lamb``. ``weight_decay`` is decoupled, as in Keras. ``max_norm`` is the upper bound of the
paper's :math:`\phi`; no lower one is here. Every parameter has a ratio and an ``inner_decay``, also
biases. Without ``bias_correction`` both :math:`1 - \beta^t` are 1.

Equal to ``optax.lamb`` and, with ``eps=1e-7``, to Keras' ``Lamb``, but that there
:math:`\|p\|` is taken after a decoupled decay, here before it. ``pytorch_optimizer.Lamb`` does as
Keras in this; it has no correction of ``v``, divides the step by :math:`1 - \beta_1^t` (not with
``adam_debias=True``), adds :math:`\epsilon` to the norm of ``u`` too, and has ``max_norm=10``.
torch has no such rule.
"""

import math
from typing import NamedTuple

from .._math import debias, guarded
from .._types import Array, Bound, Decay, Epsilon, Namespace, Rate, Scalar, Weight

DECAY = "decoupled"  # keras.optimizers.Lamb


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the gradient, in units of g
    v: Array  # running mean of the squared gradient, in units of g**2


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(m=xp.zeros_like(param), v=xp.zeros_like(param))


def average(
    grad: Array,
    state: State,
    t: Scalar,
    *,
    b1: Scalar,
    b2: Scalar,
    eps: Scalar,
    eps_root: Scalar,
    bias_correction: bool,
    xp: Namespace,
) -> tuple[Array, State]:
    """Adam's direction and the new state."""
    m = b1 * state.m + (1 - b1) * grad
    v = b2 * state.v + (1 - b2) * (grad * grad)
    c1, c2 = (debias(b, t, xp=xp) if bias_correction else 1.0 for b in (b1, b2))
    return m / c1 / guarded(xp.sqrt(v / c2 + eps_root), eps, xp=xp), State(m, v)


def measure(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    b1: Scalar,
    b2: Scalar,
    eps: Scalar,
    eps_root: Scalar,
    bias_correction: bool,
    inner_decay: Scalar,
    xp: Namespace,
) -> dict[str, Array]:
    """What is summed over the parameter: two squared norms."""
    options = {"eps": eps, "eps_root": eps_root, "bias_correction": bias_correction}
    u, _ = average(grad, state, t, b1=b1, b2=b2, **options, xp=xp)
    u = u + inner_decay * param
    return {"pp": param * param, "uu": u * u}


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    sums: dict[str, Array],
    lr: Rate = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: Epsilon = 1e-6,
    eps_root: Epsilon = 0.0,
    bias_correction: bool = True,
    inner_decay: Weight = 0.0,
    max_norm: Bound = math.inf,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    options = {"eps": eps, "eps_root": eps_root, "bias_correction": bias_correction}
    u, after = average(grad, state, t, b1=b1, b2=b2, **options, xp=xp)
    u = u + inner_decay * param
    p_norm = xp.minimum(xp.sqrt(sums["pp"]), max_norm)
    u_norm = guarded(xp.sqrt(sums["uu"]), 0.0, xp=xp)
    r = xp.where(p_norm == 0, 1.0, p_norm / u_norm)
    return param - lr * r * u, after
