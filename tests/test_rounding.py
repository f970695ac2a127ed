"""Stochastic rounding: exactly one of the two neighbours, with exactly the probability it has."""

import ml_dtypes
import numpy as np
import pytest
from conftest import adapter, package

from arrayopt._namespace import namespace
from arrayopt._random import Key
from arrayopt._random import bits as random_bits
from arrayopt._rounding import stochastically_rounded

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT16 = np.dtype("float16")
DTYPES = [BFLOAT16, FLOAT16]
SMALLEST = {BFLOAT16: 2.0**-126, FLOAT16: 2.0**-14}  # normal numbers
EVERY = (np.arange(2**16) << 16).astype(np.uint32).view(np.int32)  # 16 bits of all values


def rounded(x, dtype, bits):
    """Ours, in NumPy."""
    x = np.asarray(x, np.float32)
    found = stochastically_rounded(x, dtype, np.asarray(bits, np.int32), xp=namespace(x))
    assert found.dtype == dtype
    return found


def numbers(dtype):
    """All that are finite."""
    x = np.arange(2**16, dtype=np.uint16).view(dtype)
    return x[np.isfinite(x.astype(np.float32))]


def between(dtype, n=20_000):
    """Numbers of float32 of all magnitudes that both dtypes have, a few of them narrow ones."""
    rng = np.random.default_rng(1)
    top = float(ml_dtypes.finfo(dtype).max)
    size = np.exp2(rng.uniform(np.log2(SMALLEST[dtype]) - 12, np.log2(top), n))
    x = (rng.choice([-1, 1], n) * size).astype(np.float32)
    x[: n // 10] = x[: n // 10].astype(dtype).astype(np.float32)
    bits = rng.integers(-(2**31), 2**31, n).astype(np.int32)
    return x, bits


def expected(x, dtype, bits):
    """The formula in float64, the neighbours by nextafter."""
    x = x.astype(np.float64)
    near = x.astype(dtype)
    zero, far = np.zeros_like(near), np.copysign(np.inf, x).astype(dtype)
    low = np.where(np.abs(near.astype(np.float64)) > np.abs(x), np.nextafter(near, zero), near)
    high = np.nextafter(low, far)
    a, b = low.astype(np.float64), high.astype(np.float64)
    u = ((bits.view(np.uint32) >> 9) + 0.5) / 2**23
    return np.where(u < (x - a) / (b - a), high, low)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bits", [0, -1, 2**31 - 1, -(2**31), 12345])
def test_what_is_representable_stays(dtype, bits):
    x = numbers(dtype)
    found = rounded(x, dtype, np.full(x.shape, bits))
    assert np.array_equal(found.view(np.uint16), x.view(np.uint16))  # also the sign of 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_of_both_neighbours(dtype):
    """Down to a fraction of the smallest normal number."""
    x, bits = between(dtype)
    want = expected(x, dtype, bits)
    assert np.mean(want.astype(np.float32) != x.astype(dtype)) > 0.1  # not the nearest
    assert np.array_equal(rounded(x, dtype, bits).view(np.uint16), want.view(np.uint16))


def test_bfloat16_is_a_sum_of_bits():
    """Random bits are added below the last place and cut off."""
    x, bits = between(BFLOAT16)
    below = np.uint32(0xFFFF) - (bits.view(np.uint32) >> 16)
    want = (x.view(np.uint32) + below) >> 16
    assert np.array_equal(rounded(x, BFLOAT16, bits).view(np.uint16), want)


@pytest.mark.parametrize("name", ["torch", "jax", "jax.jit", "dask", "mlx"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_library(name, dtype):
    """The same as NumPy, but for what a library may take for 0."""
    x, bits = between(dtype)
    x = np.where(np.abs(x) < 2.0**-126, np.float32(0), x)
    name, _, compiled = name.partition(".")
    module = adapter(name)
    with module.session("float32"):
        y, z = module.asarray(x), module.asarray(bits)
        xp = namespace(y)
        narrow = module.asarray(np.zeros(1, dtype)).dtype

        def run(y, z):
            return stochastically_rounded(y, narrow, z, xp=xp)

        found = module.asnumpy((package("jax").jit(run) if compiled else run)(y, z))
    assert np.array_equal(found.view(np.uint16), rounded(x, dtype, bits).view(np.uint16))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_mean_is_the_number(dtype):
    """Exactly, over all random words of 16 bits."""
    x, _ = between(dtype, 200)
    x = x[np.abs(x) >= SMALLEST[dtype]]
    assert len(x) > 100
    for number in x:
        found = rounded(np.full(EVERY.shape, number), dtype, EVERY).astype(np.float64)
        assert np.mean(found) == number


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_mean_of_many_steps(dtype):
    """Steps of a hundredth of the spacing, which the nearest number would never take."""
    x = np.ones(2000, dtype)
    step = np.float32(0.01 * 2.0 ** (-7 if dtype == BFLOAT16 else -10))
    for t in range(1, 101):
        now = x.astype(np.float32) + step
        bits, _ = random_bits(Key(3, 0, t), now, xp=namespace(now))
        x = rounded(now, dtype, bits)
    moved = (x.astype(np.float64) - 1) / step
    assert abs(np.mean(moved) - 100) < 3 * np.std(moved) / len(x) ** 0.5
    assert np.std(moved) > 50


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_ends(dtype):
    top = np.float32(ml_dtypes.finfo(dtype).max)
    last = np.nextafter(top, np.float32(0)).astype(np.float64)
    half = (float(top) - float(np.nextafter(top.astype(dtype), np.zeros((), dtype)))) / 2
    first = np.float32(float(top) + half)  # what rounds to infinity
    for x, want in (
        (np.nextafter(first, np.float32(0)), top),
        (np.nextafter(top, np.float32(np.inf)), top),
        (first, np.inf),
        (np.inf, np.inf),
    ):
        with np.errstate(over="ignore"):
            for sign in (1, -1):
                found = rounded(np.full(len(EVERY), sign * x), dtype, EVERY).astype(np.float32)
                assert np.all(found == sign * want)
    assert set(rounded(np.full(len(EVERY), last), dtype, EVERY).astype(np.float32)) <= {
        top,
        top - np.float32(2 * half),
    }
    assert np.all(np.isnan(rounded(np.full(9, np.nan), dtype, EVERY[:9]).astype(np.float32)))


def test_far_below_the_smallest_number():
    """Probabilities under half of a random word's last place are 0, at any word."""
    found = rounded([2.0**-49, 2.0**-47], FLOAT16, [0, 0])
    assert found.astype(float).tolist() == [0, 2.0**-24]


def test_0d_and_empty():
    x = np.float32(1.001)
    assert rounded(x, FLOAT16, -1).shape == ()
    assert rounded(np.zeros((0, 2)), FLOAT16, np.zeros((0, 2))).shape == (0, 2)


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError, match="dtype must be bfloat16 or float16, got float32"):
        rounded(1.0, np.dtype("float32"), 0)
    x = np.ones(2)
    with pytest.raises(TypeError, match="x must be float32, got float64"):
        stochastically_rounded(x, FLOAT16, np.zeros(2, np.int32), xp=namespace(x))
