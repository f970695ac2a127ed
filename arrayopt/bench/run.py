"""How fast are the engines, beside other libraries and beside what the memory allows?

All contestants of a case run in one process and take turns, in an order that rotates from round to
round; each has parameters of its own, and all have the same gradients. A turn is a short pause (the
threads of the one before go on spinning for a while), a step that is not timed, and then so many
steps that they take 2 ms or more. The first step, with its compilation, is timed apart. Ratios are
those of the medians over the rounds that both have run; a slow contestant runs fewer.
"""

import datetime
import functools
import gc
import os
import statistics
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from .. import rules
from .._schema import name_of
from ..fuse import cpu
from . import measure, peers
from .problem import Problem, same_threads

MEASURED = ("adam", "adamax", "adan", "amsgrad", "avgrad", "laprop", "mada", "madam",
            "maxva_lamadam", "maxva_madam", "sgd", "simplified_ademamix", "yogi")  # fmt: skip
GPT2_BLOCK = ((768,), (768,), (768, 2304), (2304,), (768, 768), (768,), (768,), (768,),
              (768, 3072), (3072,), (3072, 768), (768,))  # fmt: skip
GPT2 = ((50257, 768), (1024, 768), *GPT2_BLOCK * 12, (768,), (768,))
FRESH = " fresh"  # at the end of a size's name: new gradients, elsewhere in memory, for each step
SIZES: dict[str, tuple[tuple[int, ...], ...]] = {
    "10x100": ((100,),) * 10,
    "10x100" + FRESH: ((100,),) * 10,
    "1000x1000": ((1000,),) * 1000,
    "1000x1000" + FRESH: ((1000,),) * 1000,
    "gpt2": GPT2,
    "10M": ((10_000_000,),),
    "40M": ((40_000_000,),),
}
DTYPES = ("float32", "float64", "bfloat16")
ITEM = {"float32": 4, "float64": 8, "bfloat16": 4}  # bytes; of bfloat16, with its float32 slots
WIDE = ("10x100", "1000x1000", "10M")  # where Adam runs in the other dtypes too
FUSED, BLOCKS, EAGER = (f"arrayopt numpy {engine}" for engine in ("fused", "blocks", "eager"))
MANY = 10_000_000  # elements, up to which all contestants run
VERY_MANY = 100_000_000  # beyond, none that takes a second a step or as much memory again
DISPENSABLE = ("keras", "torch single", "arrayopt jax", "optax", "torch foreach", "roof torch")


class Case(NamedTuple):
    rule: str
    size: str
    dtype: str


class Result(NamedTuple):
    """One contestant in one case."""

    rule: str
    size: str
    dtype: str
    elements: int
    contestant: str
    first: float  # seconds of the first step, with compilation
    number: int  # steps in a turn
    times: list[float]  # seconds a step, round by round
    traced: float | None  # MB that a step allocates at its peak: tracemalloc's, NumPy only
    resident: float | None  # MB by which a step raises the process's high-water mark


class Skip(NamedTuple):
    """One contestant that did not run in a case, and why."""

    rule: str
    size: str
    dtype: str
    contestant: str
    reason: str


class Promise(NamedTuple):
    """What is not to be more than a limit."""

    kind: str  # "time" of one contestant / of another, "memory" in MB; "compile", "start" in s
    limit: float
    rule: str = "adam"
    size: str = ""
    contestant: str = ""
    other: str = ""


class Report:
    """All that was measured."""

    def __init__(self, quick: bool, threads: int | None) -> None:
        self.quick, self.threads = quick, threads or cpu.cores()
        self.date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None  # before our own
        self.results: list[Result] = []
        self.skipped: list[Skip] = []
        self.compile: dict[str, float] = {}  # seconds, by rule
        self.start: list[float] = []  # seconds from a new process's NumPy to its first step's end
        self.turns: list[str] = []  # whose they were, in order

    def find(self, case: Case, contestant: str) -> Result | None:
        """A contestant's result in a case, if it has one."""
        wanted = (*case, contestant)
        return next((r for r in self.results if (*r[:3], r.contestant) == wanted), None)

    def ratio(self, case: Case, contestant: str, other: str) -> float | None:
        """Of the medians over the rounds that both have run."""
        a, b = self.find(case, contestant), self.find(case, other)
        if a is None or b is None:
            return None
        n = min(len(a.times), len(b.times))
        return statistics.median(a.times[:n]) / statistics.median(b.times[:n])

    def measured(self, promise: Promise) -> float | None:
        """What a promise is about; None if that was not measured."""
        case = Case(promise.rule, promise.size, "float32")
        if promise.kind == "time":
            return self.ratio(case, promise.contestant, promise.other)
        if promise.kind == "memory":
            found = self.find(case, promise.contestant)
            return None if found is None else max(found.traced or 0.0, found.resident or 0.0)
        if promise.kind == "compile":
            return self.compile.get(promise.rule)
        return statistics.median(self.start) if self.start else None


def promises() -> list[Promise]:
    """What is promised, all of it in float32."""
    ours, torch = FUSED, "arrayopt torch"
    found = []
    for rule in MEASURED:
        exact = not hasattr(rules.find(rule), "PARITY_EPS")
        if exact or rule == "madam":
            for name, top in ((ours, "roof numpy"), (torch, "roof torch")):
                found.append(Promise("time", 1.2 if exact else 2.0, rule, "40M", name, top))
    for name in (ours, torch):
        for size, limit in (
            ("10x100", 0.5), ("1000x1000", 0.35), ("gpt2", 0.95), ("10M", 1.0), ("40M", 1.0)
        ):  # fmt: skip
            found.append(Promise("time", limit, "adam", size, name, "torch fused"))
    found.append(Promise("time", 0.3, "adamax", "10M", torch, "torch foreach"))
    found.append(Promise("time", 1.05, "adam", "10M", "arrayopt jax", "optax"))
    for rule in MEASURED:
        found.append(Promise("time", 0.33, rule, "10M", BLOCKS, EAGER))
        found.append(Promise("memory", 2.0, rule, "10M", ours))
        found.append(Promise("compile", 2.0, rule))
    return [*found, Promise("start", 0.3)]


def cases(
    chosen: Iterable[str] | None = None,
    sizes: Iterable[str] | None = None,
    dtypes: Iterable[str] | None = None,
) -> list[Case]:
    """What to run. By default: the rules of ``MEASURED`` at 10M and 40M in float32; Adam at all
    sizes, and at some in all dtypes.
    """
    names = list(MEASURED if chosen is None else map(name_of, map(rules.find, chosen)))
    sizes, dtypes = (None if x is None else list(x) for x in (sizes, dtypes))
    for what, given, known in (("size", sizes, SIZES), ("dtype", dtypes, DTYPES)):
        for name in given or ():
            if name not in known:
                raise ValueError(f"no {what} is named {name!r}; there are {', '.join(known)}")
    return [
        Case(rule, size, dtype)
        for size in sizes or SIZES  # size by size: the data stay
        for dtype in dtypes or DTYPES
        for rule in names
        if (sizes or rule == "adam" or size in ("10M", "40M"))
        and (dtypes or dtype == "float32" or (rule == "adam" and size in WIDE))
    ]


def run(report: Report, todo: Iterable[Case]) -> Iterator[str]:
    """Fill the report; says, before each case and before the last thing, what comes."""
    with same_threads(report.threads):
        compiled = set()
        for case in todo:
            yield f"{case.rule} {case.size} {case.dtype}"
            if case.rule not in compiled:
                compiled.add(case.rule)
                report.compile[case.rule] = measure.compile_seconds(case.rule)
            _measure(report, case)
        _data.cache_clear()
        yield "a new process"
        report.start += [measure.start_seconds() for _ in range(1 if report.quick else 5)]


@functools.lru_cache(maxsize=1)
def _data(size: str, dtype: str, quick: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Parameters and gradients; of a quick run, few and small ones."""
    kind = np.float64 if dtype == "float64" else np.float32
    shapes = SIZES[size]
    if quick:
        shapes = tuple(tuple(min(n, 100) for n in s) for s in shapes[:10])
    rng = np.random.default_rng(0)
    params, grads = ([rng.standard_normal(s, kind) for s in shapes] for _ in range(2))
    return params, grads


def _measure(report: Report, case: Case) -> None:
    params, grads = _data(case.size, case.dtype, report.quick)
    problem = Problem(case.rule, case.dtype, report.threads, params, grads)
    elements = sum(x.size for x in params)
    pace = measure.QUICK if report.quick else measure.FULL
    runners, fresh = {}, case.size.endswith(FRESH)
    try:
        for name in _fitting(report, case, elements):
            if lacks := peers.missing(name):
                report.skipped.append(Skip(*case, name, f"{lacks} is not installed"))
                continue
            try:
                entry = peers.CONTESTANTS[name](problem)
                runners[name] = measure.Runner(entry, fresh, pace)
            except Exception as error:  # a peer of another version is not to end all
                if name not in peers.PEERS:
                    raise
                report.skipped.append(Skip(*case, name, f"{type(error).__name__}: {error}"))
        measure.race(runners, pace.rounds, report.turns)
        for name, one in runners.items():
            traced = measure.traced(one.entry.step) if "numpy" in name else None
            resident = measure.resident(one.entry.step)
            counted = one.first, one.number, one.times
            report.results.append(Result(*case, elements, name, *counted, traced, resident))
    finally:
        problem.close()
        runners.clear()
        if elements >= MANY:
            gc.collect()  # some hold themselves, and their memory


def _fitting(report: Report, case: Case, elements: int) -> list[str]:
    """The case's contestants: fewer for what is large, and as many as the memory holds."""
    names = [n for n in peers.CONTESTANTS if peers.takes_part(n, case.rule, case.dtype)]
    of_jax, whole = {"arrayopt jax", "optax", "keras"}, {BLOCKS, EAGER}
    left = set(whole if elements > MANY else ())
    if elements > MANY and case.rule != "adam":
        left |= of_jax
    if elements > VERY_MANY:
        left |= {"torch single", "torch foreach", "keras"}
    if case.size.startswith("1000x"):  # that many tensors compile for long
        left |= {"keras"} if case.dtype == "float32" else of_jax
    if case.size.endswith(FRESH):  # it is about what remembers addresses
        left |= of_jax | whole
    if report.quick:  # without what imports and compiles for seconds
        left |= {"keras", "pytorch_optimizer"}
        left |= of_jax if case[:2] != ("adam", "10M") else set()
    names = [n for n in names if n not in left]
    slots = len(rules.find(case.rule).State._fields)
    each = (1 + slots) * ITEM[case.dtype] * elements
    for name in (*DISPENSABLE, *names):
        if (len(names) + 2) * each <= measure.available():  # 2: the data, and what a step allocates
            break
        if name in names:
            names.remove(name)
            report.skipped.append(Skip(*case, name, "the memory holds no more contestants"))
    return names
