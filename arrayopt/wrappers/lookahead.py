r"""Lookahead: k steps forward, 1 step back.

Every :math:`k` steps of the rule, which moves the fast :math:`p`,

.. math:: s \leftarrow s + \alpha (p - s), \qquad p \leftarrow s, \qquad s_0 = p_0

with ``lookahead_every`` :math:`k` and ``lookahead_alpha`` :math:`\alpha`; ``eval_params`` gives the
slow :math:`s`. The rule's own slots go on.

Zhang et al., *Lookahead Optimizer: k steps forward, 1 step back*, NeurIPS 2019, Algorithm 1,
https://arxiv.org/abs/1907.08610. Equal to ``optax.lookahead``, whose ``sync_period`` and
``slow_step_size`` these are, without ``reset_state``.
"""

from typing import NamedTuple

from .._math import pick
from .._types import Array, Count, Fraction, Namespace, Scalar


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    slow: Array  # in units of p


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(slow=param)


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    new: Array,
    lookahead_every: Count = 6,
    lookahead_alpha: Fraction = 0.5,
    xp: Namespace,
) -> tuple[Array, State]:
    """Where the fast and the slow parameter are after the rule's step."""
    due = t % lookahead_every == 0
    slow = pick(due, state.slow + lookahead_alpha * (new - state.slow), state.slow, xp=xp)
    return pick(due, slow, new, xp=xp), State(slow)


def evaluate(param: Array, state: State, t: Scalar, *, xp: Namespace) -> Array:
    """The slow parameter."""
    return state.slow
