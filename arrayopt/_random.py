r"""Random numbers that are a function of seed, stream, step and place: no state, no order.

The generator is Threefry-2x32 with 20 rounds: Salmon et al., *Parallel Random Numbers: As Easy as
1, 2, 3*, SC 2011, https://doi.org/10.1145/2063384.2063405. It turns a key and a counter of two
32-bit words each into two random words. Here the key is (seed, stream) and the counter of an
element (its flat index in the array, step).

The standard has uint32, but torch does not add it: words are int32, whose sums wrap around and
whose right shifts are masked. They are the same bits in every array library. An array of more than
2**32 elements repeats itself.
"""

import math
import sys
from typing import NamedTuple

from ._namespace import compute_dtype, device, dtype_name
from ._types import Array, Namespace, Scalar

ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
PARITY = 0x1BD11BDA  # so that the third word of the key schedule is not 0 for a key of zeros


class Key(NamedTuple):
    """Which numbers: other ones for every seed, stream and step.

    Each is a whole number: a Python one, or an array, integer or floating, that broadcasts against
    the elements. float32 holds whole numbers up to 2**24.
    """

    seed: Scalar  # below 2**32
    stream: Scalar  # below 2**32; what is drawn for: the number of the parameter, say
    step: Scalar  # below 2**31


def threefry(
    key: tuple[Scalar, Scalar], counter: tuple[Array, Array], *, xp: Namespace
) -> tuple[Array, Array]:
    """The two random words of a key and a counter, whose words are of int32.

    The key's may be Python ints in the range of int32. A counter's are of at least one axis, as
    NumPy warns where a 0-d sum wraps around.
    """
    words = (*key, key[0] ^ key[1] ^ PARITY)
    x, y = counter[0] + words[0], counter[1] + words[1]
    for i in range(5):
        for n in ROTATIONS[i % 2]:
            x = x + y
            y = (xp.bitwise_left_shift(y, n) | _top(y, n, xp)) ^ x
        x = x + words[(i + 1) % 3]
        y = y + words[(i + 2) % 3] + (i + 1)
    return x, y


def bits(key: Key, like: Array, *, xp: Namespace) -> tuple[Array, Array]:
    """64 random bits for each element of ``like``, in two int32 arrays of its shape and device."""
    seed, stream, step = (_word(k, xp) for k in key)
    index = _index(like, xp)
    found = threefry((seed, stream), (index, xp.zeros_like(index) + step), xp=xp)
    a, b = (xp.reshape(x, like.shape) for x in found)
    return a, b


def uniform(key: Key, like: Array, *, xp: Namespace) -> Array:
    """Uniform in [0, 1), for each element of ``like``: the same bits in every array library.

    float32 has 24 random bits, which are the leading ones of float64's 53. A narrower ``like``
    gets float32.
    """
    dtype = compute_dtype(like.dtype, xp)
    a, b = bits(key, like, xp=xp)
    return _unit(a, b if _is_wide(dtype) else None, dtype, xp)


def normal(key: Key, like: Array, *, xp: Namespace) -> Array:
    r"""Normal with mean 0 and variance 1, for each element of ``like``; dtypes as in ``uniform``.

    Box & Muller, *A Note on the Generation of Random Normal Deviates*, 1958:
    :math:`\sqrt{-2 \log u} \cos 2 \pi v`. Array libraries differ by the rounding of log and cos.
    The largest are 6.8 in float32 and 8.7 in float64, from :math:`u = 2^{-33}` and
    :math:`2^{-54}`.
    """
    dtype = compute_dtype(like.dtype, xp)
    a, b = bits(key, like, xp=xp)
    if _is_wide(dtype):
        # other blocks than any step's, which is below 2**31
        c, d = bits(key._replace(step=_word(key.step, xp) ^ -(2**31)), like, xp=xp)
        u, v = _unit(a, c, dtype, xp) + 2.0**-54, _unit(b, d, dtype, xp)
    else:
        u, v = _unit(a, None, dtype, xp), _unit(b, None, dtype, xp)
        u = u + (xp.astype(a & 255, dtype) + 0.5) * 2.0**-32
    return xp.sqrt(-2 * xp.log(u)) * xp.cos(2 * math.pi * v)


def _is_wide(dtype: object) -> bool:
    """Whether the dtype has more than the 24 bits of float32."""
    return dtype_name(dtype) == "float64"


def _unit(word: Array, more: Array | None, dtype: object, xp: Namespace) -> Array:
    """The leading 24 bits of a word, or 53 of two, as a binary fraction."""
    u = xp.astype(_top(word, 24, xp), dtype) * 2.0**-24
    if more is None:
        return u
    u = u + xp.astype(word & 255, dtype) * 2.0**-32
    return u + xp.astype(_top(more, 21, xp), dtype) * 2.0**-53


def _top(word: Array, n: int, xp: Namespace) -> Array:
    """The leading ``n < 32`` bits: a right shift that brings in zeros."""
    # not the operator: torch's DTensor gives back what is shifted as it is
    return xp.bitwise_right_shift(word, 32 - n) & ((1 << n) - 1)


def _word(x: Scalar, xp: Namespace) -> Scalar:
    """A whole number modulo 2**32, as int32 has it."""
    if isinstance(x, int | float):
        return (int(x) + 2**31) % 2**32 - 2**31
    return xp.astype(x, xp.int32)


def _index(like: Array, xp: Namespace) -> Array:
    """The flat index of each element modulo 2**32, in int32; of shape (1,) where ``like`` is 0-d.

    One axis after another, upon zeros that lie as ``like`` does: in its chunks, on its devices.
    """
    where = {} if (there := device(like, xp)) is None else {"device": there}
    shape = tuple(like.shape) or (1,)
    index = xp.astype(xp.zeros_like(xp.reshape(like, shape)), xp.int32)
    for axis, n in enumerate(shape):
        along = xp.arange(n, dtype=xp.int32, **where)
        along = xp.reshape(along, (n,) + (1,) * (len(shape) - axis - 1))
        index = index * n + _beside(like, along)
    return index


def _beside(like: Array, x: Array) -> Array:
    """``x`` whole on every device, where ``like`` is torch's DTensor, which takes only its kind."""
    if not hasattr(like, "device_mesh"):
        return x
    mesh, whole = like.device_mesh, sys.modules["torch.distributed.tensor"].Replicate()
    return type(like).from_local(x, mesh, [whole] * mesh.ndim, run_check=False)
