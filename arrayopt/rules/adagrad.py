r"""Adagrad: each element's rate falls with the sum of its squared gradients.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and :math:`v_0 =`
``initial_accumulator``, per element:

.. math::

    v &\leftarrow v + g^2 \\
    p &\leftarrow p - \frac{\eta}{1 + \mathrm{lr\_decay}\, (t - 1)}
        \frac{g}{\sqrt{v + \epsilon_\mathrm{root}} + \epsilon}

Duchi, Hazan & Singer, *Adaptive Subgradient Methods for Online Learning and Stochastic
Optimization*, JMLR 12 (2011), Figure 1 (diagonal matrices),
https://jmlr.org/papers/v12/duchi11a.html.

Deviations from the paper: ``lr_decay``, ``initial_accumulator`` and :math:`\epsilon_\mathrm{root}`,
all 0 unless given; no regularizer and no projection. Equal to ``torch.optim.Adagrad`` as it is.
``optax.adagrad`` and Keras have :math:`\epsilon` in the root (``eps=0, eps_root=1e-7``) and
``initial_accumulator=0.1``. ``weight_decay`` is coupled (L2) as in torch.
"""

from typing import NamedTuple

from .._math import guarded
from .._types import Array, Epsilon, Namespace, Rate, Scalar, Weight

DECAY = "coupled"  # torch.optim.Adagrad


class State(NamedTuple):
    """One slot of the parameter's shape."""

    v: Array  # sum of the squared gradients, in units of g**2


def init(param: Array, *, initial_accumulator: Weight = 0.0, xp: Namespace) -> State:
    """State before the first step."""
    return State(v=xp.zeros_like(param) + initial_accumulator)


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1e-2,
    lr_decay: Weight = 0.0,
    eps: Epsilon = 1e-10,
    eps_root: Epsilon = 0.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    v = state.v + grad * grad
    rate = lr / (1 + lr_decay * (t - 1))
    root = xp.sqrt(v + eps_root)
    return param - rate * grad / guarded(root, eps, xp=xp), State(v)
