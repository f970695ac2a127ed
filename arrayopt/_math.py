"""Small functions that rules share; each works on Python numbers, 0-d arrays and arrays alike.

They use the Array API alone, propagate NaN, and never branch on data.
"""

import math
import sys
from collections.abc import Callable, Sequence

from ._types import Array, Namespace, Scalar


def debias(beta: Scalar, t: Scalar, *, xp: Namespace) -> Scalar:
    """``1 - beta**t``, without cancellation where ``beta**t`` is near 1.

    In float32 at ``t = 1`` the plain form is off by 1e-5 (relative) for ``beta = 0.999``.
    """
    if not isinstance(beta, int | float):  # learned, swept or traced
        return -xp.expm1(t * xp.log(beta))
    if beta == 0:
        return 1.0
    if isinstance(t, int | float):
        return -math.expm1(t * math.log(beta))
    return -xp.expm1(t * math.log(beta))


def pick(condition: Scalar, a: Scalar, b: Scalar, *, xp: Namespace) -> Scalar:
    """``a`` where ``condition`` holds, else ``b``; a plain ``if`` where it is a Python bool."""
    if isinstance(condition, bool):
        return a if condition else b
    return xp.where(condition, a, b)


def guarded(x: Array, eps: Scalar, *, xp: Namespace) -> Array:
    """``x + eps`` as a denominator; with ``eps = 0``, 1 where it would be 0.

    A root mean square of 0 means that no gradient was seen (or that its square underflowed):
    the step is then 0 / 1 = 0 instead of 0 / 0.
    """
    d = x + eps
    if isinstance(eps, int | float) and eps > 0:
        return d
    return xp.where(d == 0, 1.0, d)


def sign(x: Array, *, xp: Namespace) -> Array:
    """-1, 0 or 1. The standard's ``sign`` fails on torch's sharded and batched tensors."""
    return xp.where(x > 0, 1.0, xp.where(x < 0, -1.0, x))


def clip(x: Array, low: Scalar, high: Scalar, *, xp: Namespace) -> Array:
    """``x`` limited to ``[low, high]``; see :func:`sign` for why not the standard's ``clip``."""
    return xp.minimum(xp.maximum(x, low), high)


def rms(x: Array, *, xp: Namespace) -> Array:
    """Root of the mean square over all elements: a 0-d array of the dtype of ``x``; 0 if empty."""
    wide = xp.astype(x, widest(x.dtype, xp=xp))  # first: a small x has a square of 0
    mean = xp.sum(wide * wide) / max(math.prod(x.shape), 1)
    return xp.astype(xp.sqrt(mean), x.dtype)


def scalar(value: float, *, like: Array, xp: Namespace) -> Array:
    """A 0-d array of the dtype and device of ``like``."""
    return xp.sqrt(xp.sum(xp.zeros_like(like))) + value  # a sum is whole on sharded tensors too


def total(x: Array, *, xp: Namespace) -> Array:
    """Sum over all elements in the widest dtype the namespace has: a 0-d array."""
    return xp.sum(x, dtype=widest(x.dtype, xp=xp))


def widest(dtype: object, *, xp: Namespace) -> object:
    """float64 where the namespace computes in it, else ``dtype``."""
    info = xp.__array_namespace_info__()  # JAX lists float64 only in 64-bit mode
    return info.dtypes(kind="real floating").get("float64", dtype)


def packed(arrays: Sequence[Array], *, like: Array, xp: Namespace) -> Array:
    """Arrays of any shapes one after another in one 1-d array; none of them is an empty one."""
    flat = [xp.reshape(x, (math.prod(x.shape),)) for x in (like, *arrays)]
    return xp.concat([flat[0][:0], *flat[1:]])


def unpacked(flat: Array, shapes: Sequence[tuple[int, ...]], *, xp: Namespace) -> list[Array]:
    """The arrays of these shapes that :func:`packed` has put into one."""
    found, start = [], 0
    for shape in shapes:
        end = start + math.prod(shape)
        found.append(xp.reshape(flat[start:end], shape))
        start = end
    return found


def gram(x: Array, axis: int, *, xp: Namespace) -> Array:
    """The products of all pairs of slices along an axis: a square matrix of that axis' length."""
    others = tuple(i for i in range(len(x.shape)) if i != axis)
    return xp.tensordot(x, x, axes=(others, others))


def smaller(a: Scalar, b: Scalar, *, xp: Namespace) -> Scalar:
    """The smaller of two scalars."""
    return pick(a < b, a, b, xp=xp)


def larger(a: Scalar, b: Scalar, *, xp: Namespace) -> Scalar:
    """The larger of two scalars."""
    return pick(a > b, a, b, xp=xp)


def either(
    condition: Scalar,
    new: Callable[[], tuple[Array, ...]],
    old: Callable[[], tuple[Array, ...]],
    *,
    xp: Namespace,
) -> tuple[Array, ...]:
    """``new()`` where ``condition`` holds, else ``old()``, for what is dear to compute.

    One of them alone is computed where the condition is a Python bool (``t`` an ``int``), and on
    JAX, also under ``jax.jit``. Under other traces both are.
    """
    if isinstance(condition, bool):
        return new() if condition else old()
    if xp.__name__ == "jax.numpy":
        jax = sys.modules["jax"]
        if not isinstance(condition, jax.core.Tracer):
            return new() if bool(condition) else old()
        found: tuple[Array, ...] = jax.lax.cond(condition, new, old)
        return found
    return tuple(xp.where(condition, a, b) for a, b in zip(new(), old(), strict=True))


def corrections(b1: Scalar, b2: Scalar, t: Scalar, *, xp: Namespace) -> Scalar:
    """Adam's two bias corrections as one factor of the rate."""
    return debias(b2, t, xp=xp) ** 0.5 / debias(b1, t, xp=xp)


def ahead(m: Array, g: Array, beta: Scalar, t: Scalar, *, xp: Namespace) -> Array:
    """The running mean ``m`` one step ahead, as if ``g`` came again; its bias is corrected."""
    now, then = debias(beta, t, xp=xp), debias(beta, t + 1, xp=xp)
    return beta / then * m + (1 - beta) / now * g


def cbrt(x: Array, *, xp: Namespace) -> Array:
    """The cube root of what is not negative, to an ulp or two; the standard has none.

    Where the library has none either, by exp and log and a step of Newton's.
    """
    if hasattr(xp, "cbrt"):
        return xp.cbrt(x)
    y = xp.exp(xp.log(x) / 3)
    return xp.where(x + x == x, x, y - (y - x / (y * y)) / 3)  # 0 and infinity are their own
