"""The optimizer: trees, hyperparameters, options, purity, tracing."""

import copy
import pickle
from typing import NamedTuple

import numpy as np
import optree
import pytest
from conftest import adapter, data, package, sums

import arrayopt as ao
from arrayopt._schema import each_step


def walk(opt, params, grads, **override):
    state = opt.init(params)
    for g in grads:
        params, state = opt.step(params, g, state, **override)
    return params, state


class Pair(NamedTuple):
    w: object
    b: object


@optree.register_pytree_node_class(namespace="arrayopt")
class Registered:
    def __init__(self, w, b):
        self.w, self.b = w, b

    def __tree_flatten__(self):
        return (self.w, self.b), None, ("w", "b")

    @classmethod
    def __tree_unflatten__(cls, _, children):
        return cls(*children)

    def tree_flatten(self):
        return (self.w, self.b), None, ("w", "b")

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


@optree.dataclasses.dataclass(namespace="arrayopt")
class Data:
    w: object
    b: object


TREES = {
    "dict": lambda w, b: {"w": w, "b": b},
    "list": lambda w, b: [w, b],
    "tuple": lambda w, b: (w, b),
    "namedtuple": Pair,
    "nested": lambda w, b: {"x": [w, {"y": (b,)}], "none": None},
    "dataclass": Data,
    "registered": Registered,
}


@pytest.mark.parametrize("make", TREES.values(), ids=TREES)
def test_any_tree_steps_like_its_leaves(make):
    params, grads = data()
    w, b = params["w"], params["b"][0]
    opt = ao.Optimizer("adam")
    got, state = walk(opt, make(w, b), [make(g["w"], g["b"][0]) for g in grads])
    want = make(*(walk(opt, x, [g[k] if k == "w" else g[k][0] for g in grads])[0]
                  for k, x in (("w", w), ("b", b))))  # fmt: skip
    assert type(got) is type(make(w, b))
    a, b = (optree.tree_leaves(t, namespace="arrayopt") for t in (got, want))
    assert len(a) == len(b) == 2
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
    assert type(state.slots.m) is type(got)


def test_state_is_a_namedtuple_of_trees(rule):
    params, grads = data(steps=2)
    opt = ao.Optimizer(rule)
    state = opt.init(params)
    assert state._fields == ("step", "shared", "slots")
    assert state.step == 0
    assert type(state.slots) is opt.rule.State
    assert opt.step(params, grads[0], state)[1].step == 1


def test_rule_by_name_by_module_and_by_the_users_own():
    class Mine:
        class State(NamedTuple):
            pass

        @staticmethod
        def init(param, *, xp):
            return Mine.State()

        @staticmethod
        def update(param, grad, state, t, *, rate: ao.Rate = 0.5, xp):
            return param - rate * grad, state

    assert ao.Optimizer("adamax").rule is ao.adamax is ao.Optimizer(ao.adamax).rule
    p, _ = walk(ao.Optimizer(Mine, rate=0.25), np.ones(2), [np.ones(2)])
    assert p.tolist() == [0.75, 0.75]
    with pytest.raises(ValueError, match=r"Mine: rate must be in \[0, inf\), got -1"):
        ao.Optimizer(Mine, rate=-1)


def test_none_gradient_leaves_parameter_and_slots_alone(rule):
    params, grads = data(steps=3)
    opt = ao.Optimizer(rule)
    p, s = opt.step(params, grads[0], opt.init(params))
    q, z = opt.step(p, {"w": grads[1]["w"], "b": [None]}, s)
    assert q["b"][0] is p["b"][0]
    for before, after in zip(s.slots, z.slots, strict=True):
        if not isinstance(before, tuple):
            assert after["b"][0] is before["b"][0]
    assert z.step == 2
    assert not np.array_equal(q["w"], p["w"])


def test_inputs_are_not_modified_and_not_kept(rule, backend):
    if backend.__name__.endswith(("jax", "mlx")):
        pytest.skip("arrays of this library cannot be modified")
    params, grads = data(steps=2)
    as_np = optree.tree_map(lambda x: x.astype(np.float32), (params, grads))
    p, gs = optree.tree_map(backend.asarray, as_np)
    opt = ao.Optimizer(rule)
    state = opt.init(p)
    first, s1 = backend.settle(opt.step(p, gs[0], state))
    kept = optree.tree_map(lambda x: np.array(backend.asnumpy(x)), (first, s1.slots))
    again = optree.tree_map(backend.asnumpy, (p, gs))
    optree.tree_map(np.testing.assert_array_equal, again, as_np)
    if backend.__name__.endswith("dask"):
        return
    for g in optree.tree_leaves(gs[0]):  # the user reuses the buffers
        g[...] = 7.0
    optree.tree_map(
        lambda x, y: np.testing.assert_array_equal(backend.asnumpy(x), y), (first, s1.slots), kept
    )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtype_is_kept_and_half_has_float32_state(rule, dtype):
    params, grads = optree.tree_map(lambda x: x.astype(dtype), data())
    opt = ao.Optimizer(rule, lr=np.float64(1e-3), weight_decay=np.float32(0.1))
    p, s = walk(opt, params, grads)
    assert {str(x.dtype) for x in optree.tree_leaves(p)} == {dtype}
    wide = "float32" if dtype == "float16" else dtype
    assert {str(x.dtype) for x in optree.tree_leaves(s.slots)} <= {wide}


def test_half_is_float32_rounded_once(rule):
    params, grads = optree.tree_map(lambda x: x.astype(np.float16), data(steps=1))
    wide = optree.tree_map(lambda x: x.astype(np.float32), (params, grads))
    got, _ = walk(ao.Optimizer(rule), params, grads)
    want, _ = walk(ao.Optimizer(rule), *wide)
    optree.tree_map(lambda a, b: np.testing.assert_array_equal(a, b.astype(np.float16)), got, want)


@pytest.mark.parametrize("shape", [(0,), (), (1,), (3, 0, 2)])
def test_empty_and_0d_arrays(rule, backend, shape):
    x = backend.asarray(np.full(shape, 0.5, np.float32))
    opt = ao.Optimizer(rule)
    p, s = x, opt.init(x)
    for _ in range(2):
        p, s = backend.settle(opt.step(p, x, s))
    p = backend.asnumpy(p)
    assert p.shape == shape
    assert p.dtype == np.float32
    assert np.isfinite(p).all()
    assert shape != () or p != 0.5


def test_zero_gradients_move_nothing(rule):
    p0 = np.asarray([1.0, -2.0, 0.0])
    options = {"initial_accumulator": 0.0} if rule == "yogi" else {}
    p, _ = walk(ao.Optimizer(rule, p_scale=9.0) if rule == "madam" else
                ao.Optimizer(rule, **options), p0, [np.zeros(3)] * 3)  # fmt: skip
    np.testing.assert_array_equal(p, p0)


AS_LONG = ("muon", "sgd")  # their steps, where the parameter is a vector, as gradients are


@pytest.mark.parametrize("size", [1e-45, 1e-30, 1e18, 1e30], ids=str)
def test_extreme_gradients_in_float32(rule, size):
    """A square that overflows stops the element; Yogi, MaxVA and MADA are then NaN."""
    if size == 1e30 and rule in ("mada", "maxva_madam", "maxva_lamadam", "yogi"):
        pytest.skip("documented: the square overflows, and inf - inf is NaN")
    g = np.asarray([size, -size], np.float32)
    p, _ = walk(ao.Optimizer(rule), np.asarray([1.0, -1.0], np.float32), [g] * 3)
    assert np.isfinite(p).all()
    assert rule in AS_LONG or np.abs(p - [1.0, -1.0]).max() < 0.2


@pytest.mark.parametrize("size", [5e-324, 1e-310, 1e-30, 1e30], ids=str)
def test_extreme_gradients_in_float64_stay_finite(rule, size):
    p, s = walk(ao.Optimizer(rule), np.asarray([1.0, -1.0]), [np.asarray([size, -size])] * 3)
    if size == 1e30 and rule in AS_LONG:
        assert -1e28 < p[0] < -1e26
    else:
        assert np.abs(p - [1.0, -1.0]).max() < 0.2
    assert all(np.isfinite(x).all() for x in optree.tree_leaves(s.slots))


# --- hyperparameters


def test_schedule_gets_the_number_of_steps_taken():
    seen = []
    opt = ao.Optimizer("sgd", lr=lambda n: seen.append(n) or 1.0 / (1 + n))
    p, _ = walk(opt, np.zeros(1), [np.ones(1)] * 3)
    assert seen == [0, 1, 2]
    assert p[0] == -(1 + 1 / 2 + 1 / 3)


def test_override_holds_for_one_step():
    opt = ao.Optimizer("sgd", lr=1.0)
    p, s = opt.step(np.zeros(1), np.ones(1), opt.init(np.zeros(1)), lr=0.25)
    p, _ = opt.step(p, np.ones(1), s)
    assert p[0] == -1.25


@pytest.mark.usefixtures("elementwise")
def test_arrays_that_broadcast_are_a_sweep(rule, backend):
    params, grads = data(steps=4, shape=(1, 5))
    lrs = np.asarray([[1e-3], [1e-2], [5e-2]], np.float32)
    if sums(rule):
        pytest.skip("its sums are of all elements")
    if rule == "schedule_free_adamw":
        pytest.skip("the largest rate so far is one for all elements")
    p = backend.asarray(np.repeat(params["w"].astype(np.float32), 3, axis=0))
    gs = [backend.asarray(np.repeat(g["w"].astype(np.float32), 3, axis=0)) for g in grads]
    got, _ = walk(ao.Optimizer(rule, lr=backend.asarray(lrs)), p, gs)
    got = backend.asnumpy(got)
    for i in range(3):
        one = backend.asarray(params["w"].astype(np.float32))
        row = [backend.asarray(g["w"].astype(np.float32)) for g in grads]
        want, _ = walk(ao.Optimizer(rule, lr=backend.asarray(lrs[i : i + 1])), one, row)
        want = backend.asnumpy(want)
        if rule == "madam" or backend.__name__.endswith("jax"):
            # Madam's scale is the mean square of all rows: the same up to rounding
            np.testing.assert_allclose(got[i : i + 1], want, rtol=1e-6)
        else:
            np.testing.assert_array_equal(got[i : i + 1], want)


def test_0d_arrays_of_any_dtype_do_not_promote(rule, backend):
    x = backend.asarray(np.ones(3, np.float32))
    opt = ao.Optimizer(rule, lr=np.asarray(1e-3, np.float64))
    p, _ = opt.step(x, x, opt.init(x), weight_decay=np.float64(0.1))
    assert backend.asnumpy(p).dtype == np.float32


# --- options


def test_decay_modes():
    p, g = np.asarray([2.0]), np.asarray([0.5])

    def one(decay, lr=0.1):
        opt = ao.Optimizer("sgd", lr=lr, weight_decay=0.25, decay=decay)
        return opt.step(p, g, opt.init(p))[0][0]

    assert one("coupled") == 2.0 - 0.1 * (0.5 + 0.25 * 2.0)
    assert one("decoupled") == pytest.approx(2.0 * (1 - 0.1 * 0.25) - 0.1 * 0.5, rel=1e-15)
    assert one("independent") == pytest.approx(2.0 * (1 - 0.25) - 0.1 * 0.5, rel=1e-15)
    assert {one(d, lr=0.0) for d in ("coupled", "decoupled", "independent")} == {2.0}


def test_default_decay_is_that_of_the_source():
    assert {ao.Optimizer(r).around.decay for r in ("adam", "adamax", "amsgrad", "sgd")} == {
        "coupled"
    }
    for name in ao.rules.names():
        assert ao.Optimizer(name).around.decay == ao.rules.find(name).DECAY


@pytest.mark.parametrize("mask", [{"w": True, "b": [False]}, lambda p: {"w": True, "b": [False]}])
def test_decay_mask(mask):
    params, grads = data(steps=1)
    p, _ = walk(ao.Optimizer("sgd", weight_decay=0.5, decay_mask=mask), params, grads)
    plain, _ = walk(ao.Optimizer("sgd"), params, grads)
    decayed, _ = walk(ao.Optimizer("sgd", weight_decay=0.5), params, grads)
    np.testing.assert_array_equal(p["b"][0], plain["b"][0])
    np.testing.assert_array_equal(p["w"], decayed["w"])
    assert not np.array_equal(p["w"], plain["w"])


def test_maximize_is_the_step_of_the_negative_gradient(rule):
    params, grads = data()
    up, _ = walk(ao.Optimizer(rule, maximize=True), params, grads)
    down, _ = walk(ao.Optimizer(rule), params, optree.tree_map(np.negative, grads))
    optree.tree_map(np.testing.assert_array_equal, up, down)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite(rule, backend, bad):
    if backend.__name__.endswith("dask") and not np.isnan(bad):
        pytest.skip("it is NumPy, slowly")
    params, grads = data(steps=1)
    p, g = optree.tree_map(lambda x: backend.asarray(x.astype(np.float32)), (params, grads[0]))
    spoilt = np.array(grads[0]["b"][0], np.float32)
    spoilt[3] = bad
    nan = {"w": g["w"], "b": [backend.asarray(spoilt)]}

    def number(x):
        return int(backend.asnumpy(x)) if hasattr(x, "shape") else x

    skip = ao.Optimizer(rule, nonfinite="skip")
    _, s = skip.step(p, g, skip.init(p))
    q, z = backend.settle(skip.step(p, nan, s))
    optree.tree_map(
        lambda a, b: np.testing.assert_array_equal(backend.asnumpy(a), backend.asnumpy(b)),
        (q, z.slots, z.shared),
        (p, s.slots, s.shared),
    )
    assert number(z.step) == number(s.step) == 1

    stop = ao.Optimizer(rule, nonfinite="raise")
    with pytest.raises(FloatingPointError, match=rf"{rule}: the gradient of .*b.* is not finite"):
        stop.step(p, nan, s)
    assert number(stop.step(p, g, s)[1].step) == 2

    propagate = ao.Optimizer(rule)
    q, z = propagate.step(p, nan, s)
    seen = [backend.asnumpy(x) for x in optree.tree_leaves((q, z.slots))]
    assert any(not np.isfinite(x).all() for x in seen)
    assert number(z.step) == 2
    if np.isnan(bad):
        assert np.isnan(backend.asnumpy(q["b"][0])[3])


def test_pickle_and_deepcopy(rule):
    params, grads = data(steps=3)
    opt = ao.Optimizer(rule, lr=0.02, weight_decay=0.1, decay="decoupled", maximize=True)
    want = walk(opt, params, grads)[0]
    for other in (pickle.loads(pickle.dumps(opt)), copy.deepcopy(opt)):
        assert repr(other) == repr(opt)
        optree.tree_map(np.testing.assert_array_equal, walk(other, params, grads)[0], want)


# --- tracing


@pytest.mark.parametrize("nonfinite", ["propagate", "skip"])
def test_jax_jit_compiles_once(rule, nonfinite):
    jax = package("jax")
    params, grads = optree.tree_map(lambda x: jax.numpy.asarray(x, dtype="float32"), data(steps=4))
    opt = ao.Optimizer(rule, nonfinite=nonfinite, lr=lambda n: 1e-3 / (1 + n))
    step = jax.jit(opt.step)
    p, s = params, jax.jit(opt.init)(params)
    for g in grads:
        p, s = step(p, g, s)
    assert step._cache_size() == 1
    want, _ = walk(opt, params, grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), p, want)


def test_jax_vmap_over_hyperparameters_and_scan(rule):
    jax = package("jax")
    params, grads = optree.tree_map(lambda x: jax.numpy.asarray(x, dtype="float32"), data(steps=4))
    opt = ao.Optimizer(rule)
    lrs = jax.numpy.asarray([1e-3, 1e-2])
    stacked = jax.tree.map(lambda *x: jax.numpy.stack(x), *grads)

    def train(lr):
        def body(carry, g):
            return opt.step(carry[0], g, carry[1], lr=lr), None

        return jax.lax.scan(body, (params, opt.init(params)), stacked)[0][0]

    got = jax.vmap(train)(lrs)
    for i, lr in enumerate(lrs):
        want, _ = walk(ao.Optimizer(rule, lr=float(lr)), params, grads)
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=2e-6, atol=1e-7), got, want
        )


def test_torch_func(rule):
    torch = package("torch")
    params, grads = optree.tree_map(lambda x: torch.tensor(x), data(steps=3))
    opt = ao.Optimizer(rule)
    lrs = torch.tensor([1e-3, 1e-2], dtype=torch.float64)
    p, s = torch.func.vmap(lambda lr: opt.step(params, grads[0], opt.init(params), lr=lr))(lrs)
    p, s = torch.func.vmap(lambda lr, p, s: opt.step(p, grads[1], s, lr=lr))(lrs, p, s)
    for i, lr in enumerate(lrs):
        want, _ = walk(ao.Optimizer(rule, lr=float(lr)), params, grads[:2])
        torch.testing.assert_close(p["w"][i], want["w"], rtol=1e-12, atol=1e-13)
    slope = torch.func.grad(
        lambda lr: opt.step(params, grads[0], opt.init(params), lr=lr)[0]["w"].sum()
    )
    assert torch.isfinite(slope(torch.tensor(1e-3, dtype=torch.float64)))


def test_torch_compile_in_one_graph(rule):
    torch = package("torch")
    counters = package("torch._dynamo").utils.counters
    torch._dynamo.reset()
    counters.clear()
    params, grads = optree.tree_map(lambda x: torch.tensor(x), data(steps=4))
    opt = ao.Optimizer(rule)
    step = torch.compile(opt.step, fullgraph=True, backend="eager")
    p, s = params, opt.init(params)
    for g in grads:
        p, s = step(p, g, s)
    assert counters["stats"]["unique_graphs"] == 1
    want, _ = walk(opt, params, grads)
    torch.testing.assert_close(p["w"], want["w"], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("how", ["schedule", "number", "tensor"])
@pytest.mark.parametrize("rule", ["adam", "mada"])
def test_torch_compile_with_a_rate_of_its_own(rule, how):
    torch = package("torch")
    torch._dynamo.reset()
    params, grads = optree.tree_map(lambda x: torch.tensor(x), data(steps=3))
    opt = ao.Optimizer(rule, lr=(lambda n: 0.1 / (1 + n)) if how == "schedule" else 0.1)
    override = {"number": {"lr": 0.2}, "tensor": {"lr": torch.tensor(0.2)}}.get(how, {})
    step = torch.compile(opt.step, fullgraph=True, backend="eager")
    p, s = params, opt.init(params)
    for g in grads:
        p, s = step(p, g, s, **override)
    want, _ = walk(opt, params, grads, **override)
    torch.testing.assert_close(p["w"], want["w"], rtol=1e-6, atol=1e-7)


def test_containers_that_only_jax_knows():
    jax = package("jax")

    class Module:
        def __init__(self, w):
            self.w = w

    jax.tree_util.register_pytree_node(Module, lambda m: ((m.w,), None), lambda _, c: Module(*c))
    opt = ao.Optimizer("sgd", lr=1.0)
    m = Module(jax.numpy.ones(2))
    q, _ = jax.jit(opt.step)(m, m, opt.init(m))
    assert isinstance(q, Module)
    assert q.w.tolist() == [0.0, 0.0]


def test_framework_arrays_stay_on_their_framework(rule, backend):
    x = backend.asarray(np.ones(3, np.float32))
    opt = ao.Optimizer(rule)
    p, s = opt.step(x, x, opt.init(x))
    assert type(p) is type(x)
    arrays = optree.tree_leaves(s.slots)
    assert all(type(a) is type(x) for a in arrays)


def test_strict_device():
    strict = adapter("strict")
    with strict.session("float32"):
        xp = strict.xp
        there = xp.ones(3, dtype=xp.float32, device=xp.Device("device1"))
        for name in ao.rules.names():
            opt = ao.Optimizer(name)
            p, s = opt.step(
                there, there, opt.init(there), **dict.fromkeys(each_step(opt.rule), 2.0)
            )
            devices = {str(a.device) for a in optree.tree_leaves((p, s.slots, s.shared))}
            assert devices == {str(there.device)}
