r"""Muon: momentum, orthogonalized by Newton-Schulz iterations.

With :math:`g` the gradient of a matrix at step :math:`t = 1, 2, \dots` and :math:`m_0 = 0`:

.. math::

    m &\leftarrow \mu m + (1 - \mu)\, g \\
    d &= \mu m + (1 - \mu)\, g \text{ with nesterov},\ m \text{ without} \\
    X &\leftarrow d / \max(\|d\|_F, \epsilon) \\
    X &\leftarrow a X + (b A + c A^2) X, \quad A = X X^T, \qquad \text{ns_steps times} \\
    p &\leftarrow p - \eta\, s\, X

:math:`s = \sqrt{\max(1, \mathrm{out} / \mathrm{in})}` for ``adjust_lr="original"``,
:math:`0.2 \sqrt{\max(\mathrm{out}, \mathrm{in})}` for ``"match_rms_adamw"`` (a step as long as
AdamW's) and 1 for ``"none"``. The five steps bring every singular value of :math:`d` near 1 (0.68
to 1.21) that is not over 600 times smaller than the norm.

A parameter of more than two axes is taken as a matrix: (first axis, all others), as convolutions
are stored in torch; with ``layout="in_out"`` (JAX, Keras) it is (all others, last axis), and its
last axis is the output. Vectors and scalars have no singular values to level: they move by
:math:`p \leftarrow p - \eta d`, as in MLX. They, embeddings and the last layer are better left to
Adam (an optimizer of its own over those).

Jordan et al., *Muon: An optimizer for hidden layers in neural networks*, 2024,
https://kellerjordan.github.io/posts/muon/. ``"match_rms_adamw"``: Liu et al., *Muon is Scalable for
LLM Training*, 2025, https://arxiv.org/abs/2502.16982.

Equal to ``torch.optim.Muon`` but for the precision: torch iterates in bfloat16, as does
``bfloat16=True`` (torch, JAX, MLX; otherwise the arithmetic is the parameter's). Torch's step
then differs from the exact one by 1 to 2 % of its norm; ours, which rounds more often, by 3 %.
``optax.contrib.muon`` is ``layout="in_out"``, ``bias_correction=True``, ``eps_in_max=False``
(:math:`\|d\|_F + \epsilon`), eps=1e-8; its ``consistent_rms=0.2`` is ``"match_rms_adamw"``; its
``adaptive`` and its other normalizations are not here. Keras is ``"match_rms_adamw"``,
``eps_in_max=False`` and an eps of :math:`(1 - \mu)\,` 1e-7, as its m is a sum. Both leave what is
no matrix to Adam; torch refuses it. MLX adds eps, decays the gradient (coupled), and takes a
convolution's s from its last two axes.

The iteration needs the whole matrix: ``ELEMENTWISE = False``.
"""

from typing import Annotated, Literal, NamedTuple

from .._math import debias, guarded
from .._types import Array, Decay, Epsilon, Namespace, Range, Rate, Real, Scalar

DECAY = "decoupled"  # torch.optim.Muon
ELEMENTWISE = False
# Sums in another order, and the iterations multiply small singular values, with the rounding in
# them, by up to 3.4 each. A step is small beside the parameter.
PARITY_EPS = 50


class State(NamedTuple):
    """One slot of the parameter's shape."""

    m: Array  # running mean of the gradient, in units of g


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(m=xp.zeros_like(param))


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1e-3,
    momentum: Decay = 0.95,
    nesterov: bool = True,
    ns_steps: Annotated[Scalar, Range("[0, inf)", whole=True)] = 5,
    ns_a: Real = 3.4445,
    ns_b: Real = -4.7750,
    ns_c: Real = 2.0315,
    eps: Epsilon = 1e-7,
    eps_in_max: bool = True,
    bias_correction: bool = False,
    layout: Literal["out_in", "in_out"] = "out_in",
    adjust_lr: Literal["original", "match_rms_adamw", "none"] = "original",
    bfloat16: bool = False,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    m = momentum * state.m + (1 - momentum) * grad
    now = debias(momentum, t, xp=xp) if bias_correction else 1.0
    if nesterov:
        ahead = debias(momentum, t + 1, xp=xp) if bias_correction else 1.0
        d = momentum * m / ahead + (1 - momentum) * grad / now
    else:
        d = m / now
    if not _is_matrix(param.shape):
        return param - lr * d, State(m)

    x = xp.reshape(d, (param.shape[0], -1) if layout == "out_in" else (-1, param.shape[-1]))
    rows, columns = x.shape
    high = rows > columns
    norm = xp.sqrt(xp.sum(x * x))
    x = x / guarded(xp.maximum(norm, eps) if eps_in_max else norm + eps, 0.0, xp=xp)
    x = xp.astype(x, _bfloat16(xp)) if bfloat16 else x
    x = xp.matrix_transpose(x) if high else x  # the smaller A
    for _ in range(int(ns_steps)):
        A = x @ xp.matrix_transpose(x)
        x = ns_a * x + (ns_b * A + ns_c * (A @ A)) @ x
    x = xp.matrix_transpose(x) if high else x
    x = xp.reshape(xp.astype(x, d.dtype), param.shape)
    out, into = (rows, columns) if layout == "out_in" else (columns, rows)
    s = {"original": max(1, out / into) ** 0.5, "match_rms_adamw": 0.2 * max(out, into) ** 0.5}
    return param - lr * s.get(adjust_lr, 1.0) * x, State(m)


def _is_matrix(shape: tuple[int, ...]) -> bool:
    """Whether there are rows and columns."""
    return len(shape) > 1 and 0 not in shape


def _bfloat16(xp: Namespace) -> object:
    """The dtype, which is not in the standard."""
    if not hasattr(xp, "bfloat16"):
        raise TypeError(f"bfloat16=True: {xp.__name__} has no such dtype")
    return xp.bfloat16
