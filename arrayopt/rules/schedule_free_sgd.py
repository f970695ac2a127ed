r"""ScheduleFreeSGD: gradient descent that averages instead of lowering its rate.

The parameter is :math:`y`, where gradients are taken; :math:`x`, the average to evaluate and to
deploy with, is what ``eval_params`` gives. With :math:`g` the gradient at step
:math:`t = 1, 2, \dots`, :math:`z = y` and :math:`\hat\eta = W = 0` at first:

.. math::

    \hat\eta &\leftarrow \max(\hat\eta, \eta), \qquad w = t^r\, \hat\eta^{q} \\
    W &\leftarrow W + w, \qquad c = w / W, \qquad c = 0 \text{ if } W = 0 \\
    y &\leftarrow (1 - c)\, y + c\, z - \eta\, (1 - \beta_1 (1 - c))\, g \\
    z &\leftarrow z - \eta\, g, \qquad x = (y - (1 - \beta_1)\, z) / \beta_1

:math:`q` is ``weight_lr_power``. So :math:`x \leftarrow (1 - c)\, x + c\, z` with the new
:math:`z`, and :math:`y = (1 - \beta_1)\, z + \beta_1 x`. Warm ``lr`` up, and do not let it fall. At
``lr = 0`` the parameter still moves, towards :math:`z`, unless all rates so far were 0.

Defazio et al., *The Road Less Scheduled*, NeurIPS 2024, equations of section 1,
https://arxiv.org/abs/2405.15682.

Deviation from the paper: ``r``, 0 unless given, as in the authors' code. Equal to
``pytorch_optimizer.ScheduleFreeSGD`` and, at a constant ``lr``, to
``optax.contrib.schedule_free_sgd``: there :math:`\hat\eta` has the schedule's rate of the step
after. ``weight_decay`` is coupled as in both; any other moves y alone. torch and Keras have no such
rule.
"""

from typing import NamedTuple

from .._math import guarded, scalar
from .._types import Array, Namespace, Portion, Rate, Scalar, Weight

DECAY = "coupled"  # optax.contrib.schedule_free_sgd
CONTRACTED_EPS = 20  # z goes as far as the sum of all gradients, and what it rounds is in y too


class State(NamedTuple):
    """One slot of the parameter's shape, and two values per parameter."""

    z: Array  # where gradient descent would be, in units of p
    W: Array  # 0-d: sum of the weights
    top: Array  # 0-d: largest rate so far


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(param, *(scalar(0.0, like=param, xp=xp) for _ in State._fields[1:]))


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1.0,
    b1: Portion = 0.9,
    weight_lr_power: Weight = 2.0,
    r: Weight = 0.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    top = xp.maximum(state.top, lr)
    w = t**r * top**weight_lr_power
    W = state.W + w
    c = w / guarded(W, 0.0, xp=xp)
    y = (1 - c) * param + c * state.z - lr * (1 - b1 * (1 - c)) * grad
    return y, State(state.z - lr * grad, W, top)


def evaluate(param: Array, state: State, t: Scalar, *, b1: Scalar, xp: Namespace) -> Array:
    """The parameters to evaluate with: the average ``x``."""
    return (param - (1 - b1) * state.z) / b1
