"""The dtype of slots: ``state_dtype``."""

import pickle

import numpy as np
import optree
import pytest
from conftest import adapter, data, package

import arrayopt as ao
from arrayopt._namespace import dtype_name
from arrayopt._step import is_off

HALVES = ("float16", "bfloat16")


def walk(opt, params, grads, state=None):
    state = opt.init(params) if state is None else state
    for g in grads:
        params, state = opt.step(params, g, state)
    return params, state


def cast(tree, dtype):
    return optree.tree_map(lambda x: x.astype(dtype), tree)


def dtypes(slots):
    return {k: {dtype_name(x.dtype) for x in optree.tree_leaves(s)} or None
            for k, s in zip(slots._fields, slots, strict=True)}  # fmt: skip


def same(a, b):
    for x, y in zip(optree.tree_leaves(a), optree.tree_leaves(b), strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


def halved(x, dtype):
    """Rounded to the nearest number of a narrow dtype, in NumPy and float32."""
    if dtype == "float16":
        return x.astype(np.float16).astype(np.float32)
    bits = x.astype(np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)).view(np.float32)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
def test_every_new_slot_is_rounded_and_nothing_else(name, dtype):
    """Beside a transcription of Adam in float32 whose moments are rounded after each step."""
    package("ml_dtypes")
    library = adapter(name)
    params, grads = cast(data(steps=20), np.float32)
    opt = ao.Optimizer("adam", lr=0.1, state_dtype=dtype)
    m = v = np.zeros_like(params["w"])
    p, f = params["w"], np.float32
    for t, g in enumerate((g["w"] for g in grads), 1):
        m, v = f(0.9) * m + f(0.1) * g, f(0.999) * v + f(0.001) * (g * g)
        p = p - f(0.1 / (1 - 0.9**t)) * m / (np.sqrt(v / f(1 - 0.999**t)) + f(1e-8))
        m, v = halved(m, dtype), halved(v, dtype)
    with library.session("float32"):
        mine, *gs = (optree.tree_map(library.asarray, t) for t in (params, *grads))
        got, state = walk(opt, mine, gs)
        assert dtypes(state.slots) == {"m": {dtype}, "v": {dtype}} == dtypes(opt.init(mine).slots)
        got, slots = (optree.tree_map(library.asnumpy, x) for x in (got, state.slots))
    assert got["w"].dtype == np.float32
    assert np.max(np.abs(got["w"] - p)) <= 1e-6 * np.max(np.abs(p)) * (name == "jax")
    one = 2.0 ** (-7 if dtype == "bfloat16" else -10)  # JAX may round to the other side
    off = np.abs(slots.m["w"].astype(f) - m)
    assert np.all(off <= one * np.abs(m) * (name == "jax"))


def test_which_slots():
    params, grads = cast(data(steps=3), np.float32)
    for given, want in (
        (None, ("float32", "float32")),
        ("float64", ("float64", "float64")),
        ({"v": "float16"}, ("float32", "float16")),
        ({"m": "float16", "v": "float64"}, ("float16", "float64")),
    ):
        _, state = walk(ao.Optimizer("adam", state_dtype=given), params, grads)
        assert dtypes(state.slots) == dict(zip("mv", ({x} for x in want), strict=True))
    opt = ao.Optimizer("novograd", state_dtype="float16")  # v is one value for a parameter
    assert dtypes(opt.init(params).slots) == {"m": {"float16"}, "v": {"float32"}}
    opt = ao.Optimizer("novograd", state_dtype={"v": "float16"})
    assert dtypes(walk(opt, params, grads)[1].slots) == {"m": {"float32"}, "v": {"float16"}}
    half, _ = cast(data(steps=1), np.float16)
    assert dtypes(ao.Optimizer("adam", state_dtype="float16").init(half).slots)["m"] == {"float16"}
    opt = ao.Optimizer("sgd", state_dtype="float16")
    assert is_off(walk(opt, params, grads)[1].slots.m)


def test_wider_slots_are_no_other_numbers():
    params, grads = cast(data(), np.float32)
    got, state = walk(ao.Optimizer("adam", state_dtype="float64"), params, grads)
    want, plain = walk(ao.Optimizer("adam"), params, grads)
    same((got, cast(state.slots, np.float32)), (want, plain.slots))


@pytest.mark.parametrize("rule", ["adam", "amsgrad", "lamb", "adam+kahan"])
@pytest.mark.parametrize("engine", [None, "blocks", "eager"])
def test_in_place(rule, engine):
    from arrayopt.backends.numpy import InPlace

    given = {"m": "float16", "v": "float64"}
    params, grads = cast(data(shape=(40, 7)), np.float32)
    mine = optree.tree_map(np.array, params)
    opt = InPlace(mine, rule, engine=engine, state_dtype=given)
    for g in grads:
        opt.step(g)
    want, state = walk(ao.Optimizer(rule, state_dtype=given), params, grads)
    assert dtypes(opt.state.slots) == dtypes(state.slots)
    if rule != "lamb":  # whose sums are in another order
        same((mine, opt.state.slots), (want, state.slots))
        return
    for a, b in zip(optree.tree_leaves(mine), optree.tree_leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_bfloat16_in_place():
    from arrayopt.backends.numpy import InPlace

    package("ml_dtypes")
    params, grads = cast(data(), np.float32)
    want = walk(ao.Optimizer("adam", state_dtype="bfloat16"), params, grads)
    for engine in (None, "eager"):
        mine = optree.tree_map(np.array, params)
        opt = InPlace(mine, "adam", engine=engine, state_dtype="bfloat16")
        for g in grads:
            opt.step(g)
        same((mine, opt.state.slots), (want[0], want[1].slots))


def test_under_jit():
    jax = package("jax")
    params, grads = optree.tree_map(jax.numpy.asarray, cast(data(), np.float32))
    opt = ao.Optimizer("adam", state_dtype={"m": "bfloat16"})
    step = jax.jit(opt.step)
    state = opt.init(params)
    for g in grads:
        params, state = step(params, g, state)
    assert step._cache_size() == 1
    assert dtypes(state.slots) == {"m": {"bfloat16"}, "v": {"float32"}}
    with pytest.raises(ValueError, match="adam: state_dtype is float64, which jax does not have"):
        ao.Optimizer("adam", state_dtype="float64").init(params)


@pytest.mark.parametrize("given", ["bfloat16", {"m": "float16"}])
def test_it_is_kept(given, tmp_path):
    package("ml_dtypes")
    params, grads = cast(data(), np.float32)
    opt = ao.Optimizer("adam", state_dtype=given)
    assert opt.options()["state_dtype"] == given
    assert f"state_dtype={given!r}" in repr(opt)
    want = walk(opt, params, grads)
    half = walk(opt, params, grads[:5])
    again = pickle.loads(pickle.dumps(opt))
    same(walk(again, half[0], grads[5:], half[1]), want)
    ao.save(tmp_path / "run", opt, *half)
    loaded = ao.load(tmp_path / "run", namespace="numpy")
    assert loaded.optimizer.options() == opt.options()
    assert dtypes(loaded.state.slots) == dtypes(half[1].slots)
    same(walk(loaded.optimizer, loaded.params, grads[5:], loaded.state), want)
    torch = adapter("torch")
    there = ao.load(tmp_path / "run", namespace="torch")
    same(optree.tree_map(torch.asnumpy, there.state.slots), half[1].slots)


def test_a_sweep_and_a_partition_have_it():
    params, grads = cast(data(steps=4), np.float32)
    rates = np.asarray([0.1, 0.2])
    sweep = ao.Sweep("adam", lr=rates, state_dtype={"v": "float16"})
    state, p = sweep.init(sweep.tile(params)), sweep.tile(params)
    for g in grads:
        p, state = sweep.step(p, sweep.tile(g), state)
    want = walk(ao.Optimizer("adam", lr=0.2, state_dtype={"v": "float16"}), params, grads)
    same(optree.tree_map(lambda x: x[1], (p, state.slots)), (want[0], want[1].slots))


@pytest.mark.parametrize("engine", ["fused", "eager"])
@pytest.mark.parametrize("given", ["bfloat16", {"m": "float16", "v": "float64"}])
def test_a_torch_class_has_it(engine, given):
    torch = package("torch")
    library = adapter("torch")
    params, grads = optree.tree_map(library.asarray, cast(data(), np.float32))
    want = walk(ao.Optimizer("adam", state_dtype=given), params, grads)
    z = torch.view_as_complex(torch.ones(3, 2))  # whose halves are no complex tensors

    def made(values, z):
        mine = [torch.nn.Parameter(x.clone()) for x in (*optree.tree_leaves(values), z)]
        return mine, library.Adam(mine, engine=engine, state_dtype=given)

    def train(mine, opt, grads):
        for g in grads:
            for p, x in zip(mine, (*optree.tree_leaves(g), torch.ones_like(z)), strict=True):
                p.grad = x
            opt.step()

    mine, opt = made(params, z)
    train(mine, opt, grads[:5])
    values = optree.tree_unflatten(optree.tree_structure(params), [p.data for p in mine[:2]])
    mine, again = made(values, mine[2].data)
    again.load_state_dict(pickle.loads(pickle.dumps(opt.state_dict())))
    train(mine, again, grads[5:])
    for k, (p, q) in enumerate(zip(mine, optree.tree_leaves(want[0]), strict=False)):
        assert torch.equal(p, q)
        for name, slot in zip("mv", want[1].slots, strict=True):
            there = optree.tree_leaves(slot)[k]
            assert again.state[p][name].dtype == there.dtype
            assert torch.equal(again.state[p][name], there)
    real = {k: dtype_name(x.dtype.to_real()) for k, x in again.state[mine[2]].items()}
    names = dict.fromkeys("mv", given) if isinstance(given, str) else given
    assert real == {"step": "float32"} | names
    with pytest.raises(ValueError, match="adam: state_dtype names the slot 'w'"):
        library.Adam(mine, state_dtype={"w": "float16"})


def test_errors():
    for given, text in (
        ("float8", r"adam: state_dtype must be one of float16, .*float64, blocks8, got 'float8'"),
        ({"w": "float16"}, r"adam: state_dtype names the slot 'w'; its slots are m, v"),
        ({"m": "half"}, r"adam: state_dtype of slot 'm' must be one of .*, got 'half'"),
    ):
        with pytest.raises(ValueError, match=text):
            ao.Optimizer("adam", state_dtype=given)
    with pytest.raises(ValueError, match=r"polyak_sgd: state_dtype must be one of .*, got 'int8'"):
        ao.Optimizer("polyak_sgd", state_dtype="int8")  # which has no slots
    with pytest.raises(TypeError, match=r"adam: state_dtype must be a dtype's name, a dict .* 16"):
        ao.Optimizer("adam", state_dtype=16)
    strict = adapter("strict")
    with strict.session("float32"), pytest.raises(ValueError, match="which array_api_strict does"):
        ao.Optimizer("adam", state_dtype="float16").init(strict.asarray(np.ones(2, np.float32)))
