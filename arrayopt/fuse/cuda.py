"""Programs compiled by NVRTC: one launch over all parameters, in place, on CuPy's current stream.

Arrays are known by address, so they may be any library's. Nothing here waits for the device but
:meth:`Step.finite`.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._step import Around
from . import cuda_driver, cuda_source
from .engine import columns
from .program import Program, chunks
from .trace import Signature, once, trace

CHUNK = 4096  # elements, at most, that a block goes over: small parameters need many blocks


class Row(NamedTuple):
    """One parameter in a step."""

    sig: Signature
    addresses: list[int]  # of the parameter, its gradient and its slots, in the order of columns()
    size: int  # number of elements
    device: int
    shape: tuple[int, ...] = ()
    strides: tuple[tuple[int, ...], ...] | None = None  # of each array, counted in elements;
    # None if all elements lie side by side, in one order in all arrays


class Table:
    """Where the arrays of parameters lie, as the kernel reads it; sent again where it changed.

    Args:
        rows: int64, see :func:`cuda_source.source`.
        sizes: the number of elements of each parameter.
    """

    def __init__(self, rows: np.ndarray, sizes: np.ndarray) -> None:
        self.rows = rows
        self.chunks = chunks(sizes, CHUNK)
        self._stream: Any = None
        self._sent: tuple[np.ndarray, Any, Any] = (rows, None, None)

    def on_device(self) -> tuple[Any, Any]:
        """Both tables, ready for what runs on the current stream from now on."""
        now = cuda_driver.stream()
        before, rows, chunks = self._sent
        if self._stream is None or self._stream != now:  # what another one sends may not be there
            chunks = cuda_driver.sent(self.chunks)
        elif np.array_equal(before, self.rows):
            return rows, chunks
        self._stream, self._sent = now, (self.rows.copy(), cuda_driver.sent(self.rows), chunks)
        return self._sent[1:]


class Kernel:
    """A compiled program.

    Args:
        columns: where in a row of a table the address of each input is.
        strided: whether the elements of the arrays need not lie side by side.
    """

    def __init__(self, program: Program, columns: dict[str, int], strided: bool) -> None:
        self.program = program
        self.source = cuda_source.source(program, columns, strided=strided)
        self._shared = cuda_source.shared_inputs(program, columns)
        self._kinds = [np.dtype(x).type for x in program.scalars]

    def __call__(
        self, batch: "Batch", values: dict[str, Any], shared: dict[str, int], partials: Any = None
    ) -> None:
        """Launch it.

        Args:
            values: the numbers that the host computes the program's scalars from.
            shared: the addresses of what belongs to all parameters, each a float64.
            partials: takes the sums over each chunk.
        """
        if not len(batch.table.chunks):
            return
        program = self.program
        scalars = program.host(*[values[name] for name in program.reads])
        args = [*batch.table.on_device()]
        args += [] if batch.dims is None else [np.int32(batch.dims)]
        args += [np.uint64(shared[name]) for name in self._shared]
        with np.errstate(over="ignore"):
            args += [kind(x) for kind, x in zip(self._kinds, scalars, strict=True)]
        args += [partials] * bool(program.sums)
        function = cuda_driver.loaded(self.source, batch.device)
        function((len(batch.table.chunks),), (cuda_source.THREADS,), tuple(args))


class Batch(NamedTuple):
    """Parameters on one device whose step is the same program."""

    sig: Signature
    device: int
    dims: int | None  # axes that are gone over; None if elements lie side by side
    table: Table
    places: list[int]  # where among the step's rows each is


@once
def _flat(what: str, around: Around, sig: Signature, shared: Any = ()) -> Kernel:
    program = trace(what, around, sig, shared, inside=True)
    return Kernel(program, columns(around.rule, sig), strided=False)


@once
def _strided(what: str, around: Around, sig: Signature, shared: Any = ()) -> Kernel:
    program = trace(what, around, sig, shared, inside=True)
    return Kernel(program, columns(around.rule, sig), strided=True)


def kernel(what: str, around: Around, batch: Batch, shared: Any = ()) -> Kernel:
    """The program of ``"move"``, ``"measure"`` or ``"finite"``, made once a process.

    Raises:
        Untraceable: the rule does what a loop over elements cannot.
    """
    return (_flat if batch.dims is None else _strided)(what, around, batch.sig, shared)


class Step:
    """A step in place, ready to be carried out on the current stream.

    Args:
        rows: the parameters.
        values: hyperparameters and the step number ``t``, by name.
        shared: the rule's shared state, for its structure.
        guarded: whether :meth:`finite` is going to be asked for.

    Attributes:
        values: those of the next step may be put here, if they lead to the same programs.

    Raises:
        Untraceable: as :func:`kernel`.
    """

    def __init__(
        self,
        around: Around,
        rows: Iterable[Row],
        values: dict[str, Any],
        shared: Any,
        *,
        guarded: bool,
    ) -> None:
        self.around, self.values = around, values
        self._measured = hasattr(around.rule, "measure")
        groups: dict[tuple[Signature, int, int | None], list[tuple[int, Row]]] = {}
        for i, row in enumerate(rows):
            dims = None if row.strides is None else len(row.shape)
            groups.setdefault((row.sig, row.device, dims), []).append((i, row))
        self.batches = []
        for (sig, device, dims), found in groups.items():
            table = _table([row for _, row in found])
            self.batches.append(Batch(sig, device, dims, table, [i for i, _ in found]))
        names = ["move"] + ["measure"] * self._measured + ["finite"] * guarded
        made = [(b, [kernel(n, around, b, shared).source for n in names]) for b in self.batches]
        for batch, sources in made:  # so that nothing but launches can fail in the middle of a step
            with cuda_driver.on(batch.device):
                for source in (*sources, *[cuda_source.REDUCE] * (len(names) > 1)):
                    cuda_driver.loaded(source, batch.device)

    def finite(self) -> list[bool]:
        """For each row, whether its gradient is finite in the compute dtype.

        All rows must be on one device. The host waits for it, and reads one flag for each batch;
        only where one is set, it looks for the rows.
        """
        flags = [True] * sum(len(b.places) for b in self.batches)
        if not flags:
            return flags
        with cuda_driver.on(self.batches[0].device):
            totals = cuda_driver.empty(len(self.batches))
            partials = [
                self._summed("finite", batch, totals[k : k + 1])
                for k, batch in enumerate(self.batches)
            ]
            if cuda_driver.fetched(totals).any():
                for batch, x in zip(self.batches, partials, strict=True):
                    for row in batch.table.chunks[cuda_driver.fetched(x) > 0, 0]:
                        flags[batch.places[row]] = False
        return flags

    def measure(self) -> list[dict[str, Any]]:
        """The rule's sums over all elements of each batch, on its device; none if it has none."""
        if not self._measured:
            return []
        found = []
        for batch in self.batches:
            sums = kernel("measure", self.around, batch).program.sums
            with cuda_driver.on(batch.device):
                totals = cuda_driver.empty(len(sums))
                self._summed("measure", batch, totals)
            found.append({name: totals[k] for k, (name, _) in enumerate(sums)})
        return found

    def move(self, shared: dict[str, int]) -> None:
        """The new parameters and slots, in place.

        Args:
            shared: the addresses of the rule's shared state, each a float64 on the device.
        """
        for batch in self.batches:
            with cuda_driver.on(batch.device):
                kernel("move", self.around, batch)(batch, self.values, shared)

    def _summed(self, what: str, batch: Batch, totals: Any) -> Any:
        """The sums over each chunk; ``totals`` takes those over all, in one order always."""
        count = len(batch.table.chunks)
        partials = cuda_driver.empty(count * len(totals))
        kernel(what, self.around, batch)(batch, self.values, {}, partials)
        reduce = cuda_driver.loaded(cuda_source.REDUCE, batch.device)
        grid, block = (len(totals),), (cuda_source.THREADS,)
        reduce(grid, block, (partials, np.int64(count), totals))
        return partials


def _table(rows: Sequence[Row]) -> Table:
    lines: list[list[int]] = []
    for row in rows:
        line = list(row.addresses)
        for axes in () if row.strides is None else (row.shape, *row.strides):
            line += reversed(axes)
        lines.append(line)
    return Table(np.array(lines, np.int64), np.array([row.size for row in rows], np.int64))
