r"""Slots of 8 bits for each element, in blocks of 64 that share an exponent.

An element of a block is :math:`x = \pm (c / 127)^4\, 2^e` with a code :math:`c` of 0 to 127, and
:math:`2^e` the smallest power of two that no :math:`|x|` of the block exceeds. A slot is one int8
array: the codes of all elements, in order, then :math:`e - 1` for each block. Near the largest
element of a block codes are 3 % apart; the smallest is 4e-9 of it.

Each element becomes one of its two neighbours at random, with the probability of the distance to
the other one, so that the mean is right: a running mean that is rounded to the nearest stands still
as soon as it moves by less than half a code in a step. The random bits are those of
:mod:`arrayopt._random`, so every array library makes the same codes.

After Dettmers et al., *8-bit Optimizers via Block-wise Quantization*, ICLR 2022,
https://arxiv.org/abs/2110.02861; the codes and the rounding are ours.
"""

import math
from typing import Any

from ._namespace import cast, dtype_name
from ._rounding import LOWEST, binade, fraction, power
from ._types import Array, Namespace

NAME = "blocks8"  # as state_dtype calls it
BLOCK = 64
MOST = 127  # the largest code
NAN = -128  # the code of what is not finite; it is read as NaN
LARGEST = (2 - 2.0**-23) * 2.0**127  # finite float32


def are_blocks(slot: Array) -> bool:
    """Whether a slot is held so."""
    return dtype_name(slot.dtype) == "int8"


def length(shape: tuple[int, ...]) -> int:
    """Of the int8 array for a slot of this shape."""
    n = math.prod(shape)
    return n + -(-n // BLOCK)


def encoded(x: Array, bits: Array | None, *, xp: Namespace) -> Array:
    """The codes of an array.

    Args:
        bits: int32, of its shape, random; None to round to the nearest.
    """
    n = math.prod(x.shape)
    x = _blocked(cast(x, xp.float32, xp), n, xp)
    finite = xp.isfinite(x)
    a = xp.where(finite, xp.abs(x), 0.0)
    top = xp.max(a, axis=1, keepdims=True)
    e, f = binade(top, xp=xp)
    whole = (top == f) & (e > LOWEST)  # a power of two itself
    exponent, a = xp.where(whole, e - 1, e), xp.where(whole, a / f, a / f / 2)  # up to 1
    low = xp.floor(xp.sqrt(xp.sqrt(a)) * MOST)
    low = xp.where(_value(low) > a, low - 1, low)  # where the root was rounded up
    low = xp.where(_value(low + 1) <= a, low + 1, low)
    u = 0.5 if bits is None else fraction(_blocked(bits, n, xp), xp=xp)
    part = (a - _value(low)) / (_value(low + 1) - _value(low))
    low = xp.where(u < part, low + 1, low)
    code = xp.where(finite, xp.where(x < 0, -low, low), float(NAN))
    flat = [xp.reshape(code, (-1,))[:n], xp.reshape(exponent, (-1,))]
    return xp.astype(xp.concat(flat), xp.int8)


def decoded(codes: Array, shape: tuple[int, ...], dtype: Any, *, xp: Namespace) -> Array:
    """The array of this shape that :func:`encoded` has taken."""
    n = math.prod(shape)
    both = xp.astype(codes, xp.float32)
    code, scale = _blocked(both[:n], n, xp), power(xp.reshape(both[n:], (-1, 1)), xp=xp)
    a = xp.minimum(_value(xp.abs(code)) * scale, LARGEST / 2) * 2
    x = xp.where(code < 0, -a, a)
    x = xp.where(code == NAN, xp.nan, x)
    return cast(xp.reshape(xp.reshape(x, (-1,))[:n], shape), dtype, xp)


def _value(code: Array) -> Array:
    """What a code stands for, in parts of the block's power of two."""
    r = code / MOST
    r = r * r
    return r * r


def _blocked(x: Array, n: int, xp: Namespace) -> Array:
    """Rows of ``BLOCK`` elements, the last one filled with zeros."""
    flat = xp.reshape(x, (n,))
    missing = -n % BLOCK
    if missing:
        flat = xp.concat([flat, xp.zeros_like(xp.broadcast_to(flat[:1], (missing,)))])
    return xp.reshape(flat, (-1, BLOCK))
