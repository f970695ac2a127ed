r"""AdaBound: Adam whose rate per element is clipped to bounds that close in on that of SGD.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, every slot 0 at first and
:math:`\alpha` the ``final_lr``, per element:

.. math::

    m &\leftarrow \beta_1 m + (1 - \beta_1)\, g \\
    v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2, \qquad
        w \leftarrow \max(w, v) \text{ with amsbound},\ v \text{ without} \\
    q &= \mathrm{clip}\left(\frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}
        \frac{\eta}{\sqrt{w + \epsilon_\mathrm{root}} + \epsilon},\
        \alpha \left(1 - \frac{1}{\gamma t + 1}\right),\
        \alpha \left(1 + \frac{1}{\gamma t}\right)\right) \\
    p &\leftarrow p - q\, m

The final rate does not follow ``lr``, as in the paper. With ``base_lr`` it does:
:math:`\alpha` is ``final_lr * lr / base_lr``. That is the authors' code, where ``base_lr`` is the
first ``lr``; give it with a schedule. A step with ``lr = 0`` moves nothing.

Luo et al., *Adaptive Gradient Methods with Dynamic Bound of Learning Rate*, ICLR 2019,
Algorithms 2 and 3 (AMSBound), https://arxiv.org/abs/1902.09843.

Deviations from the paper, all as in the authors' code: the bias corrections, :math:`\epsilon`, and
no further factor :math:`1 / \sqrt t`. pytorch_optimizer has ``eps_root=1e-15``. torch, optax and
Keras have no such rule. ``weight_decay`` is coupled (L2) as in the authors' code.
"""

from typing import NamedTuple

from .._math import clip, debias, pick
from .._types import Array, Decay, Epsilon, Namespace, Off, Positive, Rate, Scalar, Weight

DECAY = "coupled"  # the authors' adabound
# Not normalised any more, a step may be larger than the parameter, and its rounding with it.
PARITY_EPS = 20


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the gradient, in units of g
    v: Array  # running mean of the squared gradient, in units of g**2
    w: Array | Off  # with amsbound: largest v so far


def init(param: Array, *, amsbound: bool, xp: Namespace) -> State:
    """State before the first step."""
    zeros = State(*(xp.zeros_like(param) for _ in State._fields))
    return zeros if amsbound else zeros._replace(w=())


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1e-3,
    final_lr: Weight = 0.1,
    base_lr: Positive | None = None,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    gamma: Positive = 1e-3,
    eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0,
    amsbound: bool = False,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    m = b1 * state.m + (1 - b1) * grad
    v = b2 * state.v + (1 - b2) * (grad * grad)
    w = xp.maximum(state.w, v) if amsbound else ()
    root = xp.sqrt((w if amsbound else v) + eps_root)
    last = final_lr if base_lr is None else final_lr * lr / base_lr
    low, high = last * (1 - 1 / (gamma * t + 1)), last * (1 + 1 / (gamma * t))
    rate = lr * debias(b2, t, xp=xp) ** 0.5 / debias(b1, t, xp=xp)
    q = rate * xp.ones_like(root) / (root + eps)  # torch takes number / array for a product
    q = clip(q, low, high, xp=xp)  # high where root = 0; m is then 0 too
    return pick(lr == 0, param, param - q * m, xp=xp), State(m, v, w)
