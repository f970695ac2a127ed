r"""Dynamic loss scale: the gradient of a loss that was multiplied by a number which adapts.

The caller multiplies the loss by ``state.shared.scale``, :math:`s`, before the gradients are taken:

.. math:: g \leftarrow g / s

If any element of any gradient is not finite, nothing moves, the rule counts no step, and
:math:`s \leftarrow b s`. After :math:`n` finite ones in a row :math:`s \leftarrow a s`.
``scale_start`` is the first :math:`s`, ``scale_growth`` :math:`a`, ``scale_backoff`` :math:`b`,
``scale_every`` :math:`n`.

Micikevicius et al., *Mixed Precision Training*, ICLR 2018, section 3.2,
https://arxiv.org/abs/1710.03740. Equal to ``torch.amp.GradScaler``, with its defaults.
"""

from typing import Annotated, NamedTuple

from .._types import Array, Count, Fraction, Namespace, Positive, Range, Scalar
from .skip_nonfinite import measure as measure  # steps are skipped as there
from .skip_nonfinite import turn as turn


class Shared(NamedTuple):
    """State of the whole optimizer."""

    scale: Array  # what the next loss is to be multiplied by
    used: Array  # what this step's loss was multiplied by
    row: Array  # number of finite steps since the scale was changed
    skipped: Array  # number of steps that were skipped
    bad: Array  # 1 if this step is skipped, else 0


def share(*, scale_start: Positive = 65536.0) -> Shared:
    """State before the first step."""
    return Shared(scale=scale_start, used=scale_start, row=0.0, skipped=0.0, bad=0.0)


def adapt(
    shared: Shared,
    sums: dict[str, Array],
    t: Scalar,
    *,
    scale_growth: Annotated[Scalar, Range("[1, inf)")] = 2.0,
    scale_backoff: Fraction = 0.5,
    scale_every: Count = 2000,
    xp: Namespace,
) -> Shared:
    """The next scale."""
    now, bad = shared.scale, sums["bad"] > 0
    row = xp.where(bad, 0.0, shared.row + 1)
    grows = row >= scale_every
    scale = xp.where(bad, scale_backoff * now, xp.where(grows, scale_growth * now, now))
    row, skip = xp.where(grows, 0.0, row), xp.astype(bad, row.dtype)
    return Shared(scale, used=now, row=row, skipped=shared.skipped + skip, bad=skip)


def gradient(
    param: Array, grad: Array, state: tuple[()], t: Scalar, *, shared: Shared, xp: Namespace
) -> Array:
    """The gradient of the loss itself."""
    return grad / shared.used
