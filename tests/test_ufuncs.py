"""Programs carried out by NumPy's functions, beside the rules run eagerly."""

import threading
import tracemalloc
from typing import NamedTuple

import numpy as np
import optree
import pytest
from conftest import REPRESENTATIVE, sums

import arrayopt as ao
from arrayopt._namespace import quiet
from arrayopt._step import is_elementwise, is_off, measure
from arrayopt.fuse.program import Input, Node, Program, Untraceable
from arrayopt.fuse.trace import shared_names, signature, trace
from arrayopt.fuse.ufuncs import Blocks

DTYPES = ("float16", "float32", "float64")
AROUND = {
    "plain": {},
    "coupled": {"weight_decay": 0.1, "decay": "coupled"},
    "decoupled": {"weight_decay": 0.1, "decay": "decoupled"},
    "independent": {"weight_decay": 0.1, "decay": "independent", "maximize": True},
}
OPTIONS = {  # of each rule
    "adam": [{"eps": 0.0}, {"eps_root": 1e-3}],
    "adamax": [{"eps": 0.0}, {"eps_in_max": True}],
    "adan": [{"bias_correction": False, "eps": 0.0, "eps_root": 0.0}, {"difference_weight": 0.5}],
    "mada": [{"accumulate": "mean", "first_difference": "zero"}, {"yogi_reference": "ema"}],
    "madam": [{"g_bound": 0.7, "p_scale": 1.0}, {"lr": 0.0}],
    "maxva_lamadam": [{"b_first": 0.3, "eps": 0.0}],
    "maxva_madam": [{"amsgrad": True, "nesterov": True}, {"b_first": 0.0, "eps": 0.0}],
    "sgd": [{"lr": 1e39}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.3, "nesterov": True}],
    "yogi": [{"initial_accumulator": 0.0, "eps": 0.0}],
}
CASES = [
    *(
        (name, hyper)
        for name in REPRESENTATIVE
        for hyper in AROUND.values()
        if is_elementwise(ao.rules.find(name))
    ),
    *((name, hyper) for name, several in OPTIONS.items() for hyper in several),
]
CASE = pytest.mark.parametrize(("name", "hyper"), CASES, ids=str)


def data(dtype, shape=(9, 31), steps=5, finite=False):
    """A parameter and gradients: rows that are always 0, and what is no ordinary number."""
    rng = np.random.default_rng(3)
    found = []
    for k in range(steps + 1):
        x = rng.standard_normal(shape).astype(dtype)
        rows = x.reshape(-1, shape[-1]) if x.size else x[None]
        rows[1:2] = 0.0  # v = 0 in every step
        if not finite and k != 1:  # the first gradient is an ordinary one
            odd = [np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-7, 6e4]
            rows[2:3, :7] = odd[: shape[-1]]
            rows[3:4, :7] = odd[: shape[-1]][::-1]
        found.append(x)
    return found[0], found[1:]


def same(got, want):
    """To the bit, but for what a NaN carries."""
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)
    numbers = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(want)[numbers])


def known(part):
    """The arrays of a part by name, and the numbers."""
    slots = zip(part.slots._fields, part.slots, strict=True)
    arrays = {"param": part.param, "grad": part.grad} | {k: x for k, x in slots if not is_off(x)}
    return arrays, part.values | {"t": part.t}


def program_of(what, opt, param, state):
    part = opt.plan(param, param, state, {}).parts[0]
    return trace(what, opt.around, signature(opt.around, part), state.shared, inside=True)


def runs_of(opt, param, state, change=lambda program: program):
    """The programs of a step by name; ``change`` is of the one that moves."""
    whats = ["move", "settle"] + ["measure"] * hasattr(opt.rule, "measure")
    found = {what: program_of(what, opt, param, state) for what in whats}
    found["move"] = change(found["move"])
    return {what: Blocks(p) for what, p in found.items() if p.stores or p.sums}


def advance(opt, runs, param, grad, state):
    """One step in place by ``runs``, the compiled programs by name."""
    todo = opt.plan(param, grad, state, {})
    arrays, values = known(todo.parts[0])
    shared = state.shared

    def carried_out(what):
        run = runs[what]
        arrays.update(zip(shared_names(shared), optree.tree_leaves(shared), strict=True))
        totals = run(arrays, run.scalars(values))
        return dict(zip(run.sums, map(np.asarray, totals), strict=True))

    if "measure" in runs:
        own = carried_out("measure")
        arrays |= {f"sums.{name}": x for name, x in own.items()}
        with quiet(todo.xp):
            shared = opt.adapt(todo.parts, shared, [own], todo.xp)
    arrays |= carried_out("move")
    if "settle" in runs:
        carried_out("settle")
    return state._replace(step=state.step + 1, shared=shared)


def run_both(name, hyper, param, grads, layout=np.array, change=lambda program: program):
    """Parameter and slots after steps by the traced program, and by the rule."""
    opt = ao.Optimizer(name, **hyper)
    mine, state = layout(param), opt.init(param)
    state = state._replace(slots=optree.tree_map(lambda x: layout(x) if x.ndim else x, state.slots))
    runs = runs_of(opt, param, state, change)
    want, eager = param, opt.init(param)
    for g in grads:
        state = advance(opt, runs, mine, layout(g), state)
        want, eager = opt.step(want, g, eager)
    return [mine, *optree.tree_leaves(state.slots)], [want, *optree.tree_leaves(eager.slots)]


@CASE
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_is_that_of_the_eager_rule(name, hyper, dtype):
    # sums of all elements would turn everything into NaN
    got, want = run_both(name, hyper, *data(dtype, finite=sums(name)))
    for a, b in zip(got, want, strict=True):
        same(a, b)


LAYOUTS = {
    "Fortran": np.asfortranarray,
    "every second": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "backwards": lambda x: x[::-1].copy()[::-1],
    "inside": lambda x: np.pad(x, 3)[3:-3, 3:-3],
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["adam", "madam", "maxva_madam"])
def test_any_view(name, dtype, layout):
    got, want = run_both(name, {"weight_decay": 0.1}, *data(dtype), layout=layout)
    for a, b in zip(got, want, strict=True):
        same(a, b)


@pytest.mark.usefixtures("elementwise")
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0), (2, 3, 4, 5)])
def test_any_shape(shape, rule):
    rng = np.random.default_rng(0)
    param, grad = np.asarray(rng.standard_normal(shape)), np.asarray(rng.standard_normal(shape))
    got, want = run_both(rule, {}, param, [grad, -grad])
    for a, b in zip(got, want, strict=True):
        same(a, b)


# --- what is read after something else has been written


class Tangled:
    """A rule whose new slots are old ones, one another and constants."""

    class State(NamedTuple):
        a: np.ndarray
        b: np.ndarray
        before: np.ndarray
        kept: np.ndarray
        twice: np.ndarray
        again: np.ndarray
        none: np.ndarray
        count: np.ndarray

    def init(self, param, *, xp):
        return self.State(*(xp.full_like(param, float(k)) for k in range(8)))

    def measure(self, param, grad, state, t, *, xp):
        return {"ones": xp.ones_like(param), "grad": grad, "product": param * grad}

    def update(self, param, grad, state, t, *, lr: ao.Rate = 0.1, xp):
        twice = 2 * state.before
        kept = xp.where(grad > 0, state.kept, param)
        new = self.State(
            state.b,
            state.a,
            param,
            kept,
            twice,
            twice,
            xp.zeros_like(param),
            xp.where(t == 1, state.count, state.count + 1),
        )
        return param - lr * (state.a + state.again) * grad, new


@pytest.mark.parametrize("dtype", DTYPES)
def test_stores_that_are_read_elsewhere(dtype):
    got, want = run_both(Tangled(), {}, *data(dtype))
    for a, b in zip(got, want, strict=True):
        same(a, b)


# --- sums


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", ["mada", Tangled()], ids=["mada", "tangled"])
def test_sums_are_those_of_the_eager_rule(rule, dtype):
    opt = ao.Optimizer(rule)
    param, (grad, *_) = data(dtype, finite=True)
    state = opt.init(param)
    rng = np.random.default_rng(1)
    slots = optree.tree_map(lambda x: rng.standard_normal(x.shape).astype(x.dtype), state.slots)
    todo = opt.plan(param, grad, state._replace(slots=slots), {})
    want = measure("measure", opt.around, todo.parts[0], state.shared, {}, xp=todo.xp)
    run = Blocks(program_of("measure", opt, param, state))
    arrays, values = known(todo.parts[0])
    before = optree.tree_map(np.array, arrays)
    got = run(arrays, run.scalars(values))
    assert got == tuple(want.values())
    optree.tree_map(same, arrays, before)


def test_finite_counts():
    opt = ao.Optimizer("adam")
    param, grad = np.ones((4, 5), np.float32), np.ones((4, 5))
    state = opt.init(param)
    part = opt.plan(param, grad, state, {}).parts[0]
    run = Blocks(trace("finite", opt.around, signature(opt.around, part)))
    assert run({"param": param, "grad": grad}, ()) == (0.0,)
    grad[1] = np.nan
    grad[2, 2], grad[3, 3] = -np.inf, 1e39  # which float32 has not
    assert run({"param": param, "grad": grad}, ()) == (7.0,)


# --- scratch memory


def pieces(name, dtype, size):
    """A run, and a function that gives fresh arrays of so many elements and what they become."""
    opt = ao.Optimizer(name, weight_decay=0.1)
    param, (grad,) = data(dtype, shape=(4, size), steps=1)
    state = opt.init(param)
    run = Blocks(program_of("move", opt, param, state))

    def piece(n):
        p = param[:, :n].copy()
        part = opt.plan(p, grad[:, :n], opt.init(p), {}).parts[0]
        arrays, values = known(part)
        want, after = opt.step(p.copy(), grad[:, :n], opt.init(p))
        wanted = {"param": want} | dict(zip(after.slots._fields, after.slots, strict=True))
        return arrays, run.scalars(values), wanted

    return run, piece


def check(arrays, wanted):
    for key, want in wanted.items():
        if not is_off(want):
            same(arrays[key], want)


@pytest.mark.parametrize("name", ["adam", "madam", "maxva_madam"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_of_several_sizes_in_turn(name, dtype):
    run, piece = pieces(name, dtype, 64)
    for n in (16, 64, 1, 33, 64):
        arrays, scalars, wanted = piece(n)
        run(arrays, scalars)
        check(arrays, wanted)


def test_threads_do_not_share_scratch_memory():
    run, piece = pieces("maxva_madam", "float32", 4096)
    work = [[piece(n) for _ in range(20)] for n in (4096, 1000, 4096)]
    together = threading.Barrier(len(work))

    def go(several):
        together.wait()
        for arrays, scalars, _ in several:
            run(arrays, scalars)

    threads = [threading.Thread(target=go, args=(several,)) for several in work]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    for arrays, _, wanted in (x for several in work for x in several):
        check(arrays, wanted)


@pytest.mark.usefixtures("elementwise")
def test_nothing_as_large_as_a_block_is_allocated(rule):
    opt = ao.Optimizer(rule)
    param, grads = data("float32", shape=(1 << 18,), finite=True)
    state = opt.init(param)
    runs = runs_of(opt, param, state)
    state = advance(opt, runs, param, grads[0], state)
    advance(opt, runs, param, grads[1], state)
    tracemalloc.start()
    advance(opt, runs, param, grads[2], state)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < param.size  # a block of bool; casts go through NumPy's own buffer


def test_scratch_memory_stays_for_blocks_of_another_size():
    run, piece = pieces("adam", "float32", 1 << 16)
    work = [piece(n) for n in (1 << 16, 1 << 15, 1 << 16, 1 << 15)]
    for arrays, scalars, _ in work[:2]:
        run(arrays, scalars)
    tracemalloc.start()
    for arrays, scalars, _ in work[2:]:
        run(arrays, scalars)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 15


@pytest.mark.parametrize(
    ("name", "what", "arrays", "scratch"),
    [
        ("sgd", "move", 2, 4),
        ("adam", "move", 4, 2 * 4 + 1 + 4),  # two values, a condition, a mask for it
        ("maxva_madam", "move", 6, 4 * 4 + 1 + 4),
        ("mada", "measure", 6, 4),
    ],
)
def test_memory_is_used_again(name, what, arrays, scratch):
    opt = ao.Optimizer(name)
    param = np.ones(3, np.float32)
    run = Blocks(program_of(what, opt, param, opt.init(param)))
    assert run.bytes_per_element == 4 * arrays + scratch


# --- that the comparison sees every operation


def without(program, i):
    """The program with the first argument of node ``i`` in its place; None if that has no sense."""
    kind = program.nodes[i].dtype
    alike = [j for j in program.nodes[i].args if program.nodes[j].dtype == kind]
    if not alike:
        return None

    def moved(j):
        return alike[0] if j == i else j

    nodes = tuple(n._replace(args=tuple(map(moved, n.args))) for n in program.nodes)
    return program._replace(nodes=nodes, stores=tuple((k, moved(j)) for k, j in program.stores))


MUTATED = {
    "adam": [{"eps": 0.0, "eps_root": 0.0}, {"eps": 0.1, "eps_root": 0.1}],
    "maxva_madam": [
        {"b_hi": 0.9, "eps": 0.0, "delta": 0.1},
        {"b_hi": 0.9, "eps": 0.1, "delta": 0.1},
    ],
}


@pytest.mark.parametrize("name", MUTATED)
def test_an_operation_left_out_is_noticed(name):
    param, grads = data("float64", finite=True)
    opt = ao.Optimizer(name)
    size = len(program_of("move", opt, param, opt.init(param)).nodes)
    tried = 0
    for i in range(size):
        seen = []
        for hyper in MUTATED[name]:

            def change(program, i=i):
                return without(program, i) or program

            got, want = run_both(name, hyper, param, grads, change=change)
            seen.append(any(not np.array_equal(a, b) for a, b in zip(got, want, strict=True)))
        opened = program_of("move", opt, param, opt.init(param))
        if without(opened, i):
            tried += 1
            assert any(seen), opened.nodes[i]
        else:
            assert not any(seen)
    assert tried > 12


# --- refusals


def program(*nodes):
    inputs = (Input("param", nodes[0].dtype, False),)
    return Program(inputs, nodes, (("param", len(nodes) - 1),), (), (), (), lambda: ())


def test_refusals():
    param = Node("input", "float32", data="param")
    with pytest.raises(Untraceable, match="it calls cumsum, which this engine has not"):
        Blocks(program(param, Node("cumsum", "float32", (0,))))
    half = Node("input", "bfloat16", data="param")
    with pytest.raises(Untraceable, match="NumPy has no bfloat16"):
        Blocks(program(half, Node("negative", "bfloat16", (0,))))
    with pytest.raises(Untraceable, match="one value for a parameter alone"):
        Blocks(Program((Input("s", "float32", True),), (), (), (), (), (), lambda: ()))
