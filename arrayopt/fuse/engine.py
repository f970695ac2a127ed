"""The compiled programs of a rule, and steps of many parameters by them."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import optree

from .._step import Around
from . import cpu
from .symbols import Graph, Sum
from .trace import Signature, once, shared_names, trace, untraceable


def columns(rule: Any, sig: Signature) -> dict[str, int]:
    """Where in a row of a table the address of each array is."""
    used = [f for f, dtype in zip(rule.State._fields, sig.slots, strict=True) if dtype is not None]
    return {name: i for i, name in enumerate(("param", "grad", *used))}


@once
def kernel(what: str, around: Around, sig: Signature, shared: Any = ()) -> cpu.Kernel:
    """The compiled program of ``"move"``, ``"measure"`` or ``"finite"``.

    Raises:
        Untraceable: the rule does what a loop over elements cannot.
        ImportError: llvmlite is not installed.
    """
    return cpu.Kernel(trace(what, around, sig, shared), columns(around.rule, sig))


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
    runs: dict[str, cpu.Run]  # "move", and "measure" and "finite" where they are needed


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
        self._measured = hasattr(around.rule, "measure")
        groups: dict[Signature, list[tuple[int, Row]]] = {}
        for i, row in enumerate(rows):
            groups.setdefault(row.sig, []).append((i, row))
        wanted = ["move"] + ["measure"] * self._measured + ["finite"] * guarded
        self.batches = []
        for sig, found in groups.items():
            rows_ = np.array([(*r.addresses, r.set) for _, r in found], np.int64)
            table = cpu.Table(rows_, np.array([r.size for _, r in found], np.int64))
            runs = {
                what: cpu.Run(kernel(what, around, sig, shared), table, len(sets))
                for what in wanted
            }
            self.batches.append(Batch(table, [i for i, _ in found], runs))

    def finite(self) -> list[bool]:
        """For each row, whether its gradient is finite in the compute dtype."""
        flags = [True] * sum(len(b.places) for b in self.batches)
        for batch in self.batches:
            bad = batch.runs["finite"](self.sets, self.threads)[:, 0] > 0
            for row in batch.table.chunks[bad, 0]:
                flags[batch.places[row]] = False
        return flags

    def measure(self) -> list[dict[str, np.ndarray]]:
        """The rule's sums over all elements of each batch, 0-d and float64; none if it has none."""
        found = []
        for run in [b.runs["measure"] for b in self.batches if self._measured]:
            totals = np.sum(run(self.sets, self.threads), axis=0)
            names = [name for name, _ in run.program.sums]
            found.append({k: np.asarray(x) for k, x in zip(names, totals, strict=True)})
        return found

    def move(self, shared: Any) -> None:
        """The new parameters and slots, in place."""
        sets = self.sets
        if shared != ():
            numbers = map(float, optree.tree_leaves(shared))
            known = dict(zip(shared_names(shared), numbers, strict=True))
            sets = [one | known for one in sets]
        for batch in self.batches:
            batch.runs["move"](sets, self.threads)


@functools.cache
def _counting() -> tuple[cpu.Kernel, cpu.Kernel]:
    """Programs that read a float32, and that add 1 to it."""
    graph = Graph()
    one: Any = graph.input("param", "float32")
    read = graph.program({}, {"count": Sum(graph.lift(one, "float64"))})
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
