r"""MARS: AdamW on a gradient whose variance is reduced by the one before.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, :math:`g'` the one before, every slot
0 at first and the norm that of the whole parameter, per element:

.. math::

    c &= g + \gamma\, \frac{\beta_1}{1 - \beta_1}\, (g - g'), \qquad
        c \leftarrow c / \max(\lVert c \rVert, 1) \\
    m &\leftarrow \beta_1 m + (1 - \beta_1)\, c \\
    v &\leftarrow \beta_2 v + (1 - \beta_2)\, c^2 \\
    p &\leftarrow p - \frac{\eta}{1 - \beta_1^t}
        \frac{m}{\sqrt{v / (1 - \beta_2^t) + \epsilon_\mathrm{root}} + \epsilon}

Yuan et al., *MARS: Unleashing the Power of Variance Reduction for Training Large Models*, 2024,
Algorithm 2 (MARS-AdamW), https://arxiv.org/abs/2411.10438.

This is the paper's approximate form: :math:`g'` is the gradient that the step before was given,
and not that of the present data at the parameters before. At :math:`t = 1` it is 0, as in the
authors' code. Equal to pytorch_optimizer's ``MARS(optimize_1d=True)`` with ``eps_hat``, where
:math:`\epsilon` is added before the correction:
:math:`\sqrt{1 - \beta_2^t}\, m / (\sqrt{v + \epsilon_\mathrm{root}} + \epsilon)`, and with
``eps_root=1e-15``. Both libraries give parameters of one dimension to a plain AdamW with a rate of
its own unless told not to; the paper's MARS-Lion and MARS-Shampoo are other rules. torch, optax
and Keras have no such rule.
"""

from typing import NamedTuple

from .._math import debias, guarded
from .._types import Array, Decay, Epsilon, Namespace, Rate, Scalar, Weight

DECAY = "decoupled"
# A norm rounds differently in each library; its error, of a few eps, moves every element.
PARITY_EPS = 100


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the reduced gradient, in units of g
    v: Array  # running mean of its square, in units of g**2
    g: Array  # the gradient of the step before


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(*(xp.zeros_like(param) for _ in State._fields))


def measure(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    b1: Decay,
    gamma: Weight,
    xp: Namespace,
) -> dict[str, Array]:
    """What is summed over the parameter: the squared norm of the reduced gradient."""
    c = grad + gamma * b1 / (1 - b1) * (grad - state.g)
    return {"square": c * c}


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    sums: dict[str, Array],
    lr: Rate = 3e-3,
    b1: Decay = 0.95,
    b2: Decay = 0.99,
    gamma: Weight = 0.025,
    eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0,
    eps_hat: bool = False,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    c = grad + gamma * b1 / (1 - b1) * (grad - state.g)
    c = c / xp.maximum(xp.sqrt(sums["square"]), 1.0)
    m = b1 * state.m + (1 - b1) * c
    v = b2 * state.v + (1 - b2) * (c * c)
    c2 = debias(b2, t, xp=xp)
    lr, c2 = (lr * c2**0.5, 1.0) if eps_hat else (lr, c2)
    root = xp.sqrt(v / c2 + eps_root)
    return param - lr / debias(b1, t, xp=xp) * m / guarded(root, eps, xp=xp), State(m, v, grad)
