r"""SWA: stochastic weight averaging, the plain mean of the parameters, to evaluate with.

The mean of :math:`p` after the steps :math:`s + k, s + 2k, \dots`, with ``swa_start`` :math:`s`
and ``swa_every`` :math:`k`; until then, :math:`p` itself. With the defaults it is
Polyak-Ruppert averaging. The rule moves as it would without.

Izmailov et al., *Averaging Weights Leads to Wider Optima and Better Generalization*, UAI 2018,
Algorithm 1, https://arxiv.org/abs/1803.05407; Polyak & Juditsky, *Acceleration of Stochastic
Approximation by Averaging*, SIAM J. Control Optim. 30(4), 1992. Equal to
``torch.optim.swa_utils.AveragedModel`` that is updated after those steps.
"""

from typing import NamedTuple

from .._math import larger, pick
from .._types import Array, Count, Namespace, Scalar, Weight


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    swa: Array  # in units of p


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(swa=param)


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    new: Array,
    swa_start: Weight = 0,
    swa_every: Count = 1,
    xp: Namespace,
) -> tuple[Array, State]:
    """The rule's parameter, and the mean with it."""
    n = larger((t - swa_start) / swa_every, 1, xp=xp)  # how many the mean is of
    due = (t < swa_start + swa_every) | ((t - swa_start) % swa_every == 0)
    swa = pick(due, state.swa + (new - state.swa) / n, state.swa, xp=xp)
    return new, State(swa=swa)


def evaluate(param: Array, state: State, t: Scalar, *, xp: Namespace) -> Array:
    """The mean."""
    return state.swa
