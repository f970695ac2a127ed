r"""Madam in B bits: every weight is a sign and a whole number k, in a logarithmic number system.

With :math:`v` and :math:`q` as in ``arrayopt/rules/madam.py``, :math:`p_0` the first parameter and
:math:`s` its root mean square, per element:

.. math::

    P &= \mathrm{p\_scale}\, s, \qquad
        k_0 = \mathrm{clip}(\mathrm{round}(\log(P / |p_0|) / \delta),\ 0,\ L - 1) \\
    k &\leftarrow \mathrm{clip}(k + \mathrm{round}(\eta\, q\, \mathrm{sign}(p) / \delta),\
        0,\ L - 1) \\
    p &= \mathrm{sign}(p_0)\, P\, e^{-\delta k}

Bernstein et al., 2020, https://arxiv.org/abs/2006.14560, B-bit Madam, rounded as in the
authors' ``int_madam.py``, https://github.com/jxbz/madam. There :math:`k_0` is drawn at random,
uniformly; here it is the nearest to a weight that is given. With ever smaller base steps it becomes
Madam.
"""

from typing import NamedTuple

from .._math import clip, debias, rms, sign
from .._types import Array, Bound, Decay, Namespace, Positive, Rate, Scalar

DECAY = "decoupled"


class State(NamedTuple):
    """Two slots of the parameter's shape, and one value per parameter."""

    v: Array  # running mean of the squared gradient, in units of g**2
    k: Array  # how many base steps the weight is below the largest
    scale: Array  # 0-d: root mean square of the first parameter, in units of p


def init(
    param: Array,
    *,
    p_scale: Positive = 3.0,
    step: Positive = 0.001,
    levels: Positive = 4096.0,
    xp: Namespace,
) -> State:
    """State before the first step. A zero stays one, as its sign is 0."""
    scale, zero = rms(param, xp=xp), param == 0
    below = xp.where(zero, 1.0, p_scale * scale / xp.where(zero, 1.0, xp.abs(param)))
    k = xp.round(xp.log(below) / step)
    return State(xp.zeros_like(param), clip(k, 0.0, levels - 1, xp=xp), scale)


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 0.01,
    p_scale: Positive = 3.0,
    step: Positive = 0.001,
    levels: Positive = 4096.0,
    g_bound: Bound = 10.0,
    b2: Decay = 0.999,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    # madam.update has q in an exponent, whose logarithm is not the same q: so it is written again
    v = b2 * state.v + (1 - b2) * (grad * grad)
    root = xp.sqrt(xp.where(v == 0, xp.inf, v))
    q = clip(debias(b2, t, xp=xp) ** 0.5 * grad / root, -g_bound, g_bound, xp=xp)
    s = sign(param, xp=xp)
    k = clip(state.k + xp.round(lr * q * s / step), 0.0, levels - 1, xp=xp)
    return s * (p_scale * state.scale) * xp.exp(-step * k), State(v, k, state.scale)
