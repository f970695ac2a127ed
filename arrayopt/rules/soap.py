r"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner.

With :math:`g` the gradient of a matrix at step :math:`t = 1, 2, \dots`, :math:`n = t - 1` the
number of steps that moved, and all slots 0 at first:

.. math::

    g' &= Q_L^T g\, Q_R, \qquad
    m \leftarrow \beta_1 m + (1 - \beta_1)\, g, \qquad
    v \leftarrow \beta_2 v + (1 - \beta_2)\, g'^2 \\
    d &= Q_L \left( (Q_L^T m\, Q_R) / (\sqrt v + \epsilon) \right) Q_R^T \\
    p &\leftarrow p - \eta \sqrt{1 - \beta_2^n} / (1 - \beta_1^n)\, d \\
    L &\leftarrow \beta_s L + (1 - \beta_s)\, g g^T, \qquad
    R \leftarrow \beta_s R + (1 - \beta_s)\, g^T g

At the first step only :math:`L` and :math:`R` are set, and :math:`Q` to their eigenvectors: no
gradient is ever projected on a basis that it had a part in. Whenever ``frequency`` divides
:math:`n`, :math:`Q \leftarrow \mathrm{qr}(L Q)`, one power iteration, its columns and those of
:math:`v` first sorted by the estimated eigenvalues, :math:`\mathrm{diag}(Q^T L Q)`. Of more axes,
each has its own matrix and basis. An axis longer than ``max_size``, a scalar, and a vector without
``precondition_1d`` have none: there this is Adam. ``shampoo_beta`` is ``b2`` if None.

Where the first gradient has a null space of two or more dimensions along an axis (the longer axis
of a matrix of n by n + 2; vectors of 3 with ``precondition_1d``), the basis of that space is the
eigensolver's choice: libraries then take other steps, each of them as good. Under a trace other
than JAX's the bases are computed in every step, whether they are taken or not. Dask has no eigh.

Vyas et al., *SOAP: Improving and Stabilizing Shampoo using Adam*, ICLR 2025, Algorithm 3,
https://arxiv.org/abs/2409.11321.

Deviations from the paper: none from the authors' code, but that decoupled decay comes before the
step and also at the first; their ``merge_dims`` and ``normalize_gradient`` are not here. Equal to
pytorch_optimizer's SOAP, which decays after the step, and takes the qr in float32 also in float64.
"""

from typing import NamedTuple

from .._math import debias, either, gram, guarded, packed, pick, unpacked
from .._types import Array, Decay, Epsilon, Namespace, Positive, Rate, Scalar

DECAY = "decoupled"
ELEMENTWISE = False
PARITY_EPS = float("inf")  # see above: a null space has no basis of its own


class State(NamedTuple):
    """Two slots of the parameter's shape, and the matrices of all axes one after another."""

    m: Array  # running mean of the gradient, in units of g
    v: Array  # running mean of the squared gradient in the eigenbasis, in units of g**2
    h: Array  # running means of the gradient's products, in units of g**2
    basis: Array  # their approximate eigenvectors, in columns


def init(param: Array, *, precondition_1d: bool, max_size: float, xp: Namespace) -> State:
    """State before the first step."""
    m, v = xp.zeros_like(param), xp.zeros_like(param)
    products = [gram(m, i, xp=xp) for i in _axes(param.shape, precondition_1d, max_size)]
    h, basis = (packed(products, like=m, xp=xp) for _ in range(2))
    return State(m=m, v=v, h=h, basis=basis)


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 3e-3,
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    shampoo_beta: Decay | None = None,
    eps: Epsilon = 1e-8,
    frequency: Positive = 10.0,
    precondition_1d: bool = False,
    max_size: Positive = 10000.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    axes = _axes(param.shape, precondition_1d, max_size)
    bs = b2 if shampoo_beta is None else shampoo_beta
    shapes = [(param.shape[i], param.shape[i]) for i in axes]
    Q = unpacked(state.basis, shapes, xp=xp)
    H = unpacked(state.h, shapes, xp=xp)
    H = [bs * h + (1 - bs) * gram(grad, i, xp=xp) for h, i in zip(H, axes, strict=True)]

    first = t == 1
    n = pick(first, 1, t - 1, xp=xp)
    g = _turned(grad, Q, axes, 0, xp)
    m = pick(first, state.m, b1 * state.m + (1 - b1) * grad, xp=xp)
    v = pick(first, state.v, b2 * state.v + (1 - b2) * (g * g), xp=xp)
    d = _turned(m, Q, axes, 0, xp) / guarded(xp.sqrt(v), eps, xp=xp)
    eta = lr * debias(b2, n, xp=xp) ** 0.5 / debias(b1, n, xp=xp)
    p = param - eta * _turned(d, Q, axes, 1, xp)  # at the first step m is 0

    def start() -> tuple[Array, ...]:
        return v, *(xp.flip(xp.linalg.eigh(h)[1], axis=1) for h in H)

    def again() -> tuple[Array, ...]:
        sorted_v, bases = v, []
        for i, h, q in zip(axes, H, Q, strict=True):
            hq = h @ q
            order = xp.argsort(-xp.sum(q * hq, axis=0))  # MLX knows no descending
            sorted_v = xp.take(sorted_v, order, axis=i)
            bases.append(xp.linalg.qr(xp.take(hq, order, axis=1))[0])
        return sorted_v, *bases

    def due() -> tuple[Array, ...]:
        return either(first, start, again, xp=xp)

    v, *Q = either((t - 1) % frequency == 0, due, lambda: (v, *Q), xp=xp)
    return p, State(m, v, packed(H, like=grad, xp=xp), packed(Q, like=grad, xp=xp))


def _axes(shape: tuple[int, ...], precondition_1d: bool, max_size: float) -> list[int]:
    """Those that have a basis."""
    if 0 in shape or (len(shape) == 1 and not precondition_1d):
        return []
    return [i for i, size in enumerate(shape) if size <= max_size]


def _turned(x: Array, Q: list[Array], axes: list[int], way: int, xp: Namespace) -> Array:
    """``x`` in the eigenbases (``way`` 0), or back (1); each axis is taken and put last."""
    for i in range(len(x.shape)):
        if i in axes:
            x = xp.tensordot(x, Q[axes.index(i)], axes=((0,), (way,)))
        else:
            x = xp.moveaxis(x, 0, -1)
    return x
