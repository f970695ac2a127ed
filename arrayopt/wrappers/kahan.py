r"""Kahan: parameters of few bits, and what rounding took from them.

The rule moves :math:`p + c`, in the compute dtype, to some :math:`q`; then

.. math:: p \leftarrow \mathrm{round}(q), \qquad c \leftarrow q - p

so that steps too small for the parameter's dtype add up. It is for float16 and bfloat16: for wider
parameters :math:`c` stays 0. With ``state_dtype={"lost": "bfloat16"}`` it takes half the memory of
a master copy.

Zamirai et al., *Revisiting BFloat16 Training*, 2020, Algorithm 3, https://arxiv.org/abs/2010.06192.
"""

from typing import NamedTuple

from .._types import Array, Namespace, Scalar


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    lost: Array  # what the parameter lacks, in units of p


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(lost=xp.zeros_like(param))


def source(param: Array, state: State, t: Scalar, *, xp: Namespace) -> Array:
    """What the rule moves."""
    return param + state.lost


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    new: Array,
    dtype: object,
    xp: Namespace,
) -> tuple[Array, State]:
    """The rounded parameter, and what it lacks."""
    rounded = xp.astype(xp.astype(new, dtype), new.dtype)
    return rounded, State(lost=new - rounded)
