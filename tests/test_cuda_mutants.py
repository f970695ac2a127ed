"""The checks of the CUDA engine have teeth: kernels that are wrong in one place are found out."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import gpu_host
import numpy as np
import optree
import ptx
import pytest
from conftest import package
from gpu_host import Device
from test_cuda import (
    arrays_of,
    check,
    check_gaps,
    check_own_sums,
    check_sums,
    difference,
    flaws,
    folder,
    problem,
    programs,
    small_chunks,
    traced,
    unit,
    variants,
)

import arrayopt as ao
from arrayopt._schema import rounds
from arrayopt._step import is_off, measure
from arrayopt.fuse import cuda_driver, cuda_source
from arrayopt.fuse.program import BINARY, COMPARE, UNARY, Node, Program
from arrayopt.fuse.trace import shared_names

__all__ = ["folder", "small_chunks"]
OPPOSITE = {"maximum": "minimum", "minimum": "maximum"}


def without(program: Program, i: int, other: int) -> Program:
    """The program with a node's result taken from another node."""

    def new(k: int) -> int:
        return other if k == i else k

    nodes = [n._replace(args=tuple(map(new, n.args))) for n in program.nodes]
    stores = tuple((name, new(k)) for name, k in program.stores)
    return program._replace(nodes=tuple(nodes), stores=stores)


def replaced(program: Program, i: int, node: Node) -> Program:
    nodes = list(program.nodes)
    nodes[i] = node
    return program._replace(nodes=tuple(nodes))


def mutants(program: Program, seen: set[str]) -> Iterator[tuple[str, Program]]:
    """The program with one operation left out or another in its place.

    Args:
        seen: small expressions whose last operation was changed in another program of the rule.
    """
    for i, node in enumerate(program.nodes):
        if expression(program, i, 3) in seen:
            continue
        name = f"{node.op} {i}"
        literal = Node("literal", node.dtype)
        if without_effect(program, i):
            continue
        if node.op in BINARY or node.op in OPPOSITE:
            for k, other in enumerate(node.args):
                yield f"{name} is its argument {k}", without(program, i, other)
            if node.op in ("divide", "pow") or (node.op == "subtract" and not squared(program, i)):
                yield f"{name} turned", replaced(program, i, node._replace(args=node.args[::-1]))
            if node.op in OPPOSITE:
                other = node._replace(op=OPPOSITE[node.op])
                yield f"{name} the other way", replaced(program, i, other)
        elif node.op in UNARY:
            yield f"{name} left out", without(program, i, node.args[0])
        elif node.op in COMPARE or node.op.startswith("logical") or node.op == "isfinite":
            for x in ("True", "False"):
                yield f"{name} is {x}", replaced(program, i, literal._replace(data=x))
        elif node.op == "where":
            for k, other in enumerate(node.args[1:]):
                yield f"{name} is its branch {k}", without(program, i, other)
        elif node.op in ("literal", "scalar"):
            wrong = ("True", "False") if node.dtype == "bool" else ("0.7",)
            for x in wrong:
                if x != node.data:
                    yield f"{name} is {x}", replaced(program, i, literal._replace(data=x))
    for k, (name, _) in enumerate(program.stores):
        yield (
            f"{name} not stored",
            program._replace(stores=program.stores[:k] + program.stores[k + 1 :]),
        )
    for (a, i), (b, j) in zip(program.stores, program.stores[1:], strict=False):
        rest = tuple(s for s in program.stores if s[0] not in (a, b))
        yield f"{a} and {b} swapped", program._replace(stores=((a, j), (b, i), *rest))


def expression(program: Program, i: int, depth: int) -> str:
    """A node and those before it, as text."""
    node = program.nodes[i]
    if not node.args or not depth:
        return f"{node.op} {'' if node.op == 'scalar' else node.data}"
    return f"{node.op}({', '.join(expression(program, a, depth - 1) for a in node.args)})"


class Case(NamedTuple):
    """One parameter in one step, and what is to come of it."""

    program: Program
    before: list[np.ndarray]
    after: list[np.ndarray]
    names: list[str]
    scalars: list[Any]
    shared: list[np.ndarray]
    chunks: list[tuple[int, int, int]]


def cases(rule: str, hyper: dict[str, Any], scale: tuple[float, float] = (1, 1)) -> Iterator[Case]:
    """Steps of a rule: the first, with and without special numbers, and later ones.

    Args:
        scale: of parameters and of gradients.
    """
    opt = ao.Optimizer(rule, **hyper)
    made = programs(rule, "float32", hyper)
    params, grads = problem(rule, "float32", 4, (120,))
    params = [x * np.float32(scale[0]) for x in params]
    grads = [[x * np.float32(scale[1]) for x in g] for g in grads]
    with np.errstate(all="ignore"):
        state = opt.init(params)
        for g in grads:
            mine, own = optree.tree_map(np.array, (params, state))
            override = {"lr": opt.hyper["lr"] / 2} if g is grads[3] else {}
            todo = opt.plan(mine, g, own, override)
            (part,) = todo.parts
            sums = {}
            for what in rounds(opt.rule):
                sums |= measure(what, opt.around, part, state.shared, sums, xp=todo.xp)
            params, state = opt.step(params, g, state, **override)
            slots = [s[0] for s in state.slots if not is_off(s)]
            leaves = [] if state.shared == () else optree.tree_leaves(state.shared)
            names = shared_names(state.shared) if leaves else []
            shared = dict(zip(names, leaves, strict=True))
            named = part.values | {"t": part.t}
            before, after = arrays_of(part), [params[0], g[0], *slots]
            for what in made.keys() & {"move", "settle"}:
                program, columns = made[what]
                scalars = program.host(*[named[x] for x in program.reads])
                kinds = [np.dtype(x).type for x in program.scalars]
                added = [np.array([sums[x[5:]]], "f8") for x in columns if x.startswith("sums.")]
                yield Case(
                    program,
                    [*before, *added],
                    [
                        np.array(new if (new.shape == ()) == (what == "settle") else old)
                        for old, new in zip(before, after, strict=True)
                    ],
                    list(columns),
                    [kind(x) for kind, x in zip(kinds, scalars, strict=True)],
                    [np.array(shared[x]) for x in cuda_source.shared_inputs(program, columns)],
                    [(0, 0, 70), (0, 70, 50)] if what == "move" else [(0, 0, 1)],
                )
            if g is grads[1]:  # without what makes all the rest of an element NaN
                params = [np.where(np.isfinite(x), x, np.float32(1)) for x in params]
                state = state._replace(slots=optree.tree_map(_finite, state.slots))
            if hasattr(state.slots, "v") and state.slots.v[0].shape:
                # where the sign of v - g**2 is 0
                params[0][60:63] = 0
                state.slots.v[0][60:] = np.square(grads[state.step % 4][0][60:])


def _finite(x: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(x), x, np.float32(0))


def wrong(rule: str, case: Case, function: Any) -> bool:
    """Whether a kernel does not do what the rule does."""
    arrays = [x.copy() for x in case.before]
    rows = np.array([[x.ctypes.data for x in arrays]])
    args = (rows, np.array(case.chunks), *case.shared, *case.scalars)
    function((len(case.chunks),), (256,), args)
    for name, x, y in zip(case.names, arrays, case.after, strict=False):  # sums stay
        least = 1e-3 if name.startswith("d_") else 0
        if difference(x, y, unit(rule, "float32"), least):
            return True
    return False


def squared(program: Program, i: int) -> bool:
    """Whether a node's sign does not matter."""
    users = [n for n in program.nodes if i in n.args]
    return all(n.op == "multiply" and n.args == (i, i) for n in users)


def without_effect(program: Program, i: int) -> bool:
    """Whether a node is x + 0, x / 1 or 1 * x."""
    node = program.nodes[i]
    if node.op == "multiply" and program.nodes[node.args[0]].data == "1.0":
        return True
    last = program.nodes[node.args[-1]] if node.args else node
    return (node.op, last.data) in (("add", "0.0"), ("divide", "1.0"), ("multiply", "1.0"))


# Mutants that compute the same, and how many of them a program may have.
EQUIVALENT = {
    # where u is 0, so is m: 0 divided by whatever is 0
    "adamax": {"literal is 0.7": 1},
    # where v is 0, so is the gradient, but for one whose square underflows; an element that is 0
    # stays so, whatever its sign
    "madam": {"literal is 0.7": 1, "less is True": 1, "where is its branch 0": 1},
    # where w is 0, a second ``where`` hides what the first one is for
    "maxva_lamadam": {"where is its branch 1": 1},
    "maxva_madam": {"where is its branch 1": 1},
    # without ``grad_averaging``, the first step adds 0 to what is then the result
    "novograd": {"where is its branch 1": 1},
    # where v is 0, m is 0 too, or too small a number to be seen beside the others
    "prodigy": {"literal is 0.7": 1},
    # where V is 0, each ``where`` does what is left to do without one of the others; the cases
    # have no number whose sign is taken and that is exactly 0
    "mada": {"where is its branch 1": 5, "less is True": 2, "where is its branch 0": 2},
}


# Rules with numbers that all elements have in common, and that are to be 0 or small for once.
WHOLE = ("lamb", "novograd", "prodigy")


def survivors(rule: str, folder: Any) -> list[list[str]]:
    """For each program of a rule, the mutants that no case tells from it."""
    groups: dict[Program, list[Case]] = {}
    for hyper in variants(rule):
        if rule == "sgd" or not hyper.keys() & {"decay", "maximize"}:  # which are alike for all
            scales = [(1, 1)] + [(0, 1), (1, 0), (1, 1e-8)] * (rule in WHOLE)
            for case in itertools.chain.from_iterable(cases(rule, hyper, x) for x in scales):
                groups.setdefault(case.program._replace(host=None), []).append(case)
    found: list[list[str]] = []
    seen: set[str] = set()
    for steps in groups.values():
        program = steps[0].program
        columns = {name: i for i, name in enumerate(steps[0].names)}
        named = [("itself", program), *mutants(program, seen)]
        seen.update(expression(program, i, 3) for i in range(len(program.nodes)))
        sources = [cuda_source.source(p, columns) for _, p in named]
        functions = gpu_host.native(sources, folder)
        caught = {
            name: any(wrong(rule, case, function) for case in steps)
            for (name, _), function in zip(named, functions, strict=True)
        }
        assert not caught.pop("itself")
        found.append([name for name, x in caught.items() if not x])
    return found


@traced
def test_any_operation_that_is_wrong_shows(rule, folder):
    for found in survivors(rule, folder):
        kinds = Counter(re.sub(r" \d+(?= )", "", name) for name in found)
        assert kinds <= Counter(EQUIVALENT.get(rule, {})), found


# --- around the operations

MOVE = {
    "the chunk's start": (r" \+ start;", ";"),
    "one more": ("i < count", "i <= count"),
    "one less": ("i < count", "i < count - 1"),
    "threads overlap": (r"i \+= 256", "i += 255"),
    "gaps between threads": (r"i \+= 256", "i += 512"),
    "all threads the same": ("int i = threadIdx.x", "int i = 0"),
    "the chunk": ("3LL \\* blockIdx.x", "3LL * 0"),
    "the row": (r"chunk\[0\] \* 4", "chunk[0] * 3"),
    "the column": (r"row\[3\]", "row[2]"),
    "slots swapped": (r"p2\[i\] = (v\d+);\s+p3\[i\] = (v\d+);", r"p2[i] = \2; p3[i] = \1;"),
    "read after a store": (r"p3\[i\] = (v\d+);", r"p3[i] = \1 + 0.0f * p0[i];"),
    "read twice": (r"p3\[i\] = (v\d+);", r"p3[i] = p1[i] * 0.0f + \1;"),
    "the gradient written": (r"p3\[i\] =", r"p1[i] = 0.0f; p3[i] ="),
    "double precision": (r"= sqrtf\((v\d+)\)", r"= sqrt((double)\1)"),
    "a fast division": (r"(v\d+) / (v\d+)", r"__fdividef(\1, \2)"),
    "a fast root": (r"sqrtf\((v\d+)\)", r"__fsqrt_rz(\1)"),
    "any memory": (r"__builtin_assume\(.*\);", ""),
}
MEASURE = {
    "no barrier before the next sum": (r"(total = .*\s+)__syncthreads\(\);", r"\1"),
    "no barrier in the tree": (r"(half /= 2\) {\s+)__syncthreads\(\);", r"\1"),
    "a barrier for some": (r"(if \(threadIdx.x < half\))", r"\1 __syncthreads(); \1"),
    "the tree's end": ("half > 0", "half > 1"),
    "the tree's beginning": ("half = 128", "half = 64"),
    "all threads add": (r"if \(threadIdx.x < half\)", ""),
    "single precision": (r"double t0", "float t0"),
    "the sum's place": (r"blockIdx.x \+ 1", "blockIdx.x + 0"),
    "the block's place": (r"5LL \* blockIdx.x", "5LL * 0"),
    "the column of partial sums": (r"columns \+ column\]", "columns]"),
    "the row of partial sums": (r"i \* columns \+", "i +"),
    "the column": (r"blockIdx.x % columns", "blockIdx.x % 2"),
    "the parameters": (r"\+ blockIdx.x / columns", ""),
    "the end": (r"first\[each\]", "first[1]"),
    "the beginning": (r"= first\[0\]", "= 0"),
    "the sum's own place": (r"sums\[blockIdx.x\]", "sums[column]"),
    "partial sums left out": (r"i < count; i \+= 256", "i < count; i += 257"),
}
GAPS = {
    "a stride": (r"o2 \+= k \* row.*;", "o2 += k;"),
    "the row": (r"4 \+ 5 \* dims", "4 + 4 * dims"),
    "the axis": (r"\+ d\], k", "], k"),
    "the rest": (r"rest /= size;", ""),
    "the chunk's start": (r"start \+ i;", "i;"),
}
OPTIONS = {
    "contraction": ("--fmad=false", "--fmad=true"),
    "flushing to zero": ("--ftz=false", "--ftz=true"),
    "an approximate division": ("--prec-div=true", "--prec-div=false"),
    "an approximate root": ("--prec-sqrt=true", "--prec-sqrt=false"),
}


ARCH = 120


def complaint(run: Any) -> str | None:
    try:
        run()
    except (AssertionError, NotImplementedError, ptx.Fault) as error:
        return repr(error)
    return None


def moved_wrongly(kernels: Any, monkeypatch: Any) -> str | None:
    """What the checks of a rule's step say about kernels."""
    device = Device(kernels).install(monkeypatch)
    return complaint(lambda: check("adam", "float32", device, {}))


def static(change: Any, options: tuple[str, ...]) -> list[str]:
    program, columns = programs("adam", "float32", {})["move"]
    made = gpu_host.nvrtc(change(cuda_source.source(program, columns)), ARCH, options)
    return flaws("move", "float32", True, program, made.ptx, made.log)


def mutated(pattern: str, new: str) -> Any:
    """A change to a source; in the place of a device's kernels, it makes those of the mutant."""

    def change(source: str) -> str:
        return re.sub(pattern, new, source)

    return change


@pytest.mark.parametrize("name", MOVE)
def test_a_kernel_that_is_wrong_shows(name, monkeypatch):
    package("cupy")
    change, base = mutated(*MOVE[name]), gpu_host.by_ptx(ARCH)
    program, columns = programs("adam", "float32", {})["move"]
    source = cuda_source.source(program, columns)
    assert change(source) != source
    if static(change, cuda_driver.OPTIONS) == []:
        assert moved_wrongly(lambda source, device: base(change(source), device), monkeypatch)


@pytest.mark.parametrize("name", GAPS)
def test_a_stride_that_is_wrong_shows(name, monkeypatch):
    package("cupy")
    change, base = mutated(*GAPS[name]), gpu_host.by_ptx(ARCH)
    source = cuda_source.source(*programs("adam", "float32", {})["move"], strided=True)
    assert change(source) != source
    device = Device(lambda source, device: base(change(source), device)).install(monkeypatch)
    assert complaint(lambda: check_gaps("adam", "turned", device))


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_that_is_wrong_shows(name, monkeypatch):
    package("cupy")
    old, new = OPTIONS[name]
    options = tuple(new if x == old else x for x in cuda_driver.OPTIONS)
    assert options != cuda_driver.OPTIONS
    if static(str, options) == []:
        assert moved_wrongly(gpu_host.by_ptx(ARCH, options), monkeypatch)


@pytest.mark.parametrize("name", MEASURE)
def test_a_sum_that_is_wrong_shows(name, monkeypatch):
    package("cupy")
    change, base = mutated(*MEASURE[name]), gpu_host.by_ptx(ARCH)
    program, columns = programs("mada", "float32", {})["measure"]
    sources = cuda_source.source(program, columns), cuda_source.REDUCE
    assert any(change(x) != x for x in sources)
    device = Device(lambda source, device: base(change(source), device)).install(monkeypatch)
    assert complaint(lambda: check_sums("float32", device) or check_own_sums(device))


def test_what_is_right_passes(monkeypatch):
    package("cupy")
    assert static(str, cuda_driver.OPTIONS) == []
    assert moved_wrongly(gpu_host.by_ptx(ARCH), monkeypatch) is None
