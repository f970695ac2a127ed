r"""Rprop: resilient backpropagation, a step size for each element that the gradient's signs adapt.

With :math:`s` the sign of the gradient at step :math:`t = 1, 2, \dots`, :math:`s'` the one kept
from the step before (0 at first) and :math:`\Delta_0 = \eta`, per element:

.. math::

    \Delta &\leftarrow \mathrm{clip}(\Delta\, \{\eta^+ \text{ if } s s' > 0,\
        \eta^- \text{ if } s s' < 0,\ 1 \text{ else}\},\ \Delta_\min,\ \Delta_\max) \\
    s &\leftarrow 0 \text{ if } s s' < 0 \\
    p &\leftarrow p - \Delta s

The gradient's size plays no part, so it is for full batches. An element whose gradient changed
its sign rests for one step. ``lr`` is the first step size and is read before the first step only.

Riedmiller & Braun, *A direct adaptive method for faster backpropagation learning: the RPROP
algorithm*, ICNN 1993, https://doi.org/10.1109/ICNN.1993.298623, in the variant iRprop- of Igel &
Hüsken, *Empirical evaluation of the improved Rprop learning algorithms*, Neurocomputing 50 (2003),
https://doi.org/10.1016/S0925-2312(01)00700-7.

Equal to ``torch.optim.Rprop``, but for products of two gradients that underflow. ``optax.rprop``
(0.2.8) applies in each step the move that was due in the step before, or none if the sign changes
now (https://github.com/google-deepmind/optax/pull/1725); the moves in its state are equal to
these. Keras has no such rule.
"""

from typing import NamedTuple

from .._math import clip, sign
from .._types import Array, Bound, Fraction, Namespace, Positive, Rate, Scalar

DECAY = "decoupled"


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    s: Array  # sign of the gradient before; 0 after a change of sign
    size: Array  # step size, in units of p


def init(param: Array, *, lr: Rate = 1e-2, xp: Namespace) -> State:
    """State before the first step."""
    return State(s=xp.zeros_like(param), size=xp.zeros_like(param) + lr)


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    eta_minus: Fraction = 0.5,
    eta_plus: Positive = 1.2,
    min_step_size: Rate = 1e-6,
    max_step_size: Bound = 50.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    s = sign(grad, xp=xp)
    same = s * state.s
    size = xp.where(same > 0, eta_plus * state.size, state.size)
    size = xp.where(same < 0, eta_minus * state.size, size)
    size = clip(size, min_step_size, max_step_size, xp=xp)
    s = xp.where(same < 0, 0.0, s)
    return param - size * s, State(s, size)
