r"""Diagnostics: how long each parameter, its gradient and its step are.

The slots are norms over one parameter: ``grad_norm`` of the gradient as it came to this wrapper,
``param_norm`` of the parameter after the step, ``update_norm`` of what the step added to it. They
are taken in the pass that moves the parameter. ``update_norm / param_norm`` is the ratio to watch,
``update_norm / grad_norm`` the effective learning rate.
"""

from typing import NamedTuple

from .._math import scalar, total
from .._types import Array, Namespace, Scalar

PARITY_EPS = 100  # sums over elements, each library in its order


class State(NamedTuple):
    """Slots of one value for each parameter."""

    grad_norm: Array  # in units of g
    param_norm: Array  # in units of p
    update_norm: Array  # in units of p


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(*(scalar(0.0, like=param, xp=xp) for _ in State._fields))


def update(
    param: Array, grad: Array, state: State, t: Scalar, *, new: Array, xp: Namespace
) -> tuple[Array, State]:
    """The rule's parameter, and the norms."""
    return new, State(*(xp.sqrt(total(x * x, xp=xp)) for x in (grad, new, new - param)))
