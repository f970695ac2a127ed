r"""ScheduleFreeAdamW: Adam that averages instead of lowering its rate.

The parameter is :math:`y`, where gradients are taken; :math:`x`, the average to evaluate and to
deploy with, is what ``eval_params`` gives. With :math:`g` the gradient at step
:math:`t = 1, 2, \dots`, :math:`z = y` and :math:`v = \hat\eta = W = 0` at first:

.. math::

    v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2, \qquad
        d = \frac{g}{\sqrt{v / (1 - \beta_2^t) + \epsilon_\mathrm{root}} + \epsilon} + \lambda y \\
    \hat\eta &\leftarrow \max(\hat\eta, \eta), \qquad w = t^r\, \hat\eta^{q} \\
    W &\leftarrow W + w, \qquad c = w / W, \qquad c = 0 \text{ if } W = 0 \\
    y &\leftarrow (1 - c)\, y + c\, z - \eta\, (1 - \beta_1 (1 - c))\, d \\
    z &\leftarrow z - \eta\, d, \qquad x = (y - (1 - \beta_1)\, z) / \beta_1

:math:`q` is ``weight_lr_power``. So :math:`x \leftarrow (1 - c)\, x + c\, z` with the new
:math:`z`, and :math:`y = (1 - \beta_1)\, z + \beta_1 x`. Warm ``lr`` up, and do not let it fall. At
``lr = 0`` the parameter still moves, towards :math:`z`, unless all rates so far were 0.

Defazio et al., *The Road Less Scheduled*, NeurIPS 2024, Algorithm 1,
https://arxiv.org/abs/2405.15682.

Deviations from the paper: ``r``, from the authors' code, and :math:`\epsilon_\mathrm{root}`, both 0
unless given. ``inner_decay``, :math:`\lambda`, is the paper's decay, and ``weight_decay`` of
``optax.contrib.schedule_free_adamw`` and ``pytorch_optimizer.ScheduleFreeAdamW``. Equal to the
latter with ``eps_root=1e-15``, and to optax at a constant ``lr``: there :math:`\hat\eta` has the
schedule's rate of the step after. Keras' ``ScheduleFreeAdamW`` has ``weight_lr_power=0``, and its
``weight_decay`` is as here: decoupled, it moves y alone. torch has no such rule.
"""

from typing import NamedTuple

from .._math import debias, guarded, scalar
from .._types import Array, Decay, Epsilon, Namespace, Portion, Rate, Scalar, Weight

DECAY = "decoupled"  # keras.optimizers.ScheduleFreeAdamW
CONTRACTED_EPS = 20  # what the sum of all steps in z rounds is in y too


class State(NamedTuple):
    """Slots of the parameter's shape, and two values per parameter."""

    z: Array  # where Adam without momentum would be, in units of p
    v: Array  # running mean of the squared gradient, in units of g**2
    W: Array  # 0-d: sum of the weights
    top: Array  # 0-d: largest rate so far


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    zeros = (scalar(0.0, like=param, xp=xp) for _ in State._fields[2:])
    return State(param, xp.zeros_like(param), *zeros)


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 0.0025,
    b1: Portion = 0.9,
    b2: Decay = 0.999,
    eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0,
    inner_decay: Weight = 0.0,
    weight_lr_power: Weight = 2.0,
    r: Weight = 0.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    v = b2 * state.v + (1 - b2) * (grad * grad)
    root = xp.sqrt(v / debias(b2, t, xp=xp) + eps_root)
    d = grad / guarded(root, eps, xp=xp) + inner_decay * param
    top = xp.maximum(state.top, lr)
    w = t**r * top**weight_lr_power
    W = state.W + w
    c = w / guarded(W, 0.0, xp=xp)
    y = (1 - c) * param + c * state.z - lr * (1 - b1 * (1 - c)) * d
    return y, State(state.z - lr * d, v, W, top)


def evaluate(param: Array, state: State, t: Scalar, *, b1: Scalar, xp: Namespace) -> Array:
    """The parameters to evaluate with: the average ``x``."""
    return (param - (1 - b1) * state.z) / b1
