r"""DoG: gradient descent at a rate of the distance travelled over the gradients seen.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, :math:`p_0` the first parameter,
:math:`G = 0` at first, and norms over all elements of all parameters:

.. math::

    r &\leftarrow \max(r,\ \|p - p_0\|) \\
    G &\leftarrow G + \|g\|^2 \\
    p &\leftarrow p - \eta\, \frac{r}{\sqrt{G + \epsilon}}\, g

``init_step`` says how it begins: with :math:`r = r_\epsilon` (1 + the norm of all parameters) for
"heuristic", with :math:`r = r_\epsilon` for "distance", and for "learning_rate" with
:math:`r_\epsilon` as the factor of the first :math:`g`, and :math:`r = 0`. The authors advise to
average the iterates. ``lr`` is a factor for schedules; the number 1 is right for it.

Ivgi, Hinder & Carmon, *DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule*, ICML
2023, https://arxiv.org/abs/2302.12022.

Deviation from the paper: ``lr``, and the choice of the first step, as in ``optax.contrib.dog``, to
which it is equal. ``weight_decay`` is coupled as there; decoupled, its rate is ``lr`` alone, which
is too much. torch, Keras and pytorch_optimizer have no such rule.
"""

from typing import Literal, NamedTuple

from .._math import guarded, pick
from .._types import Array, Epsilon, Namespace, Positive, Rate, Scalar

DECAY = "coupled"  # optax.contrib.dog
# Sums over elements round differently in each library, and decide all later steps.
PARITY_EPS = 100


class Shared(NamedTuple):
    """State of the whole optimizer."""

    r: Scalar  # largest distance so far, in units of p
    G: Scalar  # sum of squared norms, in units of g**2


class State(NamedTuple):
    """One slot of the parameter's shape."""

    p0: Array  # the first parameter


def share(*, init_step: str, r_eps: Scalar) -> Shared:
    """Shared state before the first step."""
    return Shared(r=r_eps if init_step == "distance" else 0.0, G=0.0)


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(p0=param)


def measure(
    param: Array, grad: Array, state: State, t: Scalar, *, init_step: str, xp: Namespace
) -> dict[str, Array]:
    """What is summed over all elements: squared norms."""
    d = param - state.p0
    sums = {"dd": d * d, "gg": grad * grad}
    return sums | {"pp": param * param} if init_step == "heuristic" else sums


def adapt(
    shared: Shared,
    sums: dict[str, Array],
    t: Scalar,
    *,
    init_step: str,
    r_eps: Scalar,
    xp: Namespace,
) -> Shared:
    """The distance and the gradients, this step's among them."""
    r = shared.r
    if init_step == "heuristic":
        r = pick(t == 1, r_eps * (1 + xp.sqrt(sums["pp"])), r, xp=xp)
    return Shared(xp.maximum(r, xp.sqrt(sums["dd"])), shared.G + sums["gg"])


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    shared: Shared,
    lr: Rate = 1.0,
    eps: Epsilon = 1e-8,
    init_step: Literal["heuristic", "distance", "learning_rate"] = "heuristic",
    r_eps: Positive = 1e-6,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    rate = shared.r / guarded((shared.G + eps) ** 0.5, 0.0, xp=xp)
    rate = pick(t == 1, r_eps, rate, xp=xp) if init_step == "learning_rate" else rate
    return param - lr * rate * grad, state
