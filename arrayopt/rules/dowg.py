r"""DoWG: gradient descent at a rate of the distance travelled over the gradients it weighs.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, :math:`p_0` the first parameter,
:math:`v = 0` and :math:`R =` ``initial_sq_dist`` at first (:math:`\epsilon` unless given), and
norms over all elements of all parameters:

.. math::

    R &\leftarrow \max(R,\ \|p - p_0\|^2) \\
    v &\leftarrow v + R\, \|g\|^2 \\
    p &\leftarrow p - \eta\, \frac{R}{\sqrt v + \epsilon}\, g

``lr`` is a factor for schedules; the number 1 is right for it.

Khaled, Mishchenko & Jin, *DoWG Unleashed: An Efficient Universal Parameter-Free Gradient Descent
Method*, NeurIPS 2023, Algorithm 1, https://arxiv.org/abs/2305.16284.

Deviations from the paper: ``lr`` and :math:`\epsilon` below the line, as in
``optax.contrib.dowg``, to which it is equal. ``weight_decay`` is coupled as there; decoupled, its
rate is ``lr`` alone, which is too much. torch, Keras and pytorch_optimizer have no such rule.
"""

from typing import NamedTuple

from .._math import guarded
from .._types import Array, Epsilon, Namespace, Positive, Rate, Scalar

DECAY = "coupled"  # optax.contrib.dowg
# Sums over elements round differently in each library, and decide all later steps.
PARITY_EPS = 100


class Shared(NamedTuple):
    """State of the whole optimizer."""

    R: Scalar  # largest squared distance so far, in units of p**2
    v: Scalar  # weighted sum of squared norms


class State(NamedTuple):
    """One slot of the parameter's shape."""

    p0: Array  # the first parameter


def share(*, initial_sq_dist: Positive | None = None, eps: Scalar) -> Shared:
    """Shared state before the first step."""
    return Shared(R=eps if initial_sq_dist is None else initial_sq_dist, v=0.0)


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(p0=param)


def measure(
    param: Array, grad: Array, state: State, t: Scalar, *, xp: Namespace
) -> dict[str, Array]:
    """What is summed over all elements: squared norms."""
    d = param - state.p0
    return {"dd": d * d, "gg": grad * grad}


def adapt(shared: Shared, sums: dict[str, Array], t: Scalar, *, xp: Namespace) -> Shared:
    """The distance and the gradients, this step's among them."""
    R = xp.maximum(shared.R, sums["dd"])
    return Shared(R, shared.v + R * sums["gg"])


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    shared: Shared,
    lr: Rate = 1.0,
    eps: Epsilon = 1e-4,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    rate = shared.R / guarded(shared.v**0.5, eps, xp=xp)
    return param - lr * rate * grad, state
