r"""ASGD: gradient descent that keeps the average of its parameters.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and :math:`\bar p` the average, per
element:

.. math::

    \eta_t &= \frac{\eta}{(1 + \lambda \eta\, (t - 1))^\alpha}, \qquad
        \mu_t = \frac{1}{\max(1,\ t - 1 - t_0)} \\
    p &\leftarrow p - \eta_t\, (g + \lambda p) \\
    \bar p &\leftarrow \bar p + \mu_t\, (p - \bar p)

The average is the slot ``ax``, and what ``eval_params`` gives; the steps do not read it. It is the
parameter itself up to step :math:`t_0 + 2`, and later the mean since then. :math:`\lambda` is the
factor of an L2 term and sets how fast the rate falls.

Polyak & Juditsky, *Acceleration of stochastic approximation by averaging*, SIAM Journal on Control
and Optimization 30 (1992), https://doi.org/10.1137/0330046.

Deviations from the paper: the L2 term, the schedule with :math:`\lambda` and :math:`\alpha`, and
:math:`t_0`, as in ``torch.optim.ASGD``, to which it is equal at a constant ``lr``. There
:math:`\eta_t` is computed in the step before, from the ``lr`` of that step, and held in float32
unless that is not torch's default dtype; ``ax`` is 0 before the first step, here the parameter.
Optax and Keras have no such rule; ``pytorch_optimizer.ASGD`` is another one.
"""

from typing import NamedTuple

from .._math import pick
from .._types import Array, Namespace, Rate, Scalar, Weight

DECAY = "coupled"  # torch.optim.ASGD


class State(NamedTuple):
    """One slot of the parameter's shape."""

    ax: Array  # average of the parameter, in units of p


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(ax=param)


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1e-2,
    lambd: Weight = 1e-4,
    alpha: Weight = 0.75,
    t0: Weight = 1e6,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    eta = lr / (1 + lambd * lr * (t - 1)) ** alpha
    mu = 1 / pick(t - 1 - t0 > 1, t - 1 - t0, 1.0, xp=xp)
    p = param - eta * (grad + lambd * param)
    return p, State(state.ax + mu * (p - state.ax))


def evaluate(param: Array, state: State, t: Scalar, *, xp: Namespace) -> Array:
    """The parameters to evaluate with: the average."""
    return state.ax
