r"""NAdam: Adam with Nesterov's look-ahead and a momentum that warms up.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, :math:`m_0 = v_0 = 0`,
:math:`\Pi_0 = 1` and :math:`\psi` the ``momentum_decay``, per element:

.. math::

    \mu_t &= \beta_1 (1 - \tfrac12\, 0.96^{t \psi}), \qquad \Pi_t = \mu_t\, \Pi_{t-1} \\
    m &\leftarrow \beta_1 m + (1 - \beta_1)\, g \\
    v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2 \\
    \hat m &= \frac{\mu_{t+1}}{1 - \mu_{t+1} \Pi_t}\, m + \frac{1 - \mu_t}{1 - \Pi_t}\, g \\
    p &\leftarrow p - \eta\, \frac{\hat m}
        {\sqrt{v / (1 - \beta_2^t) + \epsilon_\mathrm{root}} + \epsilon}

Dozat, *Incorporating Nesterov Momentum into Adam*, ICLR 2016 workshop, Algorithm 2,
https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ.

Without ``momentum_decay`` (None), :math:`\mu_t = \beta_1` and :math:`\Pi_t = \beta_1^t`: this is
``optax.nadam``. ``torch.optim.NAdam`` is the rule as it stands, Keras' ``Nadam`` has
``momentum_decay=1`` and ``eps=1e-7``. Deviations from the paper: its second moment has another
factor :math:`\beta_2`, which all three leave out; and :math:`m` is averaged with :math:`\beta_1`
at every step, not with :math:`\mu_t`. torch and Keras know no :math:`\epsilon_\mathrm{root}`;
torch keeps :math:`\Pi` in float32. ``weight_decay`` is coupled (L2) as in torch;
``decay="decoupled"`` is NAdamW.
"""

from typing import NamedTuple

from .._math import ahead, debias, guarded, scalar
from .._types import Array, Decay, Epsilon, Namespace, Off, Rate, Scalar, Weight

DECAY = "coupled"  # torch.optim.NAdam


class State(NamedTuple):
    """Slots of the parameter's shape and device, and one value per parameter."""

    m: Array  # running mean of the gradient, in units of g
    v: Array  # running mean of the squared gradient, in units of g**2
    product: Array | Off  # 0-d: of all momenta so far; none without momentum_decay


def init(param: Array, *, momentum_decay: Scalar | None, xp: Namespace) -> State:
    """State before the first step."""
    product = () if momentum_decay is None else scalar(1.0, like=param, xp=xp)
    return State(m=xp.zeros_like(param), v=xp.zeros_like(param), product=product)


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 2e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    momentum_decay: Weight | None = 4e-3,
    eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    m = b1 * state.m + (1 - b1) * grad
    v = b2 * state.v + (1 - b2) * (grad * grad)
    if momentum_decay is None:
        product, mean = (), ahead(m, grad, b1, t, xp=xp)
    else:
        mu, mu_next = (b1 * (1 - 0.5 * 0.96 ** (k * momentum_decay)) for k in (t, t + 1))
        product = mu * state.product
        mean = mu_next * m / (1 - mu_next * product) + (1 - mu) * grad / (1 - product)
    root = xp.sqrt(v / debias(b2, t, xp=xp) + eps_root)
    return param - lr * (mean / guarded(root, eps, xp=xp)), State(m, v, product)
