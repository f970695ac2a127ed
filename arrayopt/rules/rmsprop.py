r"""RMSprop: the gradient over the root of its running mean square.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, :math:`m_0 = \mu_0 = 0`, :math:`v_0 =`
``initial_accumulator``, :math:`c = 1 - \beta_2^t` with ``bias_correction``, 1 without it, and
:math:`\gamma` the ``momentum``, per element:

.. math::

    v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2, \qquad
        \mu \leftarrow \beta_2 \mu + (1 - \beta_2)\, g \\
    w &= v / c, \text{ or with centered: } \max(v / c - (\mu / c)^2,\ 0) \\
    q &= \frac{g}{\sqrt{w + \epsilon_\mathrm{root}} + \epsilon}, \qquad m \leftarrow \gamma m + q \\
    p &\leftarrow p - \eta\, \{m, \text{ or with nesterov: } q + \gamma m\}

Tieleman & Hinton, *Lecture 6.5: rmsprop*, Neural Networks for Machine Learning, Coursera 2012,
https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf. Centered: Graves,
*Generating Sequences With Recurrent Neural Networks*, 2013, equations 38-45,
https://arxiv.org/abs/1308.0850.

Equal to ``torch.optim.RMSprop`` (its alpha is b2) as it is. ``optax.rmsprop`` and Keras have
:math:`\epsilon` in the root (``eps=0``, ``eps_root=1e-8`` and 1e-7), ``b2=0.9``, and ``lr`` in the
momentum, :math:`m \leftarrow \gamma m + \eta q`: the same at a constant rate. All three give NaN
where rounding makes :math:`w + \epsilon_\mathrm{root}` negative; here :math:`w` is 0 then. Centered
with ``bias_correction``, :math:`w = 0` in the first step whatever the gradient: choose a large
:math:`\epsilon`. ``weight_decay`` is coupled (L2) as in torch.
"""

from typing import NamedTuple

from .._math import debias, guarded
from .._types import Array, Decay, Epsilon, Fraction, Namespace, Off, Rate, Scalar, Weight

DECAY = "coupled"  # torch.optim.RMSprop


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    v: Array  # running mean of the squared gradient, in units of g**2
    mu: Array | Off  # running mean of the gradient, in units of g; only with centered
    m: Array | Off  # decayed sum of q, without unit; none without momentum


def init(
    param: Array,
    *,
    initial_accumulator: Weight = 0.0,
    momentum: Scalar,
    centered: bool,
    xp: Namespace,
) -> State:
    """State before the first step."""
    plain = isinstance(momentum, int | float) and momentum == 0
    return State(
        v=xp.zeros_like(param) + initial_accumulator,
        mu=xp.zeros_like(param) if centered else (),
        m=() if plain else xp.zeros_like(param),
    )


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1e-2,
    b2: Decay = 0.99,
    eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0,
    momentum: Fraction = 0.0,
    nesterov: bool = False,
    centered: bool = False,
    bias_correction: bool = False,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    c = debias(b2, t, xp=xp)
    v, mu = b2 * state.v + (1 - b2) * (grad * grad), ()
    w = v / c if bias_correction else v
    if centered:
        mu = b2 * state.mu + (1 - b2) * grad
        mean = mu / c if bias_correction else mu
        w = xp.maximum(w - mean * mean, 0.0)  # of a constant gradient, rounding may leave < 0
    root = xp.sqrt(w + eps_root)
    q = grad / guarded(root, eps, xp=xp)
    if isinstance(state.m, tuple):
        return param - lr * q, State(v, mu, state.m)
    m = momentum * state.m + q
    return param - lr * (q + momentum * m if nesterov else m), State(v, mu, m)
