r"""Master: parameters of few bits beside a copy in the compute dtype, which the rule moves.

The rule moves :math:`w`, kept in float32 for float16 and bfloat16 parameters, and :math:`p` is
:math:`w` rounded: steps too small for the parameter's dtype are not lost. For wider parameters the
copy is as they are.

Micikevicius et al., *Mixed Precision Training*, ICLR 2018, section 3.1,
https://arxiv.org/abs/1710.03740. What is written into the parameters from outside is not seen.
"""

from typing import NamedTuple

from .._types import Array, Namespace, Scalar


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    master: Array  # in units of p


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(master=param)


def source(param: Array, state: State, t: Scalar, *, xp: Namespace) -> Array:
    """What the rule moves."""
    return state.master


def update(
    param: Array, grad: Array, state: State, t: Scalar, *, new: Array, xp: Namespace
) -> tuple[Array, State]:
    """The new parameter, to be rounded, and its copy."""
    return new, State(master=new)


def evaluate(param: Array, state: State, t: Scalar, *, xp: Namespace) -> Array:
    """The copy, rounded as it is handed out."""
    return state.master
