r"""EMA: exponential moving average of the parameters, to evaluate with.

.. math:: a \leftarrow \beta a + (1 - \beta)\, p, \qquad a_0 = p_0

with ``ema_decay`` :math:`\beta`, after each step; ``eval_params`` gives :math:`a`. The rule moves
as it would without. Equal to ``torch.optim.swa_utils.AveragedModel`` with
``get_ema_multi_avg_fn``, if that has first seen :math:`p_0`.
"""

from typing import NamedTuple

from .._types import Array, Decay, Namespace, Scalar


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    ema: Array  # in units of p


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(ema=param)


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    new: Array,
    ema_decay: Decay = 0.999,
    xp: Namespace,
) -> tuple[Array, State]:
    """The rule's parameter, and the average with it."""
    return new, State(ema=ema_decay * state.ema + (1 - ema_decay) * new)


def evaluate(param: Array, state: State, t: Scalar, *, xp: Namespace) -> Array:
    """The average."""
    return state.ema
