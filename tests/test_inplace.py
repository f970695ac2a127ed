"""Updates in place: NumPy in blocks on threads, and Dask persisted once a step."""

import pickle
import tracemalloc

import numpy as np
import optree
import pytest
from conftest import adapter, data, package, sums

import arrayopt as ao
from arrayopt import parity
from arrayopt.backends import _numpy_blocks
from arrayopt.backends import numpy as blocks


def pure(rule, params, grads, **hyper):
    opt = ao.Optimizer(rule, **hyper)
    state = opt.init(params)
    for g in grads:
        params, state = opt.step(params, g, state)
    return params, state


def equal(a, b):
    optree.tree_map(np.testing.assert_array_equal, a, b)


@pytest.mark.usefixtures("elementwise")
@pytest.mark.parametrize("block", [64, 512, 1 << 21])
@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_are_the_pure_step_to_the_bit(rule, block, threads, monkeypatch):
    monkeypatch.setattr(_numpy_blocks, "BLOCK", block)
    params, grads = data(shape=(9, 31))
    mine = optree.tree_map(np.array, params)
    opt = blocks.InPlace(mine, rule, engine="blocks", threads=threads, weight_decay=0.1)
    for g in grads:
        opt.step(g)
    want, state = pure(rule, params, grads, weight_decay=0.1)
    if sums(rule) and block < 1 << 21:  # its sums are added up block by block
        optree.tree_map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13), mine, want)
    else:
        equal((mine, opt.state.slots), (want, state.slots))
    assert opt.state.step == 10


LAYOUTS = {
    "C": lambda x: x,
    "Fortran": np.asfortranarray,
    "every second": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "backwards": lambda x: x[::-1].copy()[::-1],
}


@pytest.mark.parametrize("block", [64, 1 << 21])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_any_memory_layout(layout, block, monkeypatch):
    monkeypatch.setattr(_numpy_blocks, "BLOCK", block)
    params, grads = data(shape=(9, 31))
    mine = layout(np.array(params["w"]))
    opt = blocks.InPlace(mine, "adam", engine="blocks")
    for g in grads:
        opt.step(layout(np.array(g["w"])))
    equal(mine, pure("adam", params["w"], [g["w"] for g in grads])[0])


@pytest.mark.usefixtures("elementwise")
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0), (2, 3, 4, 5)])
@pytest.mark.parametrize("engine", blocks.ENGINES)
def test_any_shape(shape, rule, engine, monkeypatch):
    monkeypatch.setattr(_numpy_blocks, "BLOCK", 32)
    rng = np.random.default_rng(0)
    mine, g = np.asarray(rng.standard_normal(shape)), np.asarray(rng.standard_normal(shape))
    before = mine.copy()
    opt = blocks.InPlace(mine, rule, engine=engine)
    opt.step(g)
    want, _ = pure(rule, before, [g])
    own = parity.bound(rule, "torch", 1)[0] == "eps" and engine == "fused"
    np.testing.assert_allclose(mine, want, rtol=1e-15 if own else 0, atol=0)


def test_half_and_hyperparameters_that_broadcast(monkeypatch):
    monkeypatch.setattr(_numpy_blocks, "BLOCK", 64)
    params, grads = optree.tree_map(lambda x: x.astype(np.float16), data(shape=(9, 31)))
    lr = np.geomspace(1e-3, 1e-1, 31)
    mine = optree.tree_map(np.array, params)
    opt = blocks.InPlace(mine, "adam", lr=lr)
    for g in grads:
        opt.step(g)
    want, state = pure("adam", params, grads, lr=lr)
    equal((mine, opt.state.slots), (want, state.slots))


@pytest.mark.parametrize("engine", blocks.ENGINES)
def test_none_gradient_override_and_aliases(engine):
    w, b = np.ones(3), np.ones(2)
    opt = blocks.InPlace({"w": w, "b": b}, "adan", engine=engine, lr=0.1)
    g = np.ones(3)
    opt.step({"w": g, "b": None}, lr=0.0)
    assert w.tolist() == [1.0] * 3
    g[...] = 5.0  # the buffer is the caller's
    assert opt.state.slots.g["w"].tolist() == [1.0] * 3
    assert not np.shares_memory(opt.state.slots.m["w"], opt.state.slots.v["w"])


@pytest.mark.usefixtures("elementwise")
@pytest.mark.parametrize("engine", blocks.ENGINES)
@pytest.mark.parametrize("how", ["skip", "raise"])
def test_nonfinite(how, rule, engine):
    params, grads = data(steps=2)
    mine = optree.tree_map(np.array, params)
    opt = blocks.InPlace(mine, rule, nonfinite=how, engine=engine)
    opt.step(grads[0])
    before = optree.tree_map(np.array, (mine, opt.state))
    bad = {"w": grads[1]["w"], "b": [np.full(7, np.nan)]}
    if how == "skip":
        opt.step(bad)
    else:
        with pytest.raises(FloatingPointError, match=rule + r": the gradient of .*'b'"):
            opt.step(bad)
    equal((mine, opt.state), before)


# --- refusals


def test_refused_parameters():
    x = np.ones(8)
    frozen = np.ones(3)
    frozen.flags.writeable = False
    for params, text in [
        ({"a": frozen}, r"adam: \['a'\] is read-only"),
        ({"a": x, "b": x}, r"adam: \['a'\] and \['b'\] are the same array"),
        ({"a": x[:5], "b": x[3:]}, r"adam: \['a'\] and \['b'\] share memory"),
    ]:
        with pytest.raises(ValueError, match=text):
            blocks.InPlace(params, "adam")
    with pytest.raises(TypeError, match="must be a NumPy array"):
        blocks.InPlace(adapter("torch").asarray(x), "adam")
    blocks.InPlace({"a": x[::2], "b": x[1::2]}, "adam")  # interleaved, but apart


def test_overlap_behind_a_long_array_and_within_one():
    base = np.zeros(40)
    b, c = base[1::2][2:8], base[1::2][4:10]
    with pytest.raises(ValueError, match=r"'b'\] and \['c'\] share memory"):
        blocks.InPlace({"a": base[::2], "b": b, "c": c}, "sgd")
    steps = np.lib.stride_tricks.as_strided(np.ones(4), (3, 2), (8, 8))
    with pytest.raises(ValueError, match="elements of params share memory"):
        blocks.InPlace(steps, "sgd")
    blocks.InPlace(np.ones((4, 6))[::2, ::-3], "sgd")


def test_read_only_since_changes_nothing():
    a, b = np.ones(3), np.ones(3)
    opt = blocks.InPlace({"a": a, "b": b}, "adam")
    opt.state.slots.v["b"].flags.writeable = False
    with pytest.raises(ValueError, match=r"adam: \['b'\] or a slot of it is read-only"):
        opt.step({"a": a.copy(), "b": b.copy()})
    assert (a == 1).all()
    assert opt.state.step == 0


def test_copies_go_on_apart():
    opt = blocks.InPlace(np.ones(3), "adam", lr=0.1)
    other = pickle.loads(pickle.dumps(opt))
    other.step(np.ones(3))
    assert opt.params.tolist() == [1.0] * 3
    np.testing.assert_allclose(other.params, 0.9)


def test_refused_gradients_change_nothing():
    x = np.arange(8.0)
    opt = blocks.InPlace({"a": x[:4]}, "adam")
    with pytest.raises(ValueError, match=r"'a'.* share memory"):
        opt.step({"a": x[2:6]})
    with pytest.raises(ValueError, match=r"same array|share memory"):
        opt.step({"a": opt.params["a"]})
    with pytest.raises(ValueError, match="must have shape"):
        opt.step({"a": np.ones(3)})
    assert x.tolist() == list(range(8))
    assert opt.state.step == 0


# --- cost


@pytest.mark.parametrize(("engine", "most"), [("blocks", 16e6), ("fused", 2e6)])
@pytest.mark.parametrize("name", ["mada", "maxva_madam", "adam"])  # the most slots, and the usual
def test_extra_memory_at_10_million_elements(name, engine, most):
    n = 10_000_000
    p, g = np.ones(n, np.float32), np.ones(n, np.float32)
    opt = blocks.InPlace(p, name, threads=2, engine=engine)
    tracemalloc.start()
    opt.step(g)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < most


# --- Dask


def test_dask_is_lazy_and_persisted_once_a_step(rule):
    dask = package("dask")
    library = adapter("dask")
    params, grads = data(steps=2)
    computed = []

    def counting(graph, keys, **kwargs):
        computed.append(keys)
        return dask.local.get_sync(graph, keys, **kwargs)

    p, gs = optree.tree_map(lambda x: library.asarray(x).rechunk(3), (params, grads))
    with dask.config.set(scheduler=counting):
        lazy = ao.Optimizer(rule)
        lazy.step(p, gs[0], lazy.init(p))
        assert computed == []
        opt = library.Optimizer(rule)
        state = opt.init(p)
        computed.clear()
        sizes = []
        for g in gs:
            p, state = opt.step(p, g, state)
            sizes.append(sum(len(x.__dask_graph__()) for x in optree.tree_leaves(p)))
        assert len(computed) == 2
        assert sizes[0] == sizes[1]  # graphs do not grow
        got = optree.tree_map(library.asnumpy, p)
    want, _ = pure(rule, params, grads)
    optree.tree_map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), got, want)
