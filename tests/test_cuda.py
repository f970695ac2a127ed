"""The CUDA engine without a GPU: what it launches, and what its kernels compute.

A kernel is compiled by g++, and by NVRTC for the architectures of today's GPUs; its PTX is run by
the interpreter in ``ptx.py``. All must give what NumPy gives when it runs the rule eagerly. What
only a device can show is in ``test_gpu.py``.
"""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import gpu_host
import numpy as np
import optree
import pytest
from conftest import TRACED_RULES, adapter, package
from gpu_host import Device

import arrayopt as ao
from arrayopt._math import scalar, total
from arrayopt._namespace import namespace
from arrayopt._plan import Plan
from arrayopt._schema import each_step, hyperparameters, rounds
from arrayopt._step import is_elementwise, is_off
from arrayopt.fuse import cuda, cuda_driver, cuda_source
from arrayopt.fuse.namespace import XP
from arrayopt.fuse.program import FUNCTIONS, Program
from arrayopt.fuse.symbols import Graph
from arrayopt.fuse.trace import shared_names, signature

OTHER_RULES = [
    x for x in ao.rules.names() if x not in TRACED_RULES and is_elementwise(ao.rules.find(x))
]
traced = pytest.mark.parametrize("rule", TRACED_RULES)
DTYPES = ("float32", "float64", "float16", "bfloat16")
ARCHITECTURES = (75, 80, 90, 100, 120)
SIZES = (700, 1, 257)  # several chunks of CHUNK, one element, an odd end
CHUNK = 300
EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
SPECIAL = (0.0, -0.0, 1e-8, 1e-30, -1e-42, 1e18, math.inf, -math.inf, math.nan)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(cuda, "CHUNK", CHUNK)


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """Where compiled kernels are kept, for all processes of a run."""
    root = tmp_path_factory.getbasetemp()
    path = (root.parent if root.name.startswith("popen-") else root) / "kernels"
    path.mkdir(exist_ok=True)
    return path


def variants(rule: str) -> list[dict[str, Any]]:
    """Hyperparameters that lead to each of a rule's programs, and to both sides of its branches."""
    choices: list[dict[str, Any]] = [{}]
    found = hyperparameters(ao.rules.find(rule))
    started = {name: 0.6 for name, hyper in found.items() if hyper.start}
    numbers: list[dict[str, Any]] = [{}, {"lr": 0.0}, *[started] * bool(started)]
    for name, hyper in found.items():
        if name in started:
            continue
        if isinstance(hyper.legal, tuple):
            choices += [{name: x} for x in hyper.legal if x != hyper.default]
        elif hyper.optional or name == "momentum":
            choices.append({name: 0.5})
        elif name == "eps_root":
            numbers += [{name: 0.25}, {name: 0.0, "eps": 0.0}]
        elif name == "eps":
            numbers.append({name: 0.0})
        elif hyper.default == 0:
            numbers.append({name: 0.25})
        elif hyper.default > 1:  # a bound that is hardly ever reached
            numbers.append({name: 0.5})
    if rule == "sgd":
        choices[1:] = [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}]
    for how in ("coupled", "decoupled", "independent"):
        choices.append({"decay": how, "weight_decay": 0.1})
    choices.append({"maximize": True})
    return [a | b for a in choices for b in numbers]


def values(dtype: Any, n: int, seed: int, special: tuple[float, ...] = SPECIAL) -> np.ndarray:
    """Numbers of all sizes, the special ones among them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n) * np.exp(2 * rng.standard_normal(n))
    x[: len(special)] = rng.permutation(special)[:n]
    x[-1:] = 0  # in parameters and gradients alike
    with np.errstate(all="ignore"):
        return x.astype(dtype)


def numpy_dtype(name: str) -> Any:
    return package("ml_dtypes").bfloat16 if name == "bfloat16" else np.dtype(name)


def problem(rule: Any, dtype: str, steps: int = 3, sizes: Any = SIZES) -> tuple[Any, Any]:
    """Parameters, which are finite, and gradients; finite too where all are summed up."""
    kind = numpy_dtype(dtype)
    whole = tuple(x for x in SPECIAL if abs(x) < 1e9)
    params = [values(kind, n, i, whole) for i, n in enumerate(sizes)]
    found = rule if not isinstance(rule, str) else ao.rules.find(rule)
    special = whole if hasattr(found, "measure") else SPECIAL
    grads = [
        [values(kind, n, 10 * (step + 1) + i, special) for i, n in enumerate(sizes)]
        for step in range(steps)
    ]
    return params, grads


def arrays_of(part: Any) -> list[np.ndarray]:
    return [part.param, part.grad, *(s for s in part.slots if not is_off(s))]


def engine(opt: ao.Optimizer, todo: Plan, shared: Any, device: Device) -> cuda.Step:
    """The engine's step of NumPy's arrays."""
    rows = []
    for part in todo.parts:
        arrays = arrays_of(part)
        device.arrays += [x if x.flags.c_contiguous else x.base.reshape(-1) for x in arrays]
        places = [x.ctypes.data for x in arrays]
        strides = None
        if not all(x.flags.c_contiguous for x in arrays):
            strides = tuple(
                tuple(s // x.itemsize for s in x.strides) or (0,) * part.param.ndim for x in arrays
            )
        sig = signature(opt.around, part)
        rows.append(cuda.Row(sig, places, part.param.size, 0, part.param.shape, strides))
    first = todo.parts[0]
    guarded = opt.nonfinite != "propagate"
    return cuda.Step(opt.around, rows, first.values | {"t": first.t}, shared, guarded=guarded)


def places(shared: Any, device: Device) -> dict[str, int]:
    """The addresses of shared state, which kernels may touch from now on."""
    if shared == ():
        return {}
    leaves = optree.tree_leaves(shared)
    device.arrays += leaves
    return {k: x.ctypes.data for k, x in zip(shared_names(shared), leaves, strict=True)}


def moved(opt: ao.Optimizer, todo: Plan, state: Any, device: Device) -> ao.State:
    """A step in place by the engine; the state after it."""
    step = engine(opt, todo, state.shared, device)
    shared = state.shared
    for what in rounds(opt.rule):
        sums = step.measure(what, places(shared, device))
        with np.errstate(all="ignore"):
            shared = opt.adapt(todo.parts, shared, sums, todo.xp)
    step.move(places(shared, device))
    return state._replace(step=state.step + 1, shared=shared)


def difference(got: np.ndarray, want: np.ndarray, eps: float, least: float = 0) -> str | None:
    """Where two arrays differ: in any bit but a NaN's if ``eps`` is 0, else by so much.

    That is relative to the array's largest number, or to ``least``.
    """
    assert got.dtype == want.dtype
    with np.errstate(invalid="ignore"):
        a, b = got.astype(float), want.astype(float)
    nan = np.isnan(b)
    if eps:
        scale = np.max(np.abs(b), where=np.isfinite(b), initial=least)
        with np.errstate(invalid="ignore"):
            same = (a == b) | (np.abs(a - b) <= eps * scale)
    else:
        bits = f"u{got.itemsize}"
        same = np.atleast_1d(got).view(bits) == np.atleast_1d(want).view(bits)
        same = same.reshape(want.shape)
    wrong = ~np.where(nan, np.isnan(a), same)
    if not wrong.any():
        return None
    return f"{wrong.sum()} of {got.size}: {got[wrong][:3]}, not {want[wrong][:3]}"


def unit(rule: Any, dtype: str) -> float:
    """How far a rule's numbers may be apart, relative to an array's largest."""
    wide = "float32" if dtype in ("float16", "bfloat16") else dtype
    found = rule if not isinstance(rule, str) else ao.rules.find(rule)
    # sums are added up in another order
    promised = getattr(found, "PARITY_EPS", 4 * hasattr(found, "measure"))
    return promised * EPS[wide] and max(promised * EPS[wide], EPS[dtype] * (dtype != wide))


def check(rule: Any, dtype: str, device: Device, hyper: dict[str, Any]) -> None:
    """Steps in place by the engine beside NumPy's, which start from the same numbers."""
    opt = ao.Optimizer(rule, **hyper)
    params, grads = problem(rule, dtype)
    needed = dict.fromkeys(each_step(opt.rule), 0.7)
    with np.errstate(all="ignore"):
        state = opt.init(params)
    for g in grads:
        mine, own = optree.tree_map(np.array, (params, state))
        todo = opt.plan(mine, g, own, needed)
        before = optree.tree_map(np.copy, g)
        after = moved(opt, todo, own, device)
        with np.errstate(all="ignore"):
            params, state = opt.step(params, g, state, **needed)
        assert after.step == state.step
        compare(rule, dtype, (g, mine, own.slots), (before, params, state.slots))
        compare_shared(after.shared, state.shared)


def compare(rule: Any, dtype: str, got: Any, want: Any) -> None:
    """Gradients, parameters and slots of the engine beside those of NumPy."""
    slots = got[2]._fields
    wide = "float64" if dtype == "float64" else "float32"
    limits = [0, unit(rule, dtype), *(unit(rule, wide) for _ in slots)]
    for name, eps, a, b in zip(
        ("gradient", "parameter", *slots),
        limits,
        (*got[:2], *got[2]),
        (*want[:2], *want[2]),
        strict=True,
    ):
        least = 1e-3 if name.startswith("d_") else 0  # MADA's derivatives of steps of this size
        for x, y in zip(optree.tree_leaves(a), optree.tree_leaves(b), strict=True):
            wrong = difference(np.asarray(x), np.asarray(y), eps, least)
            assert wrong is None, f"{name}: {wrong}"


def compare_shared(got: Any, want: Any) -> None:
    for a, b in zip(optree.tree_leaves(got), optree.tree_leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


# --- numbers


@traced
@pytest.mark.parametrize("dtype", DTYPES)
def test_compiled_for_the_host_it_is_numpy(rule, dtype, folder, monkeypatch):
    device = Device(gpu_host.by_gpp(folder)).install(monkeypatch)
    hypers = variants(rule) if dtype == "float32" else [{}]
    slow = hasattr(ao.rules.find(rule), "measure")  # 256 real threads for each of its sums
    for hyper in hypers[:: 11 if slow else 5]:  # most others: test_cuda_mutants.py
        check(rule, dtype, device, hyper)


@pytest.mark.parametrize("rule", OTHER_RULES)
def test_every_other_rule(rule, folder, monkeypatch):
    check(rule, "float32", Device(gpu_host.by_gpp(folder)).install(monkeypatch), {})


@traced
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("arch", [80, 120])  # two generations of the compiler
def test_interpreted_ptx_is_numpy(rule, dtype, arch, monkeypatch):
    package("cupy")
    if rule in ("mada", "schedule_free_adamw") and dtype == "float64":
        pytest.skip("its PTX calls a function, pow, which the interpreter has not")
    check(rule, dtype, Device(gpu_host.by_ptx(arch)).install(monkeypatch), {})


def strided_views(x: np.ndarray, how: str) -> np.ndarray:
    """The same numbers, otherwise in memory."""
    if how == "turned":
        return x.T.copy().T
    if how == "gaps":
        wide = np.repeat(np.repeat(x, 2, axis=0), 3, axis=-1)
        return wide[::6] if x.ndim == 1 else wide[::2, ..., ::3]
    return x[..., ::-1].copy()[..., ::-1]


def check_gaps(rule: str, how: str, device: Device) -> None:
    """A step of parameters that have gaps and slots and gradients that have none."""
    opt = ao.Optimizer(rule)
    shapes = ((6, 15, 4), (40,), (2, 3, 4))
    params = [values("f4", math.prod(x), i, (0.0,)).reshape(x) for i, x in enumerate(shapes)]
    grads = [values("f4", x.size, 3 + i, (0.0,)).reshape(x.shape) for i, x in enumerate(params)]
    state = opt.init(params)
    mine = [strided_views(x, how) for x in params]
    own = optree.tree_map(np.array, state)
    moved(opt, opt.plan(mine, grads, own, {}), own, device)
    want, state = opt.step(params, grads, state)
    compare(rule, "float32", (grads, mine, own.slots), (grads, want, state.slots))


@pytest.mark.parametrize("how", ["turned", "gaps", "backwards"])
@pytest.mark.parametrize("engine_of", ["g++", "PTX"])
@pytest.mark.parametrize("rule", ["adam", "mada", "madam", "novograd"])
def test_arrays_with_gaps(rule, how, engine_of, folder, monkeypatch):
    package("cupy")
    kernels = gpu_host.by_gpp(folder) if engine_of == "g++" else gpu_host.by_ptx(90)
    check_gaps(rule, how, Device(kernels).install(monkeypatch))


@traced
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1, 1)])
def test_any_shape(shape, rule, folder, monkeypatch):
    device = Device(gpu_host.by_gpp(folder)).install(monkeypatch)
    opt = ao.Optimizer(rule)
    rng = np.random.default_rng(0)
    params, grads = ([np.asarray(rng.standard_normal(shape))] for _ in range(2))
    state = opt.init(params)
    mine, own = optree.tree_map(np.array, (params, state))
    moved(opt, opt.plan(mine, grads, own, {}), own, device)
    want, state = opt.step(params, grads, state)
    compare(rule, "float64", (grads, mine, own.slots), (grads, want, state.slots))


def test_nothing_to_move(monkeypatch):
    device = Device(None).install(monkeypatch)
    opt = ao.Optimizer("adam", nonfinite="raise")
    step = cuda.Step(opt.around, [], {}, (), guarded=True)
    assert step.finite() == []
    step.move({})
    assert device.launches == []


def convert(of: str, to: str) -> tuple[Program, dict[str, int]]:
    """A program that does nothing but write ``param``, of one dtype, to ``slot``, of another."""
    graph = Graph()
    x, y = graph.input("param", of), graph.input("slot", to)
    return graph.program({"slot": XP(graph).astype(x, y.dtype)}, {}), {"param": 0, "slot": 1}


def carried_out(program: Program, columns: dict[str, int], kernels: Any, arrays: Any) -> Device:
    """One launch over arrays, one for each column, in chunks."""
    device = Device(kernels)
    device.arrays += arrays
    size = arrays[0].size
    chunks = [(0, i, min(CHUNK, size - i)) for i in range(0, size, CHUNK)]
    rows = device.sent(np.array([[x.ctypes.data for x in arrays]]))
    args = rows, device.sent(np.array(chunks))
    device.loaded(cuda_source.source(program, columns), 0)((len(chunks),), (256,), args)
    return device


@pytest.mark.parametrize("engine_of", ["g++", "PTX"])
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_conversions(half, engine_of, folder):
    """Every half, and numbers in, between and around them."""
    package("cupy")
    kernels = gpu_host.by_gpp(folder) if engine_of == "g++" else gpu_host.by_ptx(75)
    bits = np.arange(1 << 16 if engine_of == "g++" else 1 << 12, dtype=np.uint16)
    x = (bits if engine_of == "g++" else bits * 16 + bits % 16).view(numpy_dtype(half))
    wide = np.empty(x.size, "f4")
    carried_out(*convert(half, "float32"), kernels, [x, wide])
    assert difference(wide, x.astype("f4"), 0) is None
    with np.errstate(all="ignore"):
        below, above = np.nextafter(wide, np.float32(-np.inf)), wide + np.float32(1e-45)
        ties = wide.view("u4") + np.uint32(1 << (12 if half == "float16" else 15))
        for y in (wide, below, above, ties.view("f4"), ties.view("f4") * np.float32(1 + 2e-7)):
            for z in (y, y.astype("f8") * (1 + 2**-40)):
                back = np.zeros(y.size, x.dtype)
                carried_out(*convert(z.dtype.name, half), kernels, [z, back])
                # ml_dtypes and the kernel go through float32
                want = z.astype(x.dtype) if half == "float16" else z.astype("f4").astype(x.dtype)
                assert difference(back, want, 0) is None


# --- sums


def measured(dtype: str, device: Device, scale: float = 1.0) -> tuple[Any, Any, cuda.Step]:
    opt = ao.Optimizer("mada")
    params, grads = problem("mada", dtype, 1)
    state = opt.init(params)
    rng = np.random.default_rng(5)
    for name in ("d_b1", "d_b2", "d_b3", "d_rho", "d_c"):
        for x in getattr(state.slots, name):
            x[...] = scale * rng.standard_normal(x.shape)
    todo = opt.plan(params, grads[0], state, {})
    step = engine(opt, todo, state.shared, device)
    return todo, step.measure("measure", places(state.shared, device)), step


def check_sums(dtype: str, device: Device) -> None:
    """MADA's sums beside exact ones."""
    todo, (sums,), step = measured(dtype, device)
    for name, found in sums.items():
        slots = [getattr(part.slots, f"d_{name}") for part in todo.parts]
        products = [p.grad.astype(s.dtype) * s for p, s in zip(todo.parts, slots, strict=True)]
        terms = np.concatenate(products).astype(float)
        size = math.fsum(np.abs(terms))
        assert abs(float(found) - math.fsum(terms)) <= 2e-15 * size  # of float64 accumulation
    start = ao.Optimizer("mada").init(todo.parts[0].param).shared
    again = step.measure("measure", places(start, device))
    assert again == [sums]  # the order is always the same


def check_own_sums(device: Device) -> None:
    """LAMB's and NovoGrad's sums over each parameter beside exact ones."""
    for rule, names in (("lamb", ("pp", "uu")), ("novograd", ("gg",))):
        opt = ao.Optimizer(rule)
        rng = np.random.default_rng(7)
        params = [rng.standard_normal(n).astype("f4") for n in (*SIZES, 0, 900)]
        grads = [rng.standard_normal(x.shape).astype("f4") for x in params]
        state = opt.init(params)
        todo = opt.plan(params, grads, state, {})
        step = engine(opt, todo, (), device)
        assert step.measure("measure", {}) == []  # they are for no shared state
        (batch,) = step.batches
        found = batch.sums["measure"].reshape(len(params), -1)
        for part, row in zip(todo.parts, found, strict=True):
            for name, x in zip(names, row, strict=True):
                terms = {"pp": part.param**2, "gg": part.grad**2}.get(name)
                if terms is not None:
                    assert abs(x - math.fsum(terms.astype(float))) <= 2e-15 * x
                elif part.param.size:  # each element of a first step has 1 or -1
                    assert abs(x / part.param.size - 1) < 1e-2
                else:
                    assert x == 0


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("engine_of", ["g++", "PTX"])
def test_sums_over_all_elements(dtype, engine_of, folder, monkeypatch):
    package("cupy")
    kernels = gpu_host.by_gpp(folder) if engine_of == "g++" else gpu_host.by_ptx(90)
    check_sums(dtype, Device(kernels).install(monkeypatch))


@pytest.mark.parametrize("engine_of", ["g++", "PTX"])
def test_sums_over_each_parameter(engine_of, folder, monkeypatch):
    package("cupy")
    kernels = gpu_host.by_gpp(folder) if engine_of == "g++" else gpu_host.by_ptx(90)
    check_own_sums(Device(kernels).install(monkeypatch))


class Tracking:
    """A rule with a value of each parameter that is a sum over what the step makes."""

    class State(NamedTuple):
        m: Any
        length: Any  # 0-d: of m and of the step before's
        count: Any  # 0-d

    def init(self, param, *, xp):
        return self.State(xp.zeros_like(param), *[scalar(0.0, like=param, xp=xp)] * 2)

    def measure(self, param, grad, state, t, *, xp):
        return {"gg": grad * grad}

    def update(self, param, grad, state, t, *, sums, lr: ao.Rate = 0.1, xp):
        m = 0.9 * state.m + grad / (1 + xp.sqrt(sums["gg"]))
        whole = xp.astype(total(m * m, xp=xp), state.length.dtype)
        length = 0.5 * state.length + xp.sqrt(whole) + sums["gg"]
        return param - lr * m * state.length, self.State(m, length, state.count + 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("engine_of", ["g++", "PTX"])
def test_sums_of_what_a_step_makes(dtype, engine_of, folder, monkeypatch):
    package("cupy")
    kernels = gpu_host.by_gpp(folder) if engine_of == "g++" else gpu_host.by_ptx(90)
    device = Device(kernels).install(monkeypatch)
    check(Tracking(), dtype, device, {})
    # measure, its sums, move, its sums, settle
    assert [x.source == cuda_source.REDUCE for x in device.launches[:5]] == [0, 1, 0, 1, 0]
    assert len(device.launches) == 15
    assert device.fetches == []


@pytest.mark.parametrize("rule", ["adam", "mada"])
def test_finite_flags(rule, folder, monkeypatch):
    device = Device(gpu_host.by_gpp(folder)).install(monkeypatch)
    for dtype in ("float32", "float16"):
        opt = ao.Optimizer(rule, nonfinite="raise")
        params = [np.ones(n, dtype) for n in (700, 1, 257)]
        grads = [np.ones(n, dtype) for n in (700, 1, 257)]
        state = opt.init(params)
        todo = opt.plan(params, grads, state, {})
        step = engine(opt, todo, state.shared, device)
        device.fetches.clear()
        assert step.finite() == [True] * 3
        assert device.fetches == [1]
        for bad in (math.inf, -math.inf, math.nan):
            grads[0][699] = grads[2][0] = bad
            assert step.finite() == [False, True, False]
            grads[0][699] = grads[2][0] = 1


# --- the compiled code


def programs(rule: str, dtype: str, hyper: dict[str, Any]) -> dict[str, Any]:
    """Each of a rule's programs, with its columns."""
    opt = ao.Optimizer(rule, nonfinite="raise", **hyper)
    params, grads = problem(rule, dtype, 1, (3,))
    with np.errstate(all="ignore"):
        state = opt.init(params)
    (part,) = opt.plan(params, grads[0], state, {}).parts
    sig = signature(opt.around, part)
    names = ["move", "finite", "settle"] + ["measure"] * hasattr(opt.rule, "measure")
    columns = cuda.columns(opt.rule, sig, cuda.summed("move", opt.around, sig, state.shared))
    found = {n: (cuda.trace(n, opt.around, sig, state.shared, True), columns) for n in names}
    return {n: x for n, x in found.items() if n != "settle" or x[0].stores}


def _is_sum(name: str) -> bool:
    return name.startswith("sums.")


def flaws(what: str, dtype: str, exact: bool, program: Program, text: str, log: str) -> list[str]:
    """What is wrong with the PTX of a kernel over arrays without gaps."""
    found = []
    if "0 bytes spill stores, 0 bytes spill loads" not in log:
        found.append("registers spill to memory")
    read = {n.data for n in program.nodes if n.op == "input"}
    own = [x for x in program.inputs if x.name in read and not x.name.startswith("shared.")]
    once = "bool" not in program.scalars  # NVRTC makes a loop for each value of a condition
    loads = len(re.findall(r"ld\.global\.(?!nc)", text))
    stores = len(re.findall(r"st\.global\.", text))
    if what == "move" and once and (loads, stores) != (len(own), len(program.stores)):
        found.append(f"{loads} loads and {stores} stores")
    if re.search(r"\s(ld|st)\.(local|[bfus]\d)", text):
        found.append("memory that is not known to be global")
    called = {n.op for n in program.nodes} & {*FUNCTIONS, "pow"} - {"sqrt"}
    if exact and what == "move" and not called:
        if re.search(r"\.approx|\bfma\.|\b(add|sub|mul|div|sqrt)\.(?!rn\.)[\w.]*f\d", text):
            found.append("an operation that is not one of IEEE 754's + - * / sqrt")
        sums = r"ld\.global\.f64|cvt\.rn\.f32\.f64|\.reg \.f64"  # which are read, and narrowed
        if dtype != "float64" and ".f64" in re.sub(
            sums if any(map(_is_sum, read)) else " ", "", text
        ):
            found.append("double precision")
    return found


@traced
@pytest.mark.parametrize("dtype", DTYPES)
def test_compiles_for_each_architecture(rule, dtype):
    package("cupy")
    exact = not hasattr(ao.rules.find(rule), "PARITY_EPS")
    found = programs(rule, dtype, {})
    if rule != "adam":
        del found["finite"]  # the same for all
    for arch in ARCHITECTURES if dtype == "float32" else ARCHITECTURES[::2]:
        for what, (program, columns) in found.items():
            made = gpu_host.nvrtc(cuda_source.source(program, columns), arch)
            assert flaws(what, dtype, exact, program, made.ptx, made.log) == [], (arch, what)
        if dtype == "float32":
            text = cuda_source.source(*found["move"], strided=True)
            assert "0 bytes spill stores, 0 bytes spill loads" in gpu_host.nvrtc(text, arch).log
    assert "0 bytes spill stores" in gpu_host.nvrtc(cuda_source.REDUCE, 90).log


@traced
def test_each_byte_moves_once(rule, monkeypatch):
    """What a step must read and write, it reads and writes once; the gradient it only reads."""
    package("cupy")
    device = Device(gpu_host.by_ptx(90)).install(monkeypatch)
    opt = ao.Optimizer(rule)
    params, grads = problem(rule, "float32", 1)
    with np.errstate(all="ignore"):
        state = opt.init(params)
    todo = opt.plan(params, grads[0], state, {})
    moved(opt, todo, state, device)
    made = programs(rule, "float32", {})
    found = {x.source: memory for x, memory in zip(device.launches, device.memories, strict=True)}
    for what in made.keys() - {"finite"}:
        program, columns = made[what]
        memory = found[cuda_source.source(program, columns)]
        single = {x.name for x in program.inputs if x.single}
        loaded = {node.data for node in program.nodes if node.op == "input"}
        stored = {name for name, _ in program.stores}
        always = "bool" not in program.scalars  # what a host's condition decides is not read
        for part in todo.parts:
            for name, x in zip(columns, arrays_of(part), strict=False):  # sums are no arrays
                reads, writes = memory.counts(x)
                if name not in single:
                    assert set(reads) <= {0, int(name in loaded)}, name
                    assert not always or set(reads) == {int(name in loaded)}, name
                assert set(writes) == {int(name in stored)}, name


# --- CuPy without a GPU: real arrays over host memory, real launches on the device of gpu_host.py


def fake(x: np.ndarray, device: int = 0) -> Any:
    """A CuPy array over a NumPy array's memory; only its arithmetic needs a device."""
    cupy = package("cupy")

    class Host(cupy.cuda.memory.BaseMemory):
        def __init__(self, owner):
            self.owner, self.ptr = owner, owner.ctypes.data
            self.size, self.device_id = owner.nbytes, device

    base = x.base if isinstance(x.base, np.ndarray) else x
    pointer = cupy.cuda.memory.MemoryPointer(Host(base), x.ctypes.data - base.ctypes.data)
    return cupy.ndarray(x.shape, x.dtype, memptr=pointer, strides=x.strides)


def seen(tree: Any) -> Any:
    """NumPy's view of CuPy arrays over host memory."""
    from arrayopt.backends import _cupy_fused

    return optree.tree_map(
        lambda x: x if isinstance(x, np.ndarray | np.generic) else _cupy_fused.mirrored(x), tree
    )


def there(tree: Any) -> Any:
    """As CuPy arrays, over the same memory."""
    return optree.tree_map(lambda x: fake(np.asarray(x)), tree)


def copied(tree: Any) -> Any:
    return there(optree.tree_map(np.array, tree))


def is_numpy(tree: Any) -> bool:
    return all(isinstance(x, np.ndarray | np.generic) for x in optree.tree_leaves(tree))


@pytest.fixture
def cupy_adapter():
    return adapter("cupy")


@pytest.fixture
def device(folder, monkeypatch, cupy_adapter) -> Device:
    """The device, and an optimizer whose eager parts run in NumPy."""
    found = Device(gpu_host.by_gpp(folder)).install(monkeypatch)
    found.wrap = fake
    init, adapt = ao.Optimizer.init, ao.Optimizer.adapt

    def started(self, params):
        state = init(self, seen(params))
        return (
            state
            if is_numpy(params)
            else state._replace(shared=there(state.shared), slots=there(state.slots))
        )

    def adapted(self, parts, shared, sums, xp):
        with np.errstate(all="ignore"):
            new = adapt(self, parts, seen(shared), seen(sums), namespace(np.empty(0)))
        return new if is_numpy(shared) else there(new)

    monkeypatch.setattr(ao.Optimizer, "init", started)
    monkeypatch.setattr(ao.Optimizer, "adapt", adapted)
    return found


def mixed(rule: str, steps: int = 3) -> tuple[Any, list[Any]]:
    """A tree of several shapes and two dtypes."""
    params, grads = problem(rule, "float32", steps, (700, 12))
    wide, wide_grads = problem(rule, "float64", steps, (301,))
    trees = [
        {"w": a.reshape(7, 100), "b": [b], "x": c}
        for (a, b), (c,) in zip([params, *grads], [wide, *wide_grads], strict=True)
    ]
    return trees[0], trees[1:]


@traced
@pytest.mark.parametrize("hyper", [{}, {"weight_decay": 0.1, "lr": lambda n: 0.1 / (1 + n)}])
def test_a_whole_step_is_numpy(rule, hyper, device, cupy_adapter):
    params, grads = mixed(rule)
    mine = copied(params)
    opt = cupy_adapter.InPlace(mine, rule, engine="fused", **hyper)
    reference = ao.Optimizer(rule, **hyper)
    state = ao.State(0, *optree.tree_map(np.array, seen((opt.state.shared, opt.state.slots))))
    eps = unit(rule, "float32")
    for g in grads:
        opt.step(copied(g))
        with np.errstate(all="ignore"):
            params, state = reference.step(params, g, state)
        assert opt.state.step == state.step
        for a, b in zip(
            optree.tree_leaves((seen(mine), seen(opt.state.slots))),
            optree.tree_leaves((params, state.slots)),
            strict=True,
        ):
            wrong = difference(a, b, 10 * eps, 0.1)  # of three steps, each on the one before
            assert wrong is None, wrong
    assert device.fetches == []


def chunk_count(sizes: Any) -> int:
    return sum(-(-n // CHUNK) for n in sizes)


def tables(launch: gpu_host.Launch) -> tuple[np.ndarray, np.ndarray]:
    return seen(launch.args[0]), seen(launch.args[1])


def test_one_launch_for_each_dtype(device, cupy_adapter):
    params, grads = mixed("adam", 1)
    mine, g = copied(params), copied(grads[0])
    opt = cupy_adapter.InPlace(mine, "adam")
    opt.step(g)
    assert len(device.launches) == 2
    for launch, names in zip(device.launches, (("b", "w"), ("x",)), strict=True):
        assert launch.block == cuda_source.THREADS
        rows, chunks = tables(launch)
        m, v = opt.state.slots
        pick = [[t[k][0] if k == "b" else t[k] for t in (mine, g, m, v)] for k in names]
        assert rows.tolist() == [[x.data.ptr for x in row] for row in pick]
        covered = [np.zeros(row[0].size, int) for row in pick]
        assert launch.grid == len(chunks)
        for row, start, count in chunks:
            assert 0 < count <= CHUNK
            covered[row][start : start + count] += 1
        assert all((x == 1).all() for x in covered)


def test_tables_are_sent_when_they_change(device, cupy_adapter):
    params, grads = problem("adam", "float32", 3)
    opt = cupy_adapter.InPlace(copied(params), "adam")
    buffers = [copied(g) for g in grads]

    def sends(g):
        before = len(device.sends)
        opt.step(g)
        return len(device.sends) - before

    assert sends(buffers[0]) == 3  # addresses, chunks and where each parameter's begin
    assert sends(buffers[0]) == 0
    assert sends(buffers[1]) == 1  # addresses alone
    assert seen(device.launches[-1].args[0])[:, 1].tolist() == [x.data.ptr for x in buffers[1]]
    device.now = 5  # a stream that need not wait for what the other one sends
    assert sends(buffers[1]) == 3
    assert sends(buffers[1]) == 0
    assert opt.state.step == 5


def test_launches_of_a_rule_with_sums(device, cupy_adapter):
    params, grads = problem("mada", "float32", 2)
    opt = cupy_adapter.InPlace(copied(params), "mada", nonfinite="skip")
    for g in grads:
        device.launches.clear()
        device.fetches.clear()
        opt.step(copied(g))
        finite, reduce, measure, again, move = device.launches
        assert reduce.source == again.source == cuda_source.REDUCE
        assert (reduce.grid, again.grid) == (1, 5)
        assert finite.grid == measure.grid == move.grid == chunk_count(SIZES)
        assert device.fetches == [1]  # the flag
    shared = optree.tree_leaves(opt.state.shared.value)
    assert [int(x) for x in move.args[2:7]] == [x.data.ptr for x in shared]


@pytest.mark.parametrize(
    ("rule", "kernels"),
    [
        ("lamb", ["measure", "each", "move"]),
        ("novograd", ["measure", "each", "move", "settle"]),
        ("schedule_free_adamw", ["move", "settle"]),
        ("prodigy", ["measure", "all", "move"]),
    ],
)
def test_launches_of_a_rule_with_sums_over_each(rule, kernels, device, cupy_adapter):
    """Nothing but launches, and no table is sent again for them."""
    params, grads = problem(rule, "float32", 3)
    opt = cupy_adapter.InPlace(copied(params), rule, engine="fused")
    made = {cuda_source.source(*x): what for what, x in programs(rule, "float32", {}).items()}
    held = copied(grads[0])
    counts = {"settle": len(SIZES)} | dict.fromkeys(("measure", "move"), chunk_count(SIZES))
    counts |= {"all": 2, "each": len(SIZES) * (2 if rule == "lamb" else 1)}
    for k in range(3):
        device.launches.clear()
        device.sends.clear()
        before = optree.tree_leaves(opt.state.shared)
        opt.step(held)
        names = [made.get(x.source, kernels[1]) for x in device.launches]
        assert names == kernels
        assert [x.grid for x in device.launches] == [counts[x] for x in names]
        assert bool(device.sends) == (k == 0)
        if rule == "prodigy":  # the state before tells what is summed, that after what is moved
            first, last = (device.launches[i].args for i in (0, -1))
            after = [x.data.ptr for x in optree.tree_leaves(opt.state.shared)]
            assert int(first[2]) == before[0].data.ptr
            assert [int(x) for x in last[2:4]] == after[:2]
    assert device.fetches == []


def test_a_step_like_the_last_is_not_planned_again(device, cupy_adapter, monkeypatch):
    params, grads = problem("adam", "float32", 3)
    opt = cupy_adapter.InPlace(copied(params), "adam")
    opt.step(copied(grads[0]))
    planned = []
    plan = ao.Optimizer.plan
    monkeypatch.setattr(ao.Optimizer, "plan", lambda *args: planned.append(args) or plan(*args))
    opt.step(copied(grads[1]))
    opt.step(copied(grads[2]), lr=0.5)
    assert planned == []
    for change in (
        lambda: opt.step([*copied(grads[0])[:2], None]),
        lambda: opt.step(copied(grads[0])),  # all of them again
        lambda: opt.step(copied(grads[0]), weight_decay=0.1),
        lambda: opt.step([fake(np.repeat(g, 2)[::2]) for g in grads[0]]),
    ):
        planned.clear()
        change()
        assert len(planned) == 1
    planned.clear()
    opt.state = opt.state._replace(slots=copied(seen(opt.state.slots)))
    opt.step(copied(grads[0]))
    assert len(planned) == 1


def test_none_gradient_and_override(device, cupy_adapter):
    mine = copied({"w": np.ones(3), "b": np.ones(2)})
    opt = cupy_adapter.InPlace(mine, "sgd")
    opt.step({"w": fake(np.array([1.0, 0.0, 2.0])), "b": None}, lr=0.5)
    assert seen(mine)["w"].tolist() == [0.5, 1.0, 0.0]
    assert seen(mine)["b"].tolist() == [1.0, 1.0]
    opt.step({"w": None, "b": None})
    assert opt.state.step == 2


@pytest.mark.parametrize("how", ["skip", "raise"])
def test_nonfinite_changes_nothing(how, device, cupy_adapter):
    params, good = ([values("f4", n, i, (0.0,)) for n in SIZES] for i in range(2))
    mine = copied(params)
    opt = cupy_adapter.InPlace(mine, "adan", nonfinite=how)
    opt.step(copied(good))
    before = optree.tree_map(np.array, seen((mine, opt.state.slots)))
    bad = [good[0], good[1], np.where(np.arange(SIZES[2]) == 256, np.float32(np.inf), good[2])]
    if how == "skip":
        opt.step(copied(bad))
    else:
        with pytest.raises(FloatingPointError, match=r"adan: the gradient of \[2\] is not finite"):
            opt.step(copied(bad))
    optree.tree_map(np.testing.assert_array_equal, seen((mine, opt.state.slots)), before)
    assert opt.state.step == 1


def test_engines(device, cupy_adapter, monkeypatch):
    monkeypatch.setattr("arrayopt._plan.local", lambda value, *args: value)  # moves no array
    p = copied({"w": np.ones(3)})
    with pytest.raises(ValueError, match=r"adam: engine must be one of .* or None, got 'blocks'"):
        cupy_adapter.InPlace(p, "adam", engine="blocks")
    with pytest.raises(TypeError, match="adam: no engine 'fused': lr is an array"):
        cupy_adapter.InPlace(p, "adam", engine="fused", lr=np.ones(3))
    whole = []
    monkeypatch.setattr(cupy_adapter.InPlace, "_whole", lambda self, *args: whole.append(args))
    for engine, hyper in ((None, {"lr": np.ones(3)}), ("eager", {})):
        opt = cupy_adapter.InPlace(p, "adam", engine=engine, **hyper)
        opt.step(copied({"w": np.ones(3)}))
    assert len(whole) == 2
    assert device.launches == []


def test_what_a_failing_step_changes(device, cupy_adapter):
    """Nothing."""
    mine = copied({"w": np.ones(3), "b": np.ones((2, 2), np.float32)})
    opt = cupy_adapter.InPlace(mine, "adam")
    good = copied({"w": np.ones(3), "b": np.ones((2, 2), np.float32)})
    for bad, text in [
        (good | {"w": fake(np.ones(4))}, "must have shape"),
        (good | {"w": fake(np.ones(3, int))}, "must be real floating"),
        (good | {"w": np.ones(3)}, "is an array of numpy.*of cupy"),
        (good | {"w": mine["w"]}, r"\['w'\] and the gradient of \['w'\] share memory"),
    ]:
        for _ in range(2):
            with pytest.raises((TypeError, ValueError), match=text):
                opt.step(bad)
            assert opt.state.step == 0
            assert device.launches == []
    opt.step(good)
    with pytest.raises(ValueError, match="share memory"):
        opt.step(good | {"w": mine["w"]})
    assert opt.state.step == 1


def test_refused_parameters(device, cupy_adapter):
    base = np.ones(8, np.float32)
    x = fake(base)
    for params in ({"a": x, "b": x}, {"a": x[:5], "b": x[3:]}):
        with pytest.raises(ValueError, match=r"adam: \['a'\] and \['b'\] share memory"):
            cupy_adapter.InPlace(params, "adam")
    with pytest.raises(TypeError, match="must be a CuPy array"):
        cupy_adapter.InPlace({"a": np.ones(3)}, "adam")
    cupy_adapter.InPlace({"a": x[::2], "b": x[1::2]}, "adam")  # interleaved, but apart


@pytest.mark.parametrize("rule", ["adam", "madam", "mada"])
def test_views_of_other_layouts(rule, device, cupy_adapter):
    """Two parameters side by side with gaps; gradients that have gaps in the first step alone."""
    params, grads = problem("mada", "float32", 2, (60, 60))
    params, *grads = ([x.reshape(5, 12) for x in tree] for tree in (params, *grads))
    whole = np.zeros((10, 24), np.float32)
    mine = [fake(whole)[k::2, ::2] for k in range(2)]
    for x, start in zip(mine, params, strict=True):
        seen(x)[...] = start
    opt = cupy_adapter.InPlace(mine, rule, engine="fused")
    reference, want = ao.Optimizer(rule), params
    state = reference.init(want)
    gaps = [fake(np.repeat(g, 2, axis=1))[:, ::2] for g in grads[0]]
    for g in (gaps, there(grads[1])):
        opt.step(g)
        with np.errstate(all="ignore"):
            want, state = reference.step(want, optree.tree_map(np.array, seen(g)), state)
    for x, y in zip(seen(mine), want, strict=True):
        assert difference(x, y, 10 * unit(rule, "float32"), 0.1) is None
    assert not whole[:, 1::2].any()
    if rule == "adam":  # the last axis first, for neighbours to lie side by side
        for row in seen(device.launches[-1].args[0]).tolist():
            assert row[4:] == [12, 5, 2, 48, 1, 12, 1, 12, 1, 12]


def test_one_order_for_all_needs_no_strides(device, cupy_adapter):
    x = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    opt = cupy_adapter.InPlace(fake(x), "sgd", lr=0.5)
    opt.step(fake(np.asfortranarray(np.ones((3, 4), np.float32))))
    np.testing.assert_array_equal(x, np.arange(12).reshape(3, 4) - 0.5)
    assert "dims" not in device.launches[-1].source


def test_state_that_no_kernel_takes(device, cupy_adapter, monkeypatch):
    """Shared state in another dtype, a slot on another device."""
    monkeypatch.setattr(cupy_adapter.InPlace, "_whole", lambda self, *args: None)
    p, g = [np.ones(3, np.float32)], [np.ones(3, np.float32)]
    for rule, text in (("mada", "shared state is not float64"), ("madam", "several devices")):
        for engine in (None, "fused"):
            opt = cupy_adapter.InPlace(copied(p), rule, engine=engine)
            shared, slots = seen((opt.state.shared, opt.state.slots))
            if rule == "mada":
                shared = optree.tree_map(lambda x: fake(np.asarray(x, np.float32)), shared)
                opt.state = opt.state._replace(shared=shared)
            else:
                there_too = [fake(np.asarray(slots.scale[0]), device=1)]
                opt.state = opt.state._replace(slots=opt.state.slots._replace(scale=there_too))
            if engine:
                with pytest.raises(TypeError, match=f"no engine 'fused': .*{text}"):
                    opt.step(copied(g))
            else:
                opt.step(copied(g))
            assert device.launches == []


class Recorder:
    """A rule that computes nothing: it shows what it is given."""

    State = ao.adamax.State

    def __init__(self):
        self.calls = []

    def init(self, param, *, xp):
        return self.State(*(fake(np.zeros(param.shape, np.float32)) for _ in range(2)))

    def update(self, param, grad, state, t, *, lr: ao.Rate = 0.1, xp):
        self.calls.append((xp.__name__, type(param).__module__, t, lr))
        return param, state


def test_the_eager_engine_gives_the_rule_cupy_arrays(cupy_adapter):
    p, g = (fake(np.ones((2, 3), np.float32)) for _ in range(2))
    rule = Recorder()
    opt = cupy_adapter.InPlace({"w": p}, rule, engine="eager", lr=lambda n: 0.5 / (1 + n))
    opt.step({"w": g})
    opt.step({"w": g}, lr=0.25)
    assert rule.calls == [
        ("array_api_compat.cupy", "cupy", 1, 0.5),
        ("array_api_compat.cupy", "cupy", 2, 0.25),
    ]
    assert opt.state.step == 2  # a Python number: nothing was fetched from a device


# --- the driver


def test_machine_code_or_ptx():
    package("cupy")
    assert cuda_driver.compiled(cuda_source.REDUCE, 90)[:4] == b"\x7fELF"
    newer = cuda_driver.compiled(cuda_source.REDUCE, 999)  # than NVRTC knows
    assert ".version" in (newer if isinstance(newer, str) else newer.decode())
    with pytest.raises(RuntimeError, match=r"NVRTC: (?s:.*)nonsense"):
        cuda_driver.compiled("nonsense", 90)


def test_calls_of_cupy(monkeypatch):
    """The current stream and device are CuPy's, and a function is called without another one."""
    calls = []

    class Module:
        def load(self, code):
            calls.append(("load", bytes(code)[:4]))

        def get_function(self, name):
            return name

    real = package("cupy").cuda

    class CuPy:
        class cuda:  # noqa: N801
            nvrtc = real.nvrtc
            get_current_stream = staticmethod(lambda: "stream")

            class function:  # noqa: N801
                pass

            class Device:
                compute_capability = "80"

                def __init__(self, number):
                    self.number = number

        asarray = staticmethod(lambda x: ("there", x))
        asnumpy = staticmethod(lambda x: ("here", x))
        empty = staticmethod(lambda n, dtype: (n, dtype))

    CuPy.cuda.function.Module = Module
    monkeypatch.setattr(cuda_driver, "_cupy", lambda: CuPy)
    cuda_driver.loaded.cache_clear()
    assert [cuda_driver.loaded(cuda_source.REDUCE, 3) for _ in range(2)] == ["kernel"] * 2
    assert calls == [("load", b"\x7fELF")]
    cuda_driver.loaded.cache_clear()
    assert cuda_driver.on(3).number == 3
    assert cuda_driver.stream() == "stream"
    assert cuda_driver.sent(1) == ("there", 1)
    assert cuda_driver.fetched(2) == ("here", 2)
    assert cuda_driver.empty(4) == (4, np.float64)
    assert cuda_driver.address(fake(x := np.zeros(3))) == x.ctypes.data
