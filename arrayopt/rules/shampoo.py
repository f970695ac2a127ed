r"""Shampoo: a preconditioner for every axis, the inverse root of summed products of gradients.

With :math:`g` the gradient of a parameter of :math:`k` axes at step :math:`t = 1, 2, \dots`,
:math:`g_{(i)}` as a matrix whose rows are the positions along axis :math:`i`, and
:math:`H_i = 0` at first:

.. math::

    H_i &\leftarrow \beta_2 H_i + (1 - \beta_2)\, g_{(i)} g_{(i)}^T
        \text{, with a factor of 1 before } g_{(i)} g_{(i)}^T \text{ if } \beta_2 = 1 \\
    R_i &= (H_i + \epsilon I)^{-1/(2k)} \text{ at steps } 1,\ 1 + \mathrm{interval},\ \dots \\
    d &= g \times_1 R_1 \times_2 R_2 \cdots \times_k R_k
        \text{, for a matrix } R_1 g R_2 \\
    m &\leftarrow \mu m + d \\
    p &\leftarrow p - \eta\, m

A vector is preconditioned by a full matrix, as in full-matrix Adagrad; a scalar is a vector of one
element. An axis longer than ``max_size`` keeps only the diagonal of its :math:`H`. The roots come
from an eigendecomposition, :math:`O(n^3)` for an axis of length n: ``interval=20`` makes it rare.
Under a trace other than JAX's it runs in every step, whether its roots are taken or not. Dask has
none. Eigenvalues below n times the dtype's eps of the largest are rounding, and are raised to that.

Gupta, Koren & Singer, *Shampoo: Preconditioned Stochastic Tensor Optimization*, ICML 2018,
Algorithms 1 and 2, https://arxiv.org/abs/1802.09568.

Deviations from the paper: :math:`\epsilon` is added when the root is taken and not to the first
:math:`H`, which is the same; momentum and :math:`\beta_2` are additions. With ``momentum=0`` and
``interval=1`` equal to pytorch_optimizer's Shampoo, which leaves the gradient of a scalar as it is,
does not move before the step ``preconditioning_compute_steps``, and whose momentum mixes the
preconditioned direction of the step before into the gradient.
"""

from typing import NamedTuple

from .._math import either, gram, packed, pick, unpacked
from .._types import Array, Fraction, Namespace, Off, Positive, Rate, Scalar

DECAY = "coupled"  # pytorch_optimizer
ELEMENTWISE = False
# An error of one eps of the largest eigenvalue may be far more than the smallest one, whose root is
# the largest. In float32 less: see above.
PARITY_EPS = 1e6


class State(NamedTuple):
    """Matrices of all axes one after another, row by row; and the momentum, none without it."""

    h: Array  # sums of the gradient's products, in units of g**2
    root: Array  # their inverse roots
    m: Array | Off  # decayed sum of preconditioned gradients


def init(param: Array, *, momentum: Scalar, max_size: float, xp: Namespace) -> State:
    """State before the first step."""
    plain = isinstance(momentum, int | float) and momentum == 0
    zeros = xp.zeros_like(param)
    h, root = (packed(_products(zeros, max_size, xp), like=zeros, xp=xp) for _ in range(2))
    return State(h=h, root=root, m=() if plain else zeros)


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1e-3,
    momentum: Fraction = 0.0,
    b2: Fraction = 1.0,
    eps: Positive = 1e-6,
    interval: Positive = 1.0,
    max_size: Positive = 8192.0,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    new = _products(grad, max_size, xp)
    shapes = [x.shape for x in new]
    weight = pick(b2 == 1, 1.0, 1 - b2, xp=xp)
    h = [b2 * a + weight * b for a, b in zip(unpacked(state.h, shapes, xp=xp), new, strict=True)]

    def fresh() -> tuple[Array, ...]:
        return tuple(_root(x, eps, -1 / (2 * len(h)), xp) for x in h)

    def stale() -> tuple[Array, ...]:
        return tuple(unpacked(state.root, shapes, xp=xp))

    roots = either((t - 1) % interval == 0, fresh, stale, xp=xp)
    d = xp.reshape(grad, grad.shape or (1,))
    for root in roots:  # each takes the first axis and puts it last
        diagonal = len(root.shape) == 1
        d = xp.moveaxis(d, 0, -1) * root if diagonal else xp.tensordot(d, root, axes=((0,), (0,)))
    d = xp.reshape(d, grad.shape)
    if isinstance(state.m, tuple):
        m = ()
    else:
        m = d = momentum * state.m + d
    h, root = (packed(x, like=grad, xp=xp) for x in (h, roots))
    return param - lr * d, State(h, root, m)


def _products(x: Array, max_size: float, xp: Namespace) -> list[Array]:
    """For each axis the products of all pairs of slices along it, or of each with itself."""
    x = xp.reshape(x, x.shape or (1,))
    axes, found = range(len(x.shape)), []
    for i in axes:
        if x.shape[i] > max_size:
            found.append(xp.sum(x * x, axis=tuple(j for j in axes if j != i)))
        else:
            found.append(gram(x, i, xp=xp))
    return found


def _root(h: Array, eps: Scalar, power: float, xp: Namespace) -> Array:
    """A power of ``h + eps I``, of a symmetric matrix or of a diagonal."""
    if len(h.shape) == 1:
        return (h + eps) ** power
    values, Q = xp.linalg.eigh(h)
    noise = h.shape[0] * xp.finfo(h.dtype).eps * xp.max(values)
    return (Q * (xp.maximum(values, noise) + eps) ** power) @ xp.matrix_transpose(Q)
