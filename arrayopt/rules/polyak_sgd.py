r"""PolyakSGD: gradient descent at the rate that would reach the minimum of a straight line.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, :math:`f` the loss and its squared norm
over all elements of all parameters:

.. math::

    \gamma &= \min\left(\frac{f - f_\mathrm{min}}{\|g\|^2 + \epsilon},\ \mathrm{max\_lr}\right),
        \qquad \gamma = 0 \text{ if } \|g\|^2 + \epsilon \le 2^{-52} \\
    p &\leftarrow p - \eta\, \gamma\, g

With ``variant="sps+"`` the numerator is at least 0. Every step must be given the loss at the
parameters, ``value=``. ``lr`` is a factor of the rate; the number 1 is right for it.

Loizou et al., *Stochastic Polyak Step-size for SGD: An Adaptive Learning Rate for Fast
Convergence*, AISTATS 2021, :math:`\mathrm{SPS}_\mathrm{max}` with c = 1,
https://arxiv.org/abs/2002.10542.

Deviations from the paper: :math:`\epsilon`, ``lr``, and no step for a vanishing gradient, as in
``optax.polyak_sgd``, to which it is equal but for ``lr``: there it is ``scaling`` and, against the
formula in its documentation, :math:`g` below the line is multiplied by it too. Optax has no decay;
``weight_decay`` is coupled, and the loss should then hold its term. torch, Keras and
pytorch_optimizer have no such rule.
"""

from typing import Literal, NamedTuple

from .._types import Array, Bound, Epsilon, Loss, Namespace, Rate, Real, Scalar

DECAY = "coupled"
# Sums over elements round differently in each library, and decide the step.
PARITY_EPS = 100
SMALLEST = 2.0**-52  # of a squared norm to divide by


class Shared(NamedTuple):
    """State of the whole optimizer."""

    gamma: Scalar  # the rate of this step


class State(NamedTuple):
    """No slots."""


def share() -> Shared:
    """Shared state before the first step."""
    return Shared(gamma=0.0)


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State()


def measure(
    param: Array, grad: Array, state: State, t: Scalar, *, xp: Namespace
) -> dict[str, Array]:
    """What is summed over all elements: the gradient's squared norm."""
    return {"gg": grad * grad}


def adapt(
    shared: Shared,
    sums: dict[str, Array],
    t: Scalar,
    *,
    value: Loss | None = None,
    f_min: Real = 0.0,
    max_lr: Bound = 1.0,
    eps: Epsilon = 0.0,
    variant: Literal["sps", "sps+"] = "sps",
    xp: Namespace,
) -> Shared:
    """The rate of this step."""
    below = sums["gg"] + eps
    gamma = (value - f_min) / below
    gamma = xp.maximum(gamma, 0.0) if variant == "sps+" else gamma
    return Shared(xp.where(below <= SMALLEST, 0.0, xp.minimum(gamma, max_lr)))


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    shared: Shared,
    lr: Rate = 1.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    return param - lr * shared.gamma * grad, state
