r"""Accumulate: one step of the rule for several gradients.

Of every :math:`k` gradients, ``accumulate_steps``, the rule is given the mean or the sum
(``accumulate_how``) at the last of them, and counts it as one step; in between nothing moves.
Schedules count gradients.

Equal to ``optax.MultiSteps`` (the mean), and to torch's way of leaving out ``zero_grad`` (the sum).
"""

from typing import Literal, NamedTuple

from .._math import pick
from .._types import Array, Count, Namespace, Scalar


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    gathered: Array  # sum of the gradients since the rule's last step, in units of g


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(gathered=xp.zeros_like(param))


def gradient(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    accumulate_steps: Count = 1,
    accumulate_how: Literal["mean", "sum"] = "mean",
    xp: Namespace,
) -> Array:
    """What the rule is given at the last of the gradients."""
    gathered = state.gathered + grad
    return gathered / accumulate_steps if accumulate_how == "mean" else gathered


def turn(t: Scalar, *, accumulate_steps: Count, xp: Namespace) -> tuple[Scalar, Scalar]:
    """The rule's step number, and whether this is the last of the gradients."""
    return (t + accumulate_steps - 1) // accumulate_steps, t % accumulate_steps == 0


def update(
    param: Array, grad: Array, state: State, t: Scalar, *, new: Array, when: Scalar, xp: Namespace
) -> tuple[Array, State]:
    """The rule's parameter, and what is gathered for its next step."""
    return new, State(pick(when, xp.zeros_like(grad), state.gathered + grad, xp=xp))
