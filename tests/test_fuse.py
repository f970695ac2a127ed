"""Traced programs and the loops that LLVM makes of them, beside the rule as it is written."""

import itertools
import multiprocessing
import subprocess
import sys
import threading
import weakref

import numpy as np
import optree
import pytest
from conftest import package, sums

import arrayopt as ao
from arrayopt import parity
from arrayopt._step import measure
from arrayopt.backends import numpy as numpy_backend
from arrayopt.backends.numpy import InPlace
from arrayopt.fuse import cpu, engine, ir
from arrayopt.fuse.functions import SERIES
from arrayopt.fuse.namespace import XP
from arrayopt.fuse.program import Node
from arrayopt.fuse.symbols import Graph
from arrayopt.fuse.trace import shared_names as _shared_names
from arrayopt.fuse.trace import signature, sums_of, trace

DTYPES = ["float32", "float64", "float16"]
AROUND = [
    {},
    {"weight_decay": 0.1, "decay": "coupled", "maximize": True},
    {"weight_decay": 0.1, "decay": "decoupled"},
    {"weight_decay": 0.1, "decay": "independent"},
]
OPTIONS = {
    "adamax": [{"eps_in_max": True}, {"eps": 0.0}],
    "adan": [{"difference_weight": 0.5}, {"bias_correction": False}],
    "maxva_madam": [{"amsgrad": True}, {"nesterov": True}, {"b_first": 0.3, "b_hi": 1.0}],
    "mada": [{"accumulate": "mean"}, {"yogi_reference": "ema", "c": 0.3}, {"rho": 0.5}],
    "sgd": [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "dampening": 0.3}],
}


def variants(rule):
    return [*AROUND, *OPTIONS.get(rule, [])]


def hard(rng, n, dtype):
    """Numbers of every size, zeros of both signs, infinities and NaN."""
    x = rng.standard_normal(n) * np.exp(3 * rng.standard_normal(n))
    x[:8] = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-30, -1e-8, 6e4]
    with np.errstate(over="ignore"):
        return rng.permutation(x.astype(dtype))


def plans(rule, n, dtype, steps=4, **options):
    """An optimizer, its arrays, and one after the other the steps to be taken."""
    rng = np.random.default_rng(n)
    opt = ao.Optimizer(rule, **options)
    params = rng.standard_normal(n).astype(dtype)
    state = opt.init(params)
    for _ in range(steps):
        # one NaN is everybody's in a sum: nothing would be left to compare
        grads = rng.standard_normal(n).astype(dtype) if sums(rule) else hard(rng, n, dtype)
        yield opt, params, grads, state
        with np.errstate(all="ignore"):
            params, state = opt.step(params, grads, state)


def assert_bits(got, want):
    """The same bits, whatever the sign and the payload of a NaN."""
    for a, b in zip(optree.tree_leaves(got), optree.tree_leaves(want), strict=True):
        assert a.dtype == b.dtype
        word = np.dtype(f"u{a.dtype.itemsize}")
        same = (a.view(word) == b.view(word)) | (np.isnan(a) & np.isnan(b)) | (a == b)
        assert same.all(), (np.flatnonzero(~same.ravel())[:5], a[~same][:5], b[~same][:5])


def exact(rule):
    return parity.bound(rule, "torch", 1) == ("ulp", 0.0)


# --- the loops are the rule, to the bit


@pytest.mark.usefixtures("elementwise")
@pytest.mark.parametrize("n", [8, 31, 1000, cpu.CHUNK + 13])
@pytest.mark.parametrize("dtype", DTYPES)
def test_fused_is_eager_to_the_bit(rule, dtype, n):
    for options in variants(rule) if n == 1000 else variants(rule)[:2]:
        for opt, params, grads, state in plans(rule, n, dtype, **options):
            mine, theirs = optree.tree_map(np.array, (params, state.slots)), None
            fused = InPlace(mine[0], rule, engine="fused", threads=2, **options)
            fused.state = state._replace(slots=mine[1])
            fused.step(grads)
            with np.errstate(all="ignore"):
                theirs, after = opt.step(params, grads, state)
            if exact(rule):
                assert_bits((mine[0], fused.state.slots), (theirs, after.slots))
            else:
                close((mine[0], fused.state), (theirs, after), dtype, rule)


def close(got, want, dtype, rule):
    """Within 32 eps of the eager step: exp is 1 ulp off, sums and scalars are float64 here."""
    eps = np.finfo("float64" if dtype == "float64" else "float32").eps
    for a, b in zip(optree.tree_leaves(got), optree.tree_leaves(want), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        own = np.finfo(a.dtype).eps if a.dtype.kind == "f" else 0.0
        finite = np.isfinite(b.astype(float)) & np.isfinite(a.astype(float))
        assert np.array_equal(np.isnan(a), np.isnan(b))
        # some of MADA's derivatives are differences of equals: as exact as what they come from
        scale = np.maximum(np.abs(b[finite].astype(float)), 1.0 if sums(rule) else 1e-30)
        distance = np.abs(a[finite].astype(float) - b[finite].astype(float)) / scale
        most = max(2 * own, (300 if sums(rule) else 32) * eps)
        assert distance.size == 0 or distance.max() <= most


@pytest.mark.parametrize("name", ["adam", "maxva_madam", "adan"])
def test_many_steps_many_parameters(name):
    rng = np.random.default_rng(1)
    shapes = [(), (0,), (1,), (3, 5), (7, 11, 2), (cpu.CHUNK + 1,), (2, 3), (100_000,)]
    params = {f"p{i}": rng.standard_normal(s).astype(np.float32) for i, s in enumerate(shapes)}
    mine = optree.tree_map(np.array, params)
    opt, fused = ao.Optimizer(name, lr=0.01), InPlace(mine, name, engine="fused", lr=0.01)
    state = opt.init(params)
    for _ in range(10):
        grads = {k: rng.standard_normal(x.shape).astype(np.float32) for k, x in params.items()}
        params, state = opt.step(params, grads, state)
        fused.step(grads)
        assert fused._memory is not None
    assert_bits((mine, fused.state.slots), (params, state.slots))


@pytest.mark.usefixtures("elementwise")
@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_do_not_depend_on_threads_or_on_the_place_in_a_chunk(rule, dtype):
    rng = np.random.default_rng(2)
    n = 2 * cpu.CHUNK + 5
    start, grad = rng.standard_normal(n).astype(dtype), rng.standard_normal(n).astype(dtype)
    found = []
    for threads in (1, 2, 7):
        x = start.copy()
        opt = InPlace(x, rule, engine="fused", threads=threads)
        for _ in range(3):
            opt.step(grad)
        found.append((x, opt.state.slots, opt.state.shared))
    assert_bits(found[1], found[0])
    assert_bits(found[2], found[0])
    if not sums(rule):
        first = ao.Optimizer(rule).init(start).slots  # of one value, it may be of all elements
        part = start[-77:].copy()
        opt = InPlace(part, rule, engine="fused")
        opt.state = opt.state._replace(
            slots=type(found[0][1])(
                *(s if isinstance(s, tuple) or s.shape else t for s, t in
                  zip(opt.state.slots, first, strict=True))
            )
        )  # fmt: skip
        for _ in range(3):
            opt.step(grad[-77:])
        assert_bits(part, found[0][0][-77:])


LAYOUTS = {
    "Fortran": np.asfortranarray,
    "every second": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "backwards": lambda x: x[::-1].copy()[::-1],
    "axes moved": lambda x: np.moveaxis(x, 0, 1).copy().T.reshape(x.shape),
    "0 strides": lambda x: np.broadcast_to(x[:1], x.shape),
}


@pytest.mark.parametrize("name", ["adam", "madam", "maxva_madam"])
@pytest.mark.parametrize("of_grad", LAYOUTS)
@pytest.mark.parametrize("of_param", [k for k in LAYOUTS if k != "0 strides"])
def test_any_order_of_elements(of_param, of_grad, name):
    rng = np.random.default_rng(3)
    start = rng.standard_normal((9, 31))
    mine = LAYOUTS[of_param](start)
    opt, fused = ao.Optimizer(name), InPlace(mine, name, engine="fused")
    params = mine.copy()
    state = opt.init(params)
    for _ in range(3):
        g = LAYOUTS[of_grad](rng.standard_normal((9, 31)))
        params, state = opt.step(params, g, state)
        fused.step(g)
    if exact(name):
        assert_bits((mine, fused.state.slots), (params, state.slots))
    else:
        close((mine, fused.state.slots), (params, state.slots), "float64", name)


# --- its functions


def loop(function, x, *numbers):
    """A function of arrays and numbers, traced and compiled, of ``x``."""
    return next(loops(function, x, [numbers]))


def loops(function, x, rows):
    """The same for each row of numbers, compiled once."""
    graph = Graph()
    symbols = [graph.input("param", x.dtype.name)]
    symbols += [graph.number(f"n{i}") for i in range(len(rows[0]))]
    program = graph.program({"param": function(XP(graph), *symbols)}, {})
    out = x.copy()
    table = cpu.Table(np.array([[out.ctypes.data, 0]]), np.array([out.size]))
    run = cpu.Run(cpu.Kernel(program, {"param": 0}), table)
    for numbers in rows:
        out[:] = x
        run([{f"n{i}": v for i, v in enumerate(numbers)}], 1)
        yield out.copy()


def ulps(got, want):
    """Distance to a more exact result, in ulp of the result."""
    wide = np.abs(got.astype(np.longdouble) - want)
    spacing = np.spacing(np.abs(want.astype(got.dtype)))
    return np.max(wide / spacing.astype(np.longdouble))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["exp", "log", "cbrt"])
def test_series_are_one_ulp_off_or_little_more(name, dtype):
    rng = np.random.default_rng(4)
    tiny, most = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    low, high = np.log(np.longdouble(tiny)), np.log(np.longdouble(most))
    near = rng.standard_normal(300_000) * np.exp(rng.uniform(-20, 0, 300_000))
    x = np.concatenate([near, rng.uniform(float(low), float(high), 300_000)]).astype(dtype)
    if name != "exp":
        x = np.concatenate([np.exp(x[x < high].astype(np.longdouble)), 1 + near]).astype(dtype)
        x = x[(x > 0) & np.isfinite(x)]
    with np.errstate(all="ignore"):
        want = getattr(np, name)(x.astype(np.longdouble))
        normal = np.isfinite(want.astype(dtype)) & (np.abs(want) >= np.finfo(dtype).tiny)
    got = loop(lambda xp, a: getattr(xp, name)(a), x)
    assert ulps(got[normal], want[normal]) < 1.06
    small = np.abs(want) < np.finfo(dtype).tiny
    assert np.all(np.abs(got - want)[small] <= tiny * 1.01)
    np.testing.assert_array_equal(got[~normal & ~small], want[~normal & ~small].astype(dtype))
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -1.0, 1.0, tiny, most, -most], dtype)
    with np.errstate(all="ignore"):
        want = getattr(np, name)(special)
    got = loop(lambda xp, a: getattr(xp, name)(a), special)
    np.testing.assert_array_max_ulp(got, want.astype(dtype), 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["exp", "log", "cbrt"])
def test_series_of_whatever_bits_a_nan_has(name, dtype):
    bits = np.dtype(dtype).str.replace("f", "u")
    last = np.finfo(dtype).nmant
    payload = np.random.default_rng(6).integers(1, 1 << last, 1000, dtype=bits)
    sign = np.array([0, 1], bits) << np.array(8 * np.dtype(dtype).itemsize - 1, bits)
    exponent = np.array(np.inf, dtype).view(bits)
    x = (payload[:, None] | exponent | sign).ravel()
    x = np.append(x, np.array(-1).astype(bits)).view(dtype)
    assert np.all(np.isnan(loop(lambda xp, a: getattr(xp, name)(a), x)))


LIMITS = {
    "clip": lambda xp, a, low, high: xp.minimum(xp.maximum(a, low), high),
    "three": lambda xp, a, low, high: xp.maximum(xp.minimum(xp.maximum(a, low), high), low / 2),
    "shared": lambda xp, a, low, high: (
        xp.minimum(xp.maximum(a, low), high) + 2 * xp.maximum(a, low)
    ),
    "of a product": lambda xp, a, low, high: xp.maximum(
        xp.minimum(xp.maximum(a, low), a * a), high
    ),
    "of numbers": lambda xp, a, low, high: xp.minimum(
        xp.maximum(a, xp.maximum(low, high)), xp.minimum(low, high)
    ),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_keep_every_nan(name):
    numbers = [0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.25]
    x = np.array([*numbers, -0.0, 2.0] * 4, np.float32)
    pairs = list(itertools.product(numbers, numbers))
    for got, (low, high) in zip(loops(LIMITS[name], x, pairs), pairs, strict=True):
        with np.errstate(all="ignore"):
            want = LIMITS[name](numpy_backend.XP, x, np.float32(low), np.float32(high))
        np.testing.assert_array_equal(got, want, f"{low} {high}")


FUNCTIONS = {
    "sqrt": lambda xp, a: xp.sqrt(xp.abs(a)),
    "abs": lambda xp, a: abs(a),
    "negative": lambda xp, a: -a,
    "maximum": lambda xp, a: xp.maximum(a, 0.5 * a + 1),
    "minimum": lambda xp, a: xp.minimum(0.5 * a + 1, a),
    "maximum of a number": lambda xp, a: xp.maximum(0.25, a),
    "clip": lambda xp, a: xp.clip(a, -0.5, 0.75),
    "sign": lambda xp, a: xp.sign(a),
    "square": lambda xp, a: xp.square(a) + a**2,
    "where": lambda xp, a: xp.where((a > 0) & ~(a >= 2) | (a == -1), a, 1 / a),
    "compare": lambda xp, a: xp.where(a != 1, xp.where(a < -1, 2.0, a), xp.where(a <= 3, a, 4.0)),
    "isfinite": lambda xp, a: xp.where(xp.isfinite(a), a, -1.0),
    "pow": lambda xp, a: xp.abs(a) ** 0.75,
    "expm1, log1p": lambda xp, a: xp.log1p(xp.expm1(xp.minimum(xp.abs(a), 3.0))),
    "tanh": lambda xp, a: xp.tanh(a),
    "cbrt": lambda xp, a: xp.cbrt(a),
    "astype": lambda xp, a: xp.astype(xp.astype(a, xp.float32) * 3, a.dtype),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_numpys(name, dtype):
    x = np.concatenate([hard(np.random.default_rng(5), 100, dtype), [1, -1, 3, np.inf, np.nan]])
    x = x.astype(dtype)
    with np.errstate(all="ignore"):
        want = FUNCTIONS[name](numpy_backend.XP, x)
    got = loop(FUNCTIONS[name], x)
    most = 4 if name in ("pow", "expm1, log1p", "tanh", "cbrt") else 0
    np.testing.assert_array_max_ulp(got, want.astype(dtype), most)


@pytest.mark.parametrize("at", [0.0, 1.0, float("nan")])
def test_what_the_host_decides_is_decided_without_a_branch(at):
    x = hard(np.random.default_rng(6), 100, "float32")

    def function(xp, a, n):
        limited = xp.minimum(xp.maximum(a, n), 2 * n)
        return xp.where(n == 0, a, xp.where(n > 0.5, limited, a + n))

    want = function(numpy_backend.XP, x, np.float32(at))
    assert_bits(loop(function, x, at), want)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_numbers_are_rounded_once_to_nearest_even(name):
    ml_dtypes = package("ml_dtypes")
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype)  # all there are
    got = loop(lambda xp, a: xp.astype(xp.astype(a, xp.float32) * 1.001, a.dtype), every)
    with np.errstate(all="ignore"):
        want = (every.astype(np.float32) * np.float32(1.001)).astype(dtype)
    assert_bits(got, want)


# --- sums


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_sums_are_float64_and_the_same_on_any_number_of_threads(dtype):
    rng = np.random.default_rng(7)
    n = 3 * cpu.CHUNK + 1
    (opt, params, grads, state), *_ = plans("mada", n, dtype, 1)
    state = state._replace(
        slots=type(state.slots)(*(rng.standard_normal(n).astype("float32") for _ in state.slots))
    )
    todo = opt.plan(params, grads, state, {})
    sums = measure("measure", opt.around, todo.parts[0], state.shared, {}, xp=todo.xp)
    want = {k: float(v) for k, v in sums.items()}
    found = []
    for threads in (1, 3):
        step = numpy_backend._numpy_fused.Step(opt, todo, state.shared, threads)
        (sums,) = step.measure("measure", state.shared)
        found.append(sums)
        for k, x in sums.items():
            assert x.dtype == np.float64
            assert abs(x - want[k]) <= 1e-12 * n**0.5
    assert found[0] == found[1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_finite_sees_one_element_in_one_parameter(bad):
    params = [np.ones(5, np.float32), np.ones((3, 7), np.float32), np.ones(0, np.float32)]
    grads = [np.ones(5), np.ones((3, 7)), np.ones(0)]  # float64: 1e39 is infinite in float32
    opt = InPlace(params, "adam", engine="fused", nonfinite="raise")
    opt.step(grads)
    grads[1][2, 6] = bad
    before = optree.tree_map(np.array, (params, opt.state))
    with pytest.raises(FloatingPointError, match=r"adam: the gradient of \[1\] is not finite"):
        opt.step(grads)
    assert_bits((params, opt.state.slots), (before[0], before[1].slots))


# --- what cannot be traced


class Rule:
    """A rule whose update is given."""

    class State(ao.sgd.State):
        pass

    def __init__(self, function):
        self.function = function

    def init(self, param, *, xp):
        return self.State(m=xp.zeros_like(param))

    def update(self, param, grad, state, t, *, lr: ao.Rate = 0.1, xp):
        return self.function(param, grad, t, lr, xp), self.State(state.m)


UNTRACEABLE = {
    "branch": (lambda p, g, t, lr, xp: p if xp.any(g > 0) else p - g, "any"),
    "branch on t": (lambda p, g, t, lr, xp: p if t > 1 else p - g, "branches on a value"),
    "branch on an element": (lambda p, g, t, lr, xp: p - (g if g.ndim else 2 * g), "shape"),
    "number out of an array": (lambda p, g, t, lr, xp: p - float(t) * g, "takes a number out"),
    "mean": (lambda p, g, t, lr, xp: p - g + xp.mean(g), "mean"),
    "sum": (lambda p, g, t, lr, xp: p - g * xp.sum(g), ""),
    "element": (lambda p, g, t, lr, xp: p - g[0], "takes an array apart"),
    "list": (lambda p, g, t, lr, xp: p - g * len(list(g)), "takes an array apart"),
    "bool": (lambda p, g, t, lr, xp: p - g * xp.astype(g > 0, g.dtype), "truth values"),
    "attribute": (lambda p, g, t, lr, xp: p - g.reshape(-1).reshape(p.shape), "reshape"),
}


@pytest.mark.parametrize("name", UNTRACEABLE)
def test_untraceable_rules_run_all_the_same(name):
    function, text = UNTRACEABLE[name]
    rule, grad = Rule(function), np.array([1.0, 2.0])
    with pytest.raises(TypeError, match=f"Rule: no engine 'fused': .*{text}"):
        InPlace(np.ones(2), rule, engine="fused")
    x = np.ones(2)
    opt = InPlace(x, rule)
    opt.step(grad)
    pure = ao.Optimizer(rule)
    want, _ = pure.step(np.ones(2), grad, pure.init(np.ones(2)))
    assert_bits(x, want)


def test_array_hyperparameters_go_to_blocks():
    lr = np.array([0.1, 0.2])
    with pytest.raises(TypeError, match="adam: no engine 'fused': lr is an array"):
        InPlace(np.ones(2), "adam", engine="fused", lr=lr)
    x = np.ones(2)
    opt = InPlace(x, "sgd")
    for rate in (0.5, lr, 0.5):
        opt.step(np.ones(2), lr=rate)
    np.testing.assert_allclose(x, 1 - 0.5 - lr - 0.5)


def test_engines_that_are_not():
    with pytest.raises(ValueError, match=r"sgd: engine must be one of .*'blocks'.* got 'cuda'"):
        InPlace(np.ones(2), "sgd", engine="cuda")


def test_without_llvmlite():
    code = """
import sys
sys.modules["llvmlite"] = None
import importlib.util
importlib.util.find_spec = lambda name, find=importlib.util.find_spec: (
    None if name == "llvmlite" else find(name))
import numpy as np
from arrayopt.backends.numpy import InPlace
x = np.ones(3)
InPlace(x, "sgd", lr=0.5).step(np.ones(3))
print(x.tolist())
try:
    InPlace(x, "sgd", engine="fused")
except TypeError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines() == [
        "[0.5, 0.5, 0.5]",
        "sgd: no engine 'fused': llvmlite is not installed; pip install \"arrayopt[fast]\"",
    ]


# --- what a step remembers of the last one


def test_a_step_after_a_change_of_anything_is_the_pure_step():
    rng = np.random.default_rng(8)
    shapes = {"a": (3, 4), "b": (5,), "c": ()}
    params = {k: rng.standard_normal(s) for k, s in shapes.items()}
    mine = optree.tree_map(np.array, params)
    mask = {"a": True, "b": False, "c": True}
    options = {"lr": lambda n: 0.1 / (1 + n), "weight_decay": 0.1, "decay_mask": lambda p: mask}
    pure, fused = ao.Optimizer("amsgrad", **options), InPlace(mine, "amsgrad", **options)
    state = pure.init(params)
    kept = {k: np.empty(s) for k, s in shapes.items()}

    def grads():
        return {k: rng.standard_normal(s) for k, s in shapes.items()}

    def in_place():
        for k, x in grads().items():
            kept[k][...] = x
        return kept

    def single():
        return {k: x.astype(np.float32) for k, x in grads().items()}

    def flipped():
        mask["b"] = not mask["b"]
        return grads()

    def slot_replaced():
        fused.state.slots.m["a"] = fused.state.slots.m["a"].copy()
        return grads()

    def param_replaced():
        mine["b"] = mine["b"].copy()
        return grads()

    def state_loaded():
        fused.state = optree.tree_map(
            lambda x: np.array(x) if hasattr(x, "shape") else x, fused.state
        )
        return grads()

    steps = [
        (grads, {}), (grads, {}), (in_place, {}), (in_place, {}), (single, {}), (single, {}),
        (lambda: grads() | {"b": None}, {}), (lambda: grads() | {"b": None}, {}), (grads, {}),
        (grads, {"lr": 0.3}), (grads, {"lr": 0.2}), (grads, {"weight_decay": 0.0}), (grads, {}),
        (flipped, {}), (grads, {}),
        (slot_replaced, {}), (grads, {}), (param_replaced, {}), (grads, {}), (state_loaded, {}),
        (lambda: {k: np.asarray(x[..., ::-1] if x.ndim else x) for k, x in grads().items()}, {}),
        (grads, {}),
    ]  # fmt: skip
    for make, override in steps:
        g = make()
        params, state = pure.step(params, optree.tree_map(np.array, g), state, **override)
        fused.step(g, **override)
        assert_bits((mine, fused.state.slots), (params, state.slots))
        assert fused.state.step == state.step


def test_errors_after_steps_that_are_remembered_change_nothing():
    base = np.zeros(12)
    mine = {"a": base[:4], "b": np.ones(3)}
    opt = InPlace(mine, "adam", engine="fused")
    good = {"a": np.ones(4), "b": np.ones(3)}
    for _ in range(3):
        opt.step(good)
    before = optree.tree_map(np.array, (mine, opt.state))
    for wrong, kind, text in (
        (good | {"a": base[2:6]}, ValueError, "share memory"),
        (good | {"a": mine["a"]}, ValueError, "same array"),
        (good | {"b": np.ones(4)}, ValueError, "must have shape"),
        (good | {"b": np.ones(3, int)}, TypeError, "must be real floating"),
        (good | {"b": [1.0] * 3}, TypeError, "must be an array or None"),
        ({"a": good["a"]}, ValueError, "structure"),
    ):
        with pytest.raises(kind, match=text):
            opt.step(wrong)
        with pytest.raises(ValueError, match=r"lr must be in \[0, inf\)"):
            opt.step(good, lr=-1.0)
        assert_bits((mine, opt.state.slots), (before[0], before[1].slots))
        assert opt.state.step == before[1].step
    mine["b"].flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        opt.step(good)


def test_gradients_are_not_kept():
    opt = InPlace(np.ones(3), "adam", engine="fused")
    for _ in range(2):
        grad = np.ones(3)
        gone = weakref.ref(grad)
        opt.step(grad)
        del grad
        assert gone() is None


def test_two_optimizers_at_once_on_two_threads():
    rng = np.random.default_rng(9)
    starts = [rng.standard_normal(200_000) for _ in range(2)]
    grads = rng.standard_normal(200_000)
    mine = [x.copy() for x in starts]
    opts = [InPlace(x, "adam", engine="fused") for x in mine]

    def work(opt):
        for _ in range(20):
            opt.step(grads)

    threads = [threading.Thread(target=work, args=(o,)) for o in opts]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for start, x in zip(starts, mine, strict=True):
        want = start.copy()
        alone = InPlace(want, "adam", engine="fused", threads=1)
        work(alone)
        assert_bits(x, want)


def _after_fork(opt, queue):
    opt.step(np.ones(200_000))
    queue.put(float(opt.params.sum()))


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*fork.*:RuntimeWarning")
def test_a_forked_process_goes_on():
    opt = InPlace(np.ones(200_000), "sgd", engine="fused", lr=0.5, threads=2)
    opt.step(np.ones(200_000))  # its threads are running
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_after_fork, args=(opt, queue))
    child.start()
    assert queue.get(timeout=60) == 0.0
    child.join(60)
    assert child.exitcode == 0


# --- the code


def assembly_of(rule, dtype="float32"):
    (opt, params, grads, state), *_ = plans(rule, 8, dtype, 1)
    part = opt.plan(params, grads, state, {}).parts[0]
    sig = signature(opt.around, part)
    program = trace("move", opt.around, sig, state.shared)
    sums = engine.summed("move", opt.around, sig, state.shared)
    return program, engine.columns(opt.rule, sig, sums)


@pytest.mark.usefixtures("elementwise")
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_rule_is_a_loop_of_vectors(rule, dtype):
    program, columns = assembly_of(rule, dtype)
    text = str(cpu.compiled(ir.source(program, columns))[0])
    kind = "double" if dtype == "float64" else "float"
    assert f"x {kind}>" in text  # of so many at a time
    loops = text.split("vector.body:")[1].split("\n\n")[0]
    assert "br i1" in loops.splitlines()[-1] or loops.count("br ") == 1  # and no branch inside
    single = {x.name for x in program.inputs if x.single}
    read = sum(node.op == "input" and node.data not in single for node in program.nodes)
    series = any(node.op in SERIES for node in program.nodes)
    vectors = 4 if series else 2  # in a turn
    assert loops.count(" load ") == vectors * read
    assert loops.count(" store ") == vectors * len(program.stores)


# --- every operation matters


def mutants(program):
    """Programs with one thing changed: an operation left out, a number or a result exchanged."""
    nodes = program.nodes

    def changed(i, node):
        return program._replace(nodes=(*nodes[:i], node, *nodes[i + 1 :]))

    for i, node in enumerate(nodes):
        if node.op == "literal":
            if node.dtype != "bool":
                other = float(node.data) * 15 / 16 + 1e-3 if float(node.data) < np.inf else 0.5
                name = f"{i}: literal {node.data}"
                yield name, changed(i, node._replace(data=repr(other)))
        elif node.op not in ("input", "scalar"):
            for k in dict.fromkeys(node.args):
                if nodes[k].dtype == node.dtype and k in node.args[node.op == "where" :]:
                    yield f"{i}: {node.op} left out, {k} kept", _without(program, i, k)
            if node.dtype == "bool":
                for value in ("True", "False"):
                    yield f"{i}: {node.op} {value}", changed(i, Node("literal", "bool", (), value))
            if len({*node.args}) == 2 and node.op not in ("add", "multiply", "maximum", "minimum"):
                swapped = node._replace(args=node.args[::-1])
                if node.op != "equal":
                    yield f"{i}: {node.op} swapped", changed(i, swapped)
    for i in range(len(program.stores)):
        yield (
            f"store {program.stores[i][0]} left out",
            program._replace(stores=program.stores[:i] + program.stores[i + 1 :]),
        )
    for a, b in itertools.combinations(range(len(program.stores)), 2):
        (name, i), (other, j) = program.stores[a], program.stores[b]
        if i != j and nodes[i].dtype == nodes[j].dtype:
            stores = list(program.stores)
            stores[a], stores[b] = (name, j), (other, i)
            yield f"stores {name} and {other} exchanged", program._replace(stores=tuple(stores))
    for k in range(len(program.scalars)):

        def host(*args, k=k):
            found = list(program.host(*args))
            found[k] = not found[k] if program.scalars[k] == "bool" else found[k] * 15 / 16 + 1e-3
            return tuple(found)

        yield f"scalar {k}", program._replace(host=host)


def _without(program, i, k):
    """Whoever reads node ``i`` reads node ``k`` instead."""
    nodes = [n._replace(args=tuple(k if a == i else a for a in n.args)) for n in program.nodes]
    stores = tuple((name, k if a == i else a) for name, a in program.stores)
    return program._replace(nodes=tuple(nodes), stores=stores)


def carried_out(program, columns, part, sets, own=()):
    """For each set of hyperparameters the arrays that the compiled program leaves.

    Args:
        own: the sums over the parameter.
    """
    arrays = {"param": part.param, "grad": part.grad, **part.slots._asdict()}
    arrays |= {name: 0.5 for name in columns if name not in arrays}  # which it writes
    arrays |= {f"sums.{name}": x for name, x in dict(own).items()}
    arrays = {k: np.array(x) for k, x in arrays.items() if not isinstance(x, tuple)}
    mine = {k: x.copy() for k, x in arrays.items()}
    row = [mine[name].ctypes.data for name in columns]
    table = cpu.Table(np.array([[*row, 0]]), np.array([part.param.size]))
    run = cpu.Run(cpu.Kernel(program, columns, speed=0), table)
    for values in sets:
        for k, x in arrays.items():
            mine[k][...] = x
        run([values], 1)
        yield {k: x.copy() for k, x in mine.items()}


SITUATIONS = {  # options that lead to other programs
    "adamax": [{}, {"eps_in_max": True}],
    "mada": [{"accumulate": "mean"}, {"first_difference": "zero", "yogi_reference": "ema"}],
    "maxva_madam": [{"b_first": 0.3}, {"amsgrad": True, "nesterov": True}],
    "sgd": [{"momentum": 0.9, "dampening": 0.3, "nesterov": True}],
    "lamb": [{"inner_decay": 0.1, "max_norm": 0.5}],
    "novograd": [{"inner_decay": 0.1, "grad_averaging": True}],
    "prodigy": [{"inner_decay": 0.1}],
    "schedule_free_adamw": [{"inner_decay": 0.1, "r": 0.5, "weight_lr_power": 1.5}],
}
SUMS = [(0.7, 0.7), (0.04, 0.3), (0.0, 0.3), (0.3, 0.0)]  # as many as a rule asks for, of each
# What no number can show: the rule, a part of the mutant's name, and why. The numbers in the names
# are those of the program's operations.
ZERO = "0 / x is 0, whatever x"
MASKED = "where it would act, the `where` around it takes its other branch"
UNSEEN = [
    *((rule, "literal 1.0", ZERO) for rule in ("adam", "adamax", "adan", "amsgrad", "avgrad")),
    *((rule, "literal 1.0", ZERO) for rule in ("laprop", "simplified_ademamix")),
    ("adamax", "20: add left out", "with eps_in_max it adds 0"),
    ("mada", "where left out", MASKED),
    ("madam", "where left out", MASKED),
    ("madam", "literal inf", ZERO),
    ("madam", "27: less True", "the sign of a parameter that is 0 multiplies 0"),
    *((rule, "literal 1.0", ZERO) for rule in ("lamb", "novograd", "prodigy")),
    ("maxva_", "13: where left out", MASKED),
    ("maxva_", "14: where left out", MASKED),
    ("maxva_", "18: subtract swapped", "it is squared"),
    ("maxva_", "19: subtract swapped", "it is squared"),
    ("lamb", "42: add left out", "it adds 0"),
    ("schedule_free_adamw", "38: add left out", "it adds 0"),
    ("schedule_free_adamw", "39: equal False", "only where all rates so far were 0"),
    ("schedule_free_adamw", "40: where left out", "only where all rates so far were 0"),
]


def situation(rule, options):
    """A parameter halfway, whose numbers show every operation, and sets of hyperparameters."""
    rng = np.random.default_rng(11)
    opt = ao.Optimizer(rule, weight_decay=0.1, decay="independent", maximize=True, **options)
    params = rng.standard_normal(300)
    state = opt.init(params)
    for _ in range(3):
        params, state = opt.step(params, rng.standard_normal(300), state)
    grads = rng.standard_normal(300)
    slots = {k: x for k, x in state.slots._asdict().items() if getattr(x, "shape", ()) == (300,)}
    for x in slots.values():
        x[:40] = 0.0  # as before the first step
    grads[:20] = 0.0
    params[15:25] = 0.0
    # squares that are what was expected, a gradient like the last one, and slots that are equal
    for k, x in slots.items():
        if k in ("v", "r", "w"):
            x[40:50] = grads[40:50] ** 2
        elif k == "g":
            x[40:50] = -grads[40:50]
        x[50:60] = next(iter(slots.values()))[50:60]
        x[60:70] *= 100
        x[70:80] /= 100
    part = opt.plan(params, grads, state, {}).parts[0]
    known = dict(zip(_shared_names(state.shared), map(float, optree.tree_leaves(state.shared)),
                     strict=True))  # fmt: skip
    for name, value in (("rho", 0.4), ("c", 0.3), ("b3", 0.2)):
        if f"shared.value.{name}" in known:
            known[f"shared.value.{name}"] = value
    base = part.values | {"t": part.t} | known
    other = {
        "eps": 0.0, "eps_root": 0.0, "p_scale": 0.5, "g_bound": 0.5, "alpha": 0.7, "t": 1,
    }  # fmt: skip
    sets = [base, base | {k: x for k, x in other.items() if k in base}]
    sets.append(base | {k: 0.3 for k in ("eps", "eps_root", "delta", "b_hi") if k in base})
    sets.append(base | ({"lr": 0.0, "b_lo": 0.8} if "b_lo" in base else {"lr": 0.0}))
    sets.append(base | {"lr": 0.9})
    return opt, part, state, sets


@pytest.mark.usefixtures("elementwise")
def test_without_any_one_operation_the_numbers_are_others(rule):
    for options in SITUATIONS.get(rule, [{}]):
        opt, part, state, sets = situation(rule, options)
        sig = signature(opt.around, part)
        program = trace("move", opt.around, sig, state.shared)
        columns = engine.columns(
            opt.rule, sig, engine.summed("move", opt.around, sig, state.shared)
        )
        names = sums_of(opt.around, sig, state.shared)
        sums = [dict(zip(names, x, strict=False)) for x in SUMS] if names else [{}]

        def left(program, columns=columns, part=part, sets=sets, sums=sums):
            return [x for own in sums for x in carried_out(program, columns, part, sets, own)]

        if rule == "mada":  # some maxima are of equals
            first = next(carried_out(program, columns, part, sets))
            part.slots.w[80:90] = first["v"][80:90]
        want = left(program)
        every = dict(mutants(program))
        assert len(every) > 2 * len(program.stores) + len(program.nodes) // 2
        for name, mutant in every.items():
            got = left(mutant)
            seen = any(
                not np.array_equal(a[k], b[k], equal_nan=True)
                for a, b in zip(got, want, strict=True)
                for k in b
            )
            assert seen or any(rule.startswith(r) and n in name for r, n, _ in UNSEEN), name


def test_a_lost_operation_of_a_sum_is_seen():
    (opt, params, grads, state), *_ = plans("mada", 300, "float64", 1)
    rng = np.random.default_rng(12)
    state = state._replace(
        slots=type(state.slots)(*(rng.standard_normal(300) for _ in state.slots))
    )
    part = opt.plan(params, grads, state, {}).parts[0]
    sig = signature(opt.around, part)
    for what in ("measure", "finite"):
        grads[7] = np.nan if what == "finite" else 1.0
        program, columns = trace(what, opt.around, sig), engine.columns(opt.rule, sig)
        row = [x.ctypes.data for x in (params, grads, *part.slots)]
        table = cpu.Table(np.array([[*row, 0]]), np.array([300]))
        values = [part.values | {"t": 1}]

        def sums(program, columns=columns, table=table, values=values):
            return cpu.Run(cpu.Kernel(program, columns, speed=0), table)(values, 1).copy()

        want, seen = sums(program), 0
        for i, node in enumerate(program.nodes):
            for k in dict.fromkeys(node.args):
                if program.nodes[k].dtype == node.dtype:
                    mutant = _without(program, i, k)
                    swapped = tuple((n, k if j == i else j) for n, j in program.sums)
                    mutant = mutant._replace(sums=swapped)
                    assert not np.array_equal(sums(mutant), want), (what, i, node)
                    seen += 1
        assert seen >= (10 if what == "measure" else 1)
