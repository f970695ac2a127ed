"""Slots of 8 bits: ``state_dtype="blocks8"``."""

import numpy as np
import pytest
from conftest import adapter

import arrayopt as ao
from arrayopt._blocks8 import BLOCK, decoded, encoded, length
from arrayopt._namespace import namespace
from arrayopt.backends.numpy import InPlace

VALUES = np.sort((np.arange(128) / 127.0) ** 4)  # of the codes, in float64


def values(seed=0, n=3 * BLOCK + 7):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n) * 10.0 ** rng.uniform(-4, 3, n)
    x[:3] = 0.0
    return x.astype(np.float32)


def words(n, seed=1):
    return np.random.default_rng(seed).integers(-(2**31), 2**31, n).astype(np.int32)


def bounds(x):
    """The numbers next to each element, of those that its block can hold, from the definition."""
    low, high = [], []
    for start in range(0, len(x), BLOCK):
        block = np.abs(x[start : start + BLOCK].astype(np.float64))
        scale = 2.0 ** np.ceil(np.log2(block.max()))
        i = np.searchsorted(VALUES * scale, block * (1 + 1e-6), side="right") - 1
        low += list(VALUES[i] * scale)
        high += list(VALUES[np.minimum(i + 1, 127)] * scale)
    return np.array(low), np.array(high)


def test_each_element_becomes_a_neighbour():
    x, xp = values(), namespace(np.ones(1))
    low, high = bounds(x)
    for bits in (None, words(len(x))):
        codes = encoded(x, bits, xp=xp)
        assert codes.dtype == np.int8
        assert codes.shape == (length(x.shape),) == (len(x) + 4,)
        y = decoded(codes, x.shape, np.float64, xp=xp)
        assert np.all((np.sign(y) == np.sign(x)) | (y == 0))
        off = np.minimum(np.abs(np.abs(y) - low), np.abs(np.abs(y) - high))
        assert np.all(off <= 1e-6 * high)
        if bits is None:  # the nearer one
            assert np.all(np.abs(y - x) <= (high - low) / 2 * (1 + 1e-5))
        again = encoded(y.astype(np.float32), words(len(x), 2), xp=xp)
        stays = decoded(again, x.shape, np.float64, xp=xp)
        np.testing.assert_allclose(stays, y, rtol=1e-6, atol=0)  # what can be held is held


def test_the_mean_is_right():
    x, xp = values(), namespace(np.ones(1))
    low, high = bounds(x)
    draws = [decoded(encoded(x, words(len(x), k), xp=xp), x.shape, np.float64, xp=xp)
             for k in range(2000)]  # fmt: skip
    spread = (high - low) / 2 / np.sqrt(2000)
    assert np.all(np.abs(np.mean(draws, axis=0) - x) <= 5 * spread + 1e-6 * np.abs(x))


def test_the_ends():
    x = np.array([np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1e-30], np.float32)
    with np.errstate(over="ignore"):  # as in every step
        xp = namespace(x)
        y = decoded(encoded(x, None, xp=xp), x.shape, np.float32, xp=xp)
        assert np.isnan(y[:3]).all()
        np.testing.assert_allclose(y[3:5], x[3:5], rtol=0.04)
        assert y[5] == 0
        for n in (0, 1, BLOCK, BLOCK + 1):
            x = np.full(n, 2.0**-126, np.float32)
            np.testing.assert_array_equal(decoded(encoded(x, None, xp=xp), (n,), x.dtype, xp=xp)
                                          > 0, np.ones(n, bool))  # fmt: skip


def run(opt, params, steps, to=np.asarray, wrap=lambda f: f):
    rng = np.random.default_rng(3)
    params = {k: to(x) for k, x in params.items()}
    state, step = opt.init(params), wrap(opt.step)
    for _ in range(steps):
        grads = {k: to(rng.standard_normal(params[k].shape).astype(np.float32)) for k in PARAMS}
        params, state = step(params, grads, state)
    return params, state


PARAMS = {"w": values(n=150).reshape(10, 15), "b": values(n=7), "s": np.ones((), np.float32)}


@pytest.mark.parametrize("backend", ["strict", "torch", "jax", "dask"])
def test_the_codes_are_the_same_in_every_library(backend):
    module = adapter(backend)
    with module.session("float32"):
        opt = ao.Optimizer("adam", lr=0.01, state_dtype={"v": "blocks8"})
        want, held = run(opt, PARAMS, 2)
        wrap = module.compiled if backend == "jax" else lambda f: f
        got, state = run(opt, PARAMS, 2, module.asarray, wrap)
        for k, x in held.slots.v.items():
            assert x.dtype == np.int8
            codes = module.asnumpy(state.slots.v[k])
            assert np.mean(codes != x) <= (0.02 if backend == "jax" else 0)  # it may contract
            np.testing.assert_allclose(module.asnumpy(got[k]), want[k], rtol=1e-3)


def test_in_place_by_torch_and_from_a_file(tmp_path):
    torch = pytest.importorskip("torch")
    opt = ao.Optimizer("adam", lr=0.01, state_dtype="blocks8")
    want, state = run(opt, PARAMS, 6)
    rng = np.random.default_rng(3)
    grads = [{k: rng.standard_normal(x.shape).astype(np.float32) for k, x in PARAMS.items()}
             for _ in range(6)]  # fmt: skip
    mine = {k: np.array(x) for k, x in PARAMS.items()}
    keys = sorted(PARAMS)
    tensors = [torch.nn.Parameter(torch.tensor(PARAMS[k])) for k in keys]
    made = adapter("torch").Adam
    theirs, ours = made(tensors, lr=0.01, state_dtype="blocks8"), None
    ours = InPlace(mine, "adam", lr=0.01, state_dtype="blocks8")
    for t, g in enumerate(grads):
        ours.step(g)
        for p, k in zip(tensors, keys, strict=True):
            p.grad = torch.tensor(g[k])
        theirs.step()
        if t == 2:
            kept = theirs.state_dict()
            theirs = made(tensors, lr=0.01, state_dtype="blocks8")
            theirs.load_state_dict(kept)
    for p, k in zip(tensors, keys, strict=True):
        np.testing.assert_array_equal(mine[k], want[k])
        np.testing.assert_array_equal(p.detach().numpy(), want[k])
    ao.save(tmp_path / "run", opt, want, state)
    again, params, held = ao.load(tmp_path / "run", namespace="numpy")
    assert again.state_dtype == "blocks8"
    for a, b in ((held.slots.m, state.slots.m), (held.slots.v, state.slots.v)):
        for k in keys:
            np.testing.assert_array_equal(a[k], b[k])
    new, _ = again.step(params, grads[0], held)
    np.testing.assert_array_equal(new["w"], opt.step(want, grads[0], state)[0]["w"])


def test_a_mean_of_few_bits_does_not_stall():
    opt = ao.Optimizer("adam", lr=0.0, b2=0.99, state_dtype={"v": "blocks8"})
    params, state = np.ones(BLOCK, np.float32), opt.init(np.ones(BLOCK, np.float32))
    seen = []
    for g in (1.0, 0.5):
        for _ in range(700):
            _, state = opt.step(params, np.full(BLOCK, g, np.float32), state)
        v = decoded(state.slots.v, (BLOCK,), np.float64, xp=namespace(params))
        seen.append(float(v.mean()))
    assert seen == pytest.approx([1 - 0.99**700, 0.25], rel=0.05)


def test_errors():
    for bad in ("blocks9", {"m": "int8"}):
        with pytest.raises(
            ValueError, match=r"adam: state_dtype.* must be one of .*, blocks8, got"
        ):
            ao.Optimizer("adam", state_dtype=bad)
    with pytest.raises(ValueError, match=r"shampoo: state_dtype of slot '.*' cannot be blocks8"):
        ao.Optimizer("shampoo", state_dtype="blocks8").init(np.ones((3, 4), np.float32))
    with pytest.raises(TypeError, match="no engine 'fused': a slot is held in 8 bits"):
        InPlace(np.ones(3, np.float32), "adam", engine="fused", state_dtype="blocks8")
    opt, params = ao.Optimizer("adam", state_dtype="blocks8"), np.ones(3, np.float32)
    with pytest.raises(
        ValueError, match=r"adam: slot 'm' of params must have shape \(3,\), got \(4,\)"
    ):
        ao.Optimizer("adam").step(params, params, opt.init(params))
    with pytest.raises(
        ValueError, match=r"adam: slot 'm' of params must have shape \(4,\), got \(3,\)"
    ):
        opt.step(params, params, ao.Optimizer("adam").init(params))
