r"""Adafactor: Adam's second moment as an outer product, and steps relative to the parameter.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, means over the columns and rows of a
matrix, and :math:`w = \max(t^{-c},\, 1 - \mathrm{b2\_max})`:

.. math::

    r &\leftarrow (1 - w)\, r + w\, \mathrm{mean}_j(g_{ij}^2 + \epsilon_1), \qquad
    c \leftarrow (1 - w)\, c + w\, \mathrm{mean}_i(g_{ij}^2 + \epsilon_1) \\
    v &= r\, c / \mathrm{mean}(r), \text{ and for vectors } v \leftarrow
        (1 - w)\, v + w\, (g^2 + \epsilon_1) \\
    u &= g / \sqrt v, \qquad
    u \leftarrow u / \max(1,\ \mathrm{rms}(u) / \mathrm{clip\_threshold}) \\
    m &\leftarrow \beta_1 m + (1 - \beta_1)\, \alpha u, \qquad
        \alpha = \max(\epsilon_2, \mathrm{rms}(p))\, \min(\eta, 1 / \sqrt t) \\
    p &\leftarrow p - m

Without ``relative_step`` the minimum is :math:`\eta`; without ``scale_parameter`` the factor
before it is 1. :math:`c` in the exponent is ``decay_rate``. Of more than two axes, the last two are
those of the matrix, or the two longest with ``axes="largest"``; where one of them is shorter than
``min_size`` (``inf``: always), v is kept whole.

Shazeer & Stern, *Adafactor: Adaptive Learning Rates with Sublinear Memory Cost*, ICML 2018,
Algorithms 4 to 6, https://arxiv.org/abs/1804.04235; ``b2_max`` < 1: Zhai et al., *Scaling Vision
Transformers*, https://arxiv.org/abs/2106.04560.

Deviations from the paper: means instead of sums, which is the same. ``torch.optim.Adafactor`` is
``eps_in_max=True`` (:math:`\max(\mathrm{mean}(r), \epsilon_1)` and :math:`\max(\sqrt v,
\epsilon_1)`, nothing added) and ``eps1=None``, the dtype's eps. Keras is the default with lr=1e-3;
its ``relative_step=False`` has the minimum all the same. ``optax.adafactor`` is
``relative_step=False, axes="largest", min_size=128`` (its exponent of t is float32). MLX and
pytorch_optimizer have a constant of 1e-2 for :math:`\eta` with ``relative_step``; the latter has
``b2_max=0.999, b1=0.9`` (its momentum is bfloat16). Decoupled decay comes before rms(p) is taken;
torch takes it before the decay, optax's is independent of lr and comes after the step.
"""

from typing import Literal, NamedTuple

from .._math import guarded, larger, packed, rms, smaller, unpacked
from .._types import Array, Bound, Decay, Epsilon, Fraction, Namespace, Off, Rate, Scalar, Weight

DECAY = "decoupled"
ELEMENTWISE = False
# Means over rows, columns and the parameter, in another order, are fed back through rms(p).
PARITY_EPS = 100


class State(NamedTuple):
    """The second moment, and the momentum; none without it."""

    v: Array  # means of g**2: of rows and then columns one after another, or of each element
    m: Array | Off  # running mean of the step, in units of p


def init(param: Array, *, b1: Scalar, axes: str, min_size: float, xp: Namespace) -> State:
    """State before the first step."""
    plain = isinstance(b1, int | float) and b1 == 0
    v = xp.zeros_like(param)
    if pair := _pair(param.shape, axes, min_size):
        v = packed([xp.mean(v, axis=i) for i in pair], like=v, xp=xp)
    return State(v=v, m=() if plain else xp.zeros_like(param))


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1e-2,
    b1: Decay = 0.0,
    decay_rate: Weight = 0.8,
    b2_max: Fraction = 1.0,
    eps1: Epsilon | None = 1e-30,
    eps2: Epsilon = 1e-3,
    eps_in_max: bool = False,
    clip_threshold: Bound = 1.0,
    relative_step: bool = True,
    scale_parameter: bool = True,
    axes: Literal["last", "largest"] = "last",
    min_size: Bound = 1.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    eps1 = float(xp.finfo(param.dtype).eps) if eps1 is None else eps1
    w = larger(t**-decay_rate, 1 - b2_max, xp=xp)
    g2 = grad * grad if eps_in_max else grad * grad + eps1
    if pair := _pair(param.shape, axes, min_size):
        i, j = pair
        shapes = [tuple(1 if k == x else n for k, n in enumerate(param.shape)) for x in (j, i)]
        r, c = unpacked(state.v, shapes, xp=xp)
        r = (1 - w) * r + w * xp.mean(g2, axis=j, keepdims=True)
        c = (1 - w) * c + w * xp.mean(g2, axis=i, keepdims=True)
        mean = xp.mean(r, axis=i, keepdims=True)
        mean = xp.maximum(mean, eps1) if eps_in_max else mean
        v, kept = r / guarded(mean, 0.0, xp=xp) * c, packed([r, c], like=grad, xp=xp)
    else:
        v = kept = (1 - w) * state.v + w * g2
    root = xp.maximum(xp.sqrt(v), eps1) if eps_in_max else xp.sqrt(v)
    u = grad / guarded(root, 0.0, xp=xp)
    u = u / xp.maximum(rms(u, xp=xp) / clip_threshold, 1.0)
    alpha = smaller(lr, t**-0.5, xp=xp) if relative_step else lr
    alpha = alpha * xp.maximum(rms(param, xp=xp), eps2) if scale_parameter else alpha
    if isinstance(state.m, tuple):
        return param - alpha * u, State(kept, ())
    m = b1 * state.m + (1 - b1) * (alpha * u)
    return param - m, State(kept, m)


def _pair(shape: tuple[int, ...], axes: str, min_size: float) -> tuple[int, int] | None:
    """The two axes to factor over: the row's position, and then the column's; None if none."""
    order = sorted(range(len(shape)), key=lambda k: shape[k] if axes == "largest" else k)
    if len(shape) < 2 or 0 in shape or any(shape[k] < min_size for k in order[-2:]):
        return None
    return order[-2], order[-1]
