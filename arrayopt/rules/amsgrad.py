r"""AMSGrad: Adam whose second moment never shrinks.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and every slot 0 at first, per element:

.. math::

    m &\leftarrow \beta_1 m + (1 - \beta_1)\, g \\
    v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2 \\
    w &\leftarrow \max(w, v) \\
    p &\leftarrow p - \frac{\eta}{1 - \beta_1^t}
        \frac{m}{\sqrt{w / (1 - \beta_2^t) + \epsilon_\mathrm{root}} + \epsilon}

Reddi, Kale & Kumar, *On the Convergence of Adam and Beyond*, ICLR 2018, Algorithm 2,
https://arxiv.org/abs/1904.09237.

Deviation from the paper: the bias corrections and :math:`\epsilon`, as in
``torch.optim.Adam(amsgrad=True)``; without ``bias_correction`` both :math:`1 - \beta^t` are 1.
With ``corrected_max``, :math:`w \leftarrow \max(w, v / (1 - \beta_2^t))` and :math:`w` is divided
by nothing: this is ``optax.amsgrad``, and differs (0.41 of the largest move after ten steps).
optax can leave out one correction of the two, which this rule cannot. With ``eps_hat``,
:math:`\epsilon` is added before the correction of the root,
:math:`\sqrt{1 - \beta_2^t}\, m / (\sqrt{w + \epsilon_\mathrm{root}} + \epsilon)`: this is Keras'
``Adam(amsgrad=True)``, whose ``epsilon`` is 1e-7. The two are not made for each other: after
``corrected_max``, ``eps_hat`` changes nothing.
"""

from typing import NamedTuple

from .._math import debias, guarded
from .._types import Array, Decay, Epsilon, Namespace, Rate, Scalar

DECAY = "coupled"  # torch.optim.Adam


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the gradient, in units of g
    v: Array  # running mean of the squared gradient, in units of g**2
    w: Array  # largest v, or corrected v, so far, in units of g**2


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(*(xp.zeros_like(param) for _ in State._fields))


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0,
    eps_hat: bool = False,
    corrected_max: bool = False,
    bias_correction: bool = True,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    m = b1 * state.m + (1 - b1) * grad
    v = b2 * state.v + (1 - b2) * (grad * grad)
    c1, c2 = (debias(b, t, xp=xp) if bias_correction else 1.0 for b in (b1, b2))
    w = xp.maximum(state.w, v / c2 if corrected_max else v)
    c2 = 1.0 if corrected_max else c2
    lr, c2 = (lr * c2**0.5, 1.0) if eps_hat else (lr, c2)
    root = xp.sqrt(w / c2 + eps_root)
    return param - lr / c1 * m / guarded(root, eps, xp=xp), State(m, v, w)
