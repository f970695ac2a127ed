"""The compiled programs of a rule, and steps of many parameters by them."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import optree

from .._schema import rounds
from .._step import Around
from . import cpu
from .symbols import Graph
from .trace import Signature, once, shared_names, sums_of, trace, untraceable


def columns(rule: Any, sig: Signature, sums: Iterable[str] = ()) -> dict[str, int]:
    """Where in a row of a table the address of each array, and of each sum, is."""
    used = [f for f, dtype in zip(rule.State._fields, sig.slots, strict=True) if dtype is not None]
    return {name: i for i, name in enumerate(("param", "grad", *used, *sums))}


@once
def summed(what: str, around: Around, sig: Signature, shared: Any = ()) -> list[str]:
    """The sums over a parameter that its ``"move"`` reads, and then those that it gives."""
    given = [name for name, _ in trace("move", around, sig, shared).sums]
    return [f"sums.{name}" for name in sums_of(around, sig, shared)] + given


@once
def kernel(what: str, around: Around, sig: Signature, shared: Any = ()) -> cpu.Kernel | None:
    """The compiled program of that name (see :func:`trace`); None if it does nothing.

    Raises:
        Untraceable: the rule does what a loop over elements cannot.
        ImportError: llvmlite is not installed.
    """
    program = trace(what, around, sig, shared)
    if not program.stores and not program.sums:
        return None
    return cpu.Kernel(program, columns(around.rule, sig, summed("move", around, sig, shared)))


def why_not(optimizer: Any) -> str | None:
    """Why no compiled loop can serve an ``arrayopt.Optimizer``; None if one can."""
    return cpu.missing() or untraceable(optimizer)


class Row(NamedTuple):
    """One parameter in a step."""

    sig: Signature
    addresses: list[int]  # of the parameter, its gradient and its slots, in the order of columns()
    size: int  # number of elements
    set: int  # which of the step's sets of hyperparameters it takes


class Batch(NamedTuple):
    """Parameters whose step is the same program."""

    table: cpu.Table
    places: list[int]  # where among the step's rows each is
    runs: dict[str, cpu.Run]  # "move", and the others where they are needed
    sums: dict[str, np.ndarray]  # over each parameter; its program reads them from there


class Step:
    """A step in place, ready to be carried out.

    Args:
        rows: the parameters.
        shared: the rule's shared state, for its structure.
        guarded: whether :meth:`finite` is going to be asked for.
        threads: at most so many at work.

    Attributes:
        sets: hyperparameters and the step number ``t``, by name; those of the next step may be
            put here, if they lead to the same programs.

    Raises:
        Untraceable, ImportError: as :func:`kernel`.
    """

    def __init__(
        self,
        around: Around,
        rows: Iterable[Row],
        sets: list[dict[str, Any]],
        shared: Any,
        *,
        guarded: bool,
        threads: int,
    ) -> None:
        self.sets, self.threads = sets, threads
        groups: dict[Signature, list[tuple[int, Row]]] = {}
        for i, row in enumerate(rows):
            groups.setdefault(row.sig, []).append((i, row))
        wanted = ["move", *rounds(around.rule)] + ["finite"] * guarded
        self.batches = []
        for sig, found in groups.items():
            names = summed("move", around, sig, shared)
            sums = {name: np.zeros(len(found)) for name in names}
            there = [cpu.address(x) + x.itemsize * np.arange(len(x)) for x in sums.values()]
            known = np.array([r.addresses for _, r in found], np.int64)
            table = cpu.Table(
                np.column_stack([known, *there, [r.set for _, r in found]]).astype(np.int64),
                np.array([r.size for _, r in found], np.int64),
            )
            runs = {}
            for what in wanted + ["settle"] * any(sig.single):
                if made := kernel(what, around, sig, shared):
                    one = cpu.Table(table.rows, np.ones(len(found), np.int64))
                    runs[what] = cpu.Run(made, one if what == "settle" else table, len(sets))
            self.batches.append(Batch(table, [i for i, _ in found], runs, sums))

    def finite(self) -> list[bool]:
        """For each row, whether its gradient is finite in the compute dtype."""
        flags = [True] * sum(len(b.places) for b in self.batches)
        for batch in self.batches:
            bad = batch.runs["finite"](self.sets, self.threads)[:, 0] > 0
            for row in batch.table.chunks[bad, 0]:
                flags[batch.places[row]] = False
        return flags

    def measure(self, what: str, shared: Any) -> list[dict[str, np.ndarray]]:
        """The sums that one of the rule's rounds gives, over each batch: 0-d and float64."""
        found, sets = [], self._told(shared)
        for batch in self.batches:
            own = _rowwise(batch, what, sets, self.threads)
            for name, x in own.items():
                if f"sums.{name}" in batch.sums:
                    batch.sums[f"sums.{name}"][:] = x
            found.append({name: np.asarray(np.sum(x)) for name, x in own.items()})
        return found

    def move(self, shared: Any) -> None:
        """The new parameters and slots, in place."""
        sets = self._told(shared)
        for batch in self.batches:
            if "settle" not in batch.runs:
                batch.runs["move"](sets, self.threads)
                continue
            for name, x in _rowwise(batch, "move", sets, self.threads).items():
                batch.sums[name][:] = x
            batch.runs["settle"](sets, 1)

    def _told(self, shared: Any) -> list[dict[str, Any]]:
        """The sets, with the shared state's values."""
        if shared == ():
            return self.sets
        numbers = map(float, optree.tree_leaves(shared))
        known = dict(zip(shared_names(shared), numbers, strict=True))
        return [one | known for one in self.sets]


def _rowwise(
    batch: Batch, what: str, sets: list[dict[str, Any]], threads: int
) -> dict[str, np.ndarray]:
    """Run a program; returns its sums over each parameter."""
    run = batch.runs[what]
    partials, rows = run(sets, threads), batch.table.chunks[:, 0]
    found = {}
    for k, (name, _) in enumerate(run.program.sums):
        found[name] = np.bincount(rows, partials[:, k], len(batch.places))
    return found


@functools.cache
def _counting() -> tuple[cpu.Kernel, cpu.Kernel]:
    """Programs that read a float32, and that add 1 to it."""
    graph = Graph()
    one: Any = graph.input("param", "float32")
    read = graph.program({}, {"count": graph.sum(one)})
    advance = graph.program({"param": one + 1}, {})
    return cpu.Kernel(read, {"param": 0}), cpu.Kernel(advance, {"param": 0})


class Counters:
    """Many counters, each a float32 of its own somewhere, read and advanced all at once.

    Args:
        addresses: where they are.
    """

    def __init__(self, addresses: list[int]) -> None:
        rows = np.array([addresses, [0] * len(addresses)], np.int64).T.copy()
        table = cpu.Table(rows, np.ones(len(addresses), np.int64))
        self._read, self._advance = (cpu.Run(kernel, table) for kernel in _counting())

    def read(self) -> np.ndarray:
        """Their values, float64, until it is called again."""
        return self._read([], 1)[:, 0]

    def advance(self) -> None:
        """One more for each."""
        self._advance([], 1)


class Layout(NamedTuple):
    """How an array library answers for the order of an array's elements in memory."""

    contiguous: Callable[[Any], bool]  # whether it is C's, without gaps
    strides: Callable[[Any], Any]
    empty: Callable[[Any, Any], Any]  # empty(x, y): shaped and as near as can be ordered like x,
    # without gaps, with the dtype of y

    def alike(self, arrays: list[Any]) -> list[Any]:
        """A parameter and what belongs to it, all in one order and without gaps.

        Each is itself, or else a new array that is yet to be filled.
        """
        if all(map(self.contiguous, arrays)):
            return arrays
        param = arrays[0]
        model = self.empty(param, param)
        order = self.strides(model)
        return [
            x if x.shape != param.shape or self.strides(x) == order else self.empty(model, x)
            for x in arrays
        ]
