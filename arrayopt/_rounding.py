r"""Stochastic rounding: a number becomes one of its two neighbours in a narrower dtype, so that the
mean is the number itself.

Croci et al., *Stochastic rounding: implementation, error analysis and applications*, 2022,
https://doi.org/10.1098/rsos.211631.
"""

from typing import NamedTuple

from ._namespace import dtype_name
from ._types import Array, Namespace

LOWEST = -126  # exponent of the smallest normal float32
LADDER = (64, 32, 16, 8, 4, 2, 1)  # steps of an exponent, from LOWEST or from 0


class Format(NamedTuple):
    """What a dtype can hold."""

    digits: int  # binary digits of a normal number
    smallest: float  # normal number
    largest: float  # finite number


FORMATS = {
    "bfloat16": Format(8, 2.0**-126, (2 - 2.0**-7) * 2.0**127),
    "float16": Format(11, 2.0**-14, (2 - 2.0**-10) * 2.0**15),
}


def stochastically_rounded(x: Array, dtype: object, bits: Array, *, xp: Namespace) -> Array:
    r"""``x`` in ``dtype``, up or down at random, with the probability of the distance to the other.

    With :math:`a = |x|`, :math:`f` its binade (the largest power of two that is not above it, nor
    below the smallest normal number), :math:`d` the digits of the dtype and :math:`u` uniform in
    (0, 1):

    .. math::

        r = 2^{d-1} a / f, \qquad
        n = \lfloor r \rfloor + [u < r - \lfloor r \rfloor], \qquad
        y = \pm 2^{1-d} n f

    All of it is exact. The probability has 23 bits, which is exact wherever the spacing of the
    dtype is at most 2**23 that of float32: everywhere but near 0 in float16. What rounds to
    infinity by ``astype`` does so here, and nothing else does; NaN stays. Numbers below 2**-126
    are rounded as ``astype`` does where a library takes them for 0 (JAX).

    Nothing is cast to the narrow dtype and back, as compilers leave that out.

    Args:
        x: float32.
        dtype: bfloat16 or float16, as the namespace's arrays have it.
        bits: int32, random; the leading 23 are used. It broadcasts against ``x``.

    Raises:
        TypeError: ``x`` or ``dtype`` is another one.
    """
    name = dtype_name(dtype)
    if name not in FORMATS:
        raise TypeError(f"dtype must be {' or '.join(FORMATS)}, got {dtype}")
    if dtype_name(x.dtype) != "float32":
        raise TypeError(f"x must be float32, got {x.dtype}")
    digits, smallest, largest = FORMATS[name]
    unit = 2.0 ** (digits - 1)
    infinite = largest * (1 + 0.5 / (2 * unit - 1))  # halfway to the next number, were there one
    a = xp.abs(x)
    a = xp.where(a < infinite, a, 0.0)
    f = xp.maximum(binade(a, xp=xp)[1], smallest)
    r = a / f * unit
    low = xp.floor(r)
    u = fraction(bits, xp=xp)
    n = xp.where(u < r - low, low + 1, low)
    y = xp.minimum(n / unit * f, largest)
    y = xp.where(x < 0, -y, y)
    return xp.astype(xp.where(a > 0, y, x), dtype)


def fraction(bits: Array, *, xp: Namespace) -> Array:
    """Uniform in (0, 1), float32, of the leading 23 of random int32 bits."""
    return (xp.astype(xp.bitwise_right_shift(bits, 9) & 0x7FFFFF, xp.float32) + 0.5) * 2.0**-23


def binade(a: Array, *, xp: Namespace) -> tuple[Array, Array]:
    """The exponent of the largest power of two up to ``a``, ``LOWEST`` at least; and that power."""
    e = xp.where(a >= 1, 0.0, xp.zeros_like(a) + LOWEST)
    f = xp.where(a >= 1, 1.0, xp.zeros_like(a) + 2.0**LOWEST)
    for k in LADDER:
        up = a >= f * 2.0**k
        e, f = xp.where(up, e + k, e), xp.where(up, f * 2.0**k, f)
    return e, f


def power(e: Array, *, xp: Namespace) -> Array:
    """2 to a whole number of ``LOWEST`` or more, exactly in every library."""
    left = xp.where(e >= 0, e, e - LOWEST)
    f = xp.where(e >= 0, 1.0, xp.zeros_like(e) + 2.0**LOWEST)
    for k in LADDER:
        up = left >= k
        left, f = xp.where(up, left - k, left), xp.where(up, f * 2.0**k, f)
    return f
