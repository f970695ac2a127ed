r"""Fromage: a step as long as the parameter, times the rate, along the gradient.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, norms over one parameter that are at
least :math:`n =` ``min_norm``, and :math:`B =` ``p_bound`` times the first parameter's norm:

.. math::

    r &= \max(\|p\|, n) / \max(\|g\|, n), \qquad r = 1 \text{ if } p = n = 0 \\
    p &\leftarrow (p - \eta\, r\, g) / \sqrt{1 + \eta^2} \\
    p &\leftarrow p\, \min(1,\ B / \|p\|)

The last line is left out without ``p_bound``. There :math:`\|p\|^2` is known from sums over the old
parameter, as :math:`(\|p\|^2 - 2 \eta r \langle p, g \rangle + \eta^2 r^2 \|g\|^2) / (1 + \eta^2)`.
No gradient at all is no step but for the factor; ``lr = 0`` moves nothing.

Bernstein et al., *On the distance between two neural networks and the stability of learning*,
NeurIPS 2020, Algorithm 1, https://arxiv.org/abs/2002.03432.

Deviations from the paper: ``min_norm``, as in ``optax.fromage``, to which it is equal; the paper
has 0, as has ``pytorch_optimizer.Fromage``, and ``p_bound`` is that of the authors' code. No
framework has a weight decay here; ``weight_decay`` is decoupled. torch and Keras have no such rule.
"""

from typing import NamedTuple

from .._math import guarded, pick, total
from .._types import Array, Bound, Epsilon, Namespace, Off, Rate, Scalar

DECAY = "decoupled"


class State(NamedTuple):
    """One value per parameter; none without a bound."""

    top: Array | Off  # 0-d: the largest norm allowed, in units of p


def init(param: Array, *, p_bound: Bound | None = None, xp: Namespace) -> State:
    """State before the first step."""
    if p_bound is None:
        return State(top=())
    return State(top=p_bound * xp.sqrt(total(param * param, xp=xp)))


def measure(
    param: Array, grad: Array, state: State, t: Scalar, *, xp: Namespace
) -> dict[str, Array]:
    """What is summed over the parameter: two squared norms and a product."""
    return {"pp": param * param, "gg": grad * grad, "pg": param * grad}


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    sums: dict[str, Array],
    lr: Rate = 1e-2,
    min_norm: Epsilon = 1e-6,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    p_norm = xp.maximum(xp.sqrt(sums["pp"]), min_norm)
    g_norm = xp.maximum(xp.sqrt(sums["gg"]), min_norm)
    r = lr * xp.where(p_norm == 0, 1.0, p_norm / guarded(g_norm, 0.0, xp=xp))
    scale = 1 / (1 + lr**2) ** 0.5
    if not isinstance(state.top, tuple):
        pp = sums["pp"] - 2 * r * sums["pg"] + r * r * sums["gg"]
        norm = scale * xp.sqrt(pp)  # NaN, which exceeds nothing, if pp rounds to less than 0
        bound = xp.where(norm > state.top, state.top / norm, 1.0)
        scale = pick(lr == 0, 1.0, scale * bound, xp=xp)
    return scale * (param - r * grad), state
