"""Random numbers: the authors' known answers, the same bits everywhere, and distributions."""

import numpy as np
import pytest
import threefry as paper
from conftest import adapter, package

from arrayopt import _random
from arrayopt._namespace import namespace
from arrayopt._random import Key, bits, normal, threefry, uniform

KEYS = [Key(0, 0, 1), Key(2**32 - 1, 3, 2**31 - 1), Key(2**31, 2**32 - 1, 7)]
SHAPE = (3, 4, 5)
CASES = list(zip([*KEYS, KEYS[0]], [SHAPE, (7,), (), (0, 3)], strict=True))
N = 100_000


def int32(x):
    return np.asarray(x, np.uint32).view(np.int32)


def signed(x):
    return int(int32([x])[0])


def like(module, shape=SHAPE, dtype="float32"):
    x = module.asarray(np.zeros(shape, dtype))
    return x, namespace(x)


def words(module, found):
    return [module.asnumpy(x).view(np.uint32) for x in found]


def draw(function, key, shape=(N,), dtype="float64"):
    x = np.zeros(shape, dtype)
    return function(key, x, xp=namespace(x))


@pytest.mark.parametrize(("key", "counter", "want"), paper.VECTORS)
def test_known_answers(backend, key, counter, want):
    assert [x[0] for x in paper.threefry(key, counter)] == list(want)
    arrays = [backend.asarray(int32([x])) for x in counter]
    xp = namespace(arrays[0])
    for k in ([signed(x) for x in key], [backend.asarray(int32([x])) for x in key]):
        found = words(backend, threefry(k, arrays, xp=xp))
        assert [x[0] for x in found] == list(want)


def test_the_transcription_is_jaxs_generator():
    package("jax")
    from jax.extend.random import threefry_2x32

    rng = np.random.default_rng(0)
    key, counter = rng.integers(2**32, size=(2, 2), dtype=np.uint32)
    more = rng.integers(2**32, size=(2, 50), dtype=np.uint32)
    for c in (counter.reshape(2, 1), more):
        want = np.asarray(threefry_2x32(key, c.ravel())).reshape(c.shape)
        assert np.array_equal(paper.threefry(tuple(map(int, key)), c), want)


@pytest.mark.parametrize(("key", "shape"), CASES)
def test_the_same_bits_everywhere(backend, key, shape):
    x, xp = like(backend, shape)
    found = bits(key, x, xp=xp)
    assert all(tuple(a.shape) == shape and str(a.dtype).endswith("int32") for a in found)
    assert np.array_equal(words(backend, found), paper.bits(*key, shape))


@pytest.mark.parametrize("name", ["numpy", "strict", "torch", "jax", "dask"])
def test_float64(name):
    key, module = KEYS[1], adapter(name)
    with module.session("float64"):
        x, xp = like(module, dtype="float64")
        u, n = (module.asnumpy(f(key, x, xp=xp)) for f in (uniform, normal))
    assert u.dtype == n.dtype == "float64"
    assert np.array_equal(u, paper.uniform(*key, SHAPE))
    assert np.max(np.abs(n - paper.normal(*key, SHAPE))) < 1e-14


def test_float32_is_the_leading_bits(backend):
    key, (x, xp) = KEYS[2], like(backend, (30, 40))
    u, n = (backend.asnumpy(f(key, x, xp=xp)) for f in (uniform, normal))
    assert u.dtype == n.dtype == "float32"
    assert np.array_equal(u, np.floor(paper.uniform(*key, u.shape) * 2**24) / 2**24)
    assert np.max(np.abs(n - paper.normal(*key, n.shape))) < 4e-6


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["torch", "jax", "mlx"])
def test_half_precision_gets_float32(name, dtype):
    module = adapter(name)
    half, xp = like(module)
    half = xp.astype(half, getattr(xp, dtype))
    found = module.asnumpy(uniform(KEYS[0], half, xp=xp))
    assert found.dtype == "float32"
    assert np.array_equal(found, draw(uniform, KEYS[0], SHAPE, "float32"))


@pytest.mark.parametrize(("dtype", "most"), [("float32", 6.764), ("float64", 8.652)])
def test_the_largest(monkeypatch, dtype, most):
    x = np.zeros(2, dtype)

    def extremes(key, like, *, xp):
        return np.asarray([0, -1], np.int32), np.asarray([0, -1], np.int32)

    monkeypatch.setattr(_random, "bits", extremes)
    large, small = normal(KEYS[0], x, xp=namespace(x))
    assert abs(large - most) < 1e-3
    assert abs(small) < 1e-3
    low, high = uniform(KEYS[0], x, xp=namespace(x))
    assert low == 0
    assert high == 1 - np.finfo(dtype).epsneg


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_words_that_are_arrays(name):
    module = adapter(name)
    x, xp = like(module)
    want = paper.bits(5, 2, 9, SHAPE)
    for dtype in (xp.int32, xp.float32):
        key = Key(*(xp.asarray(k, dtype=dtype) for k in (5, 2, 9)))
        assert np.array_equal(words(module, bits(key, x, xp=xp)), want)
        rows = key._replace(step=xp.reshape(xp.arange(7, 10, dtype=dtype), (3, 1, 1)))
        assert np.array_equal(words(module, bits(rows, x, xp=xp))[0][2], want[0][2])


@pytest.mark.parametrize("x64", [False, True])
def test_under_jit(x64):
    jax = package("jax")
    with jax.enable_x64(x64):
        x, xp = like(adapter("jax"))

        @jax.jit
        def both(step):
            return bits(Key(5, 2, step), x, xp=xp), normal(Key(5, 2, step), x, xp=xp)

        found, n = both(jax.numpy.asarray(9.0, dtype="float32"))
    assert np.array_equal(words(adapter("jax"), found), paper.bits(5, 2, 9, SHAPE))
    assert np.max(np.abs(n - paper.normal(5, 2, 9, SHAPE))) < 1e-5


def test_under_vmap():
    torch = package("torch")
    x, xp = like(adapter("torch"))
    steps = torch.func.vmap(lambda step: bits(Key(5, 2, step), x, xp=xp))(torch.arange(8, 10))
    many = torch.func.vmap(lambda x: bits(Key(5, 2, 9), x, xp=xp))(torch.zeros(2, *SHAPE))
    for found in (steps, many):
        assert np.array_equal(
            [a[1].numpy().view(np.uint32) for a in found], paper.bits(5, 2, 9, SHAPE)
        )


def test_chunks_are_those_of_the_array():
    da = package("dask.array")
    x = da.zeros((10, 6), chunks=(4, 5))
    a, _ = bits(Key(5, 2, 9), x, xp=namespace(x))
    assert a.chunks == x.chunks
    assert np.array_equal(a.compute().view(np.uint32), paper.bits(5, 2, 9, (10, 6))[0])


def test_shards_are_those_of_the_array():
    dist = package("torch.distributed")
    from torch import equal, zeros
    from torch.distributed.tensor import DTensor, Replicate, Shard, init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    whole = zeros(6, 4)
    want = normal(KEYS[1], whole, xp=namespace(whole))
    dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    try:
        mesh = init_device_mesh("cpu", (2,))
        for how, mine in (
            (Shard(0), want[3:]),
            (Shard(1), want[:, 2:]),
            (Replicate(), want),
        ):
            x = DTensor.from_local(zeros(mine.shape), mesh, [how], run_check=False)
            found = normal(KEYS[1], x, xp=namespace(x))
            assert found.placements == (how,)
            assert equal(found.to_local(), mine)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_distributions(dtype):
    stats = package("scipy.stats")
    u, n = (draw(f, Key(11, 0, 1), dtype=dtype) for f in (uniform, normal))
    assert stats.kstest(u, "uniform").pvalue > 0.01
    assert stats.kstest(n, "norm").pvalue > 0.01
    # standard errors of a normal sample's moments: 1, 2**0.5, 6**0.5, 24**0.5 over N**0.5
    for power, mean, error in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(np.mean(n.astype(float) ** power) - mean) < 3 * (error / N) ** 0.5


def test_independence():
    base = Key(11, 0, 1)
    keys = [base, Key(12, 0, 1), Key(11, 1, 1), Key(11, 0, 2), Key(0, 11, 1), Key(1, 0, 11)]
    rows = [draw(normal, k) for k in keys]
    rows += [np.roll(rows[0], k) for k in (1, 2, 512)]
    for x in (np.asarray(rows), np.abs(rows)):
        off = np.corrcoef(x) - np.eye(len(rows))
        assert np.max(np.abs(off)) < 4 / N**0.5
    a, b = draw(bits, base)
    flips = int(np.sum(np.bitwise_count((a ^ b).view(np.uint32))))
    assert abs(flips - 16 * N) < 3 * (8 * N) ** 0.5
