r"""Skip nonfinite: no step with a gradient that is not finite, and their number.

If any element of any gradient is NaN or infinite, nothing moves and the rule counts no step; but
after ``skip_most`` such steps in a row, it is given what comes. ``state.shared`` counts
``skipped``, all of them, and ``row``, those since the last step that was none of them.

Equal to ``optax.apply_if_finite``, whose ``max_consecutive_errors`` is ``skip_most``, inf here
unless given. ``Optimizer(..., nonfinite="skip")`` does the same without a count, and reads a flag
back in each step.
"""

import math
from typing import Annotated, NamedTuple

from .._math import larger
from .._types import Array, Namespace, Range, Scalar


class Shared(NamedTuple):
    """State of the whole optimizer."""

    skipped: Array  # number of steps that were skipped
    row: Array  # number of steps with bad gradients since the last good one
    bad: Array  # 1 if this step is skipped, else 0


def share() -> Shared:
    """State before the first step."""
    return Shared(skipped=0.0, row=0.0, bad=0.0)


def measure(
    param: Array, grad: Array, state: tuple[()], t: Scalar, *, xp: Namespace
) -> dict[str, Array]:
    """What is summed over all elements: how many are not finite."""
    return {"bad": xp.where(xp.isfinite(grad), xp.zeros_like(grad), 1.0)}


def adapt(
    shared: Shared,
    sums: dict[str, Array],
    t: Scalar,
    *,
    skip_most: Annotated[Scalar, Range("[0, inf]", whole=True)] = math.inf,
    xp: Namespace,
) -> Shared:
    """The counts after this step."""
    bad = sums["bad"] > 0
    row = xp.where(bad, shared.row + 1, 0.0)
    skip = xp.astype(bad & (row <= skip_most), row.dtype)
    return Shared(shared.skipped + skip, row, skip)


def turn(t: Scalar, *, shared: Shared, xp: Namespace) -> tuple[Scalar, Scalar]:
    """The rule's step number, and whether this is one."""
    return larger(t - shared.skipped, 1, xp=xp), shared.bad == 0  # no rule divides by 1 - b**0
