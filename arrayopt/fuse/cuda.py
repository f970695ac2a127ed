"""Programs compiled by NVRTC: one launch over all parameters, in place, on CuPy's current stream.

Arrays are known by address, so they may be any library's. Nothing here waits for the device but
:meth:`Step.finite`.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from .._schema import rounds
from .._step import Around
from . import cuda_driver, cuda_source
from .engine import columns, summed
from .program import Program, chunks
from .trace import Signature, once, sums_of, trace

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
    """Where the arrays of parameters lie, as kernels read it; sent again where it changed.

    Args:
        rows: int64, see :func:`cuda_source.source`.
        sizes: the number of elements of each parameter.
        device: the parameters'.
        dims: how many axes are gone over; None if elements lie side by side.

    Attributes:
        chunks: see :func:`cuda_source.source`; in the order of the rows.
        bounds: the first chunk of each row, and the number of chunks.
    """

    def __init__(self, rows: np.ndarray, sizes: np.ndarray, device: int, dims: int | None) -> None:
        self.rows, self.device, self.dims = rows, device, dims
        self.chunks = chunks(sizes, CHUNK)
        self.bounds = np.searchsorted(self.chunks[:, 0], np.arange(len(rows) + 1))
        self._stream: Any = None
        self._sent: tuple[np.ndarray, Any, Any, Any] = (rows, None, None, None)

    def on_device(self) -> tuple[Any, Any, Any]:
        """Rows, chunks and bounds, ready for what runs on the current stream from now on."""
        now = cuda_driver.stream()
        before, rows, *same = self._sent
        if self._stream is None or self._stream != now:  # what another one sends may not be there
            same = [cuda_driver.sent(self.chunks), cuda_driver.sent(self.bounds)]
        elif np.array_equal(before, self.rows):
            return rows, same[0], same[1]
        rows = cuda_driver.sent(self.rows)
        self._stream, self._sent = now, (self.rows.copy(), rows, same[0], same[1])
        return rows, same[0], same[1]


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
        self, table: Table, values: dict[str, Any], shared: dict[str, int], partials: Any = None
    ) -> None:
        """Launch it.

        Args:
            values: the numbers that the host computes the program's scalars from.
            shared: the addresses of what belongs to all parameters, each a float64.
            partials: takes the sums over each chunk.
        """
        if not len(table.chunks):
            return
        program = self.program
        scalars = program.host(*[values[name] for name in program.reads])
        args = [*table.on_device()[:2]]
        args += [] if table.dims is None else [np.int32(table.dims)]
        args += [np.uint64(shared[name]) for name in self._shared]
        with np.errstate(over="ignore"):
            args += [kind(x) for kind, x in zip(self._kinds, scalars, strict=True)]
        args += [partials] * bool(program.sums)
        function = cuda_driver.loaded(self.source, table.device)
        function((len(table.chunks),), (cuda_source.THREADS,), tuple(args))


class Batch(NamedTuple):
    """Parameters on one device whose step is the same program."""

    table: Table
    single: Table  # of what is one value for a parameter
    places: list[int]  # where among the step's rows each is
    kernels: dict[str, Kernel]  # "move", and the others where they are needed
    sums: dict[str, Any]  # those of these kernels over each parameter, for others to read there


def _maker(strided: bool) -> Callable[..., Kernel]:
    """What makes a program's kernel, once."""

    @once
    def make(what: str, around: Around, sig: Signature, shared: Any = ()) -> Kernel:
        program = trace(what, around, sig, shared, inside=True)
        names = summed("move", around, sig, shared)
        return Kernel(program, columns(around.rule, sig, names), strided=strided)

    return make


_flat, _strided = _maker(strided=False), _maker(strided=True)


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
        Untraceable: the rule does what a loop over elements cannot.
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
        self.values, self._adapts = values, shared != ()
        groups: dict[tuple[Signature, int, int | None], list[tuple[int, Row]]] = {}
        for i, row in enumerate(rows):
            dims = None if row.strides is None else len(row.shape)
            groups.setdefault((row.sig, row.device, dims), []).append((i, row))
        turns = rounds(around.rule)
        wanted = ["move", *turns] + ["finite"] * guarded
        self.batches = []
        for (sig, device, dims), found in groups.items():
            made = {
                what: (_flat if dims is None else _strided)(what, around, sig, shared)
                for what in wanted
            }
            settle = _flat("settle", around, sig, shared)
            made |= {"settle": settle} if settle.program.stores else {}
            kept = (*turns, "move") if sums_of(around, sig, shared) else ("move",)
            counts = {what: len(made[what].program.sums) for what in kept}
            with cuda_driver.on(device):
                sums = {k: cuda_driver.empty(n * len(found)) for k, n in counts.items() if n}
                adds = any(x.program.sums for x in made.values())
                for source in [x.source for x in made.values()] + [cuda_source.REDUCE] * adds:
                    cuda_driver.loaded(source, device)  # nothing but launches may fail later
            tables = _tables([row for _, row in found], list(sums.values()))
            self.batches.append(Batch(*tables, [i for i, _ in found], made, sums))

    def finite(self) -> list[bool]:
        """For each row, whether its gradient is finite in the compute dtype.

        All rows must be on one device. The host waits for it, and reads one flag for each batch;
        only where one is set, it looks for the rows.
        """
        flags = [True] * sum(len(b.places) for b in self.batches)
        if not flags:
            return flags
        with cuda_driver.on(self.batches[0].table.device):
            totals = cuda_driver.empty(len(self.batches))
            partials = [self._run("finite", batch, {}) for batch in self.batches]
            for k, (batch, x) in enumerate(zip(self.batches, partials, strict=True)):
                _reduce(batch.table, x, totals[k : k + 1], 1)
            if cuda_driver.fetched(totals).any():
                for batch, x in zip(self.batches, partials, strict=True):
                    for row in batch.table.chunks[cuda_driver.fetched(x) > 0, 0]:
                        flags[batch.places[row]] = False
        return flags

    def measure(self, what: str, shared: dict[str, int]) -> list[dict[str, Any]]:
        """The sums that one of the rule's rounds gives, over each batch, for its shared state.

        Empty if it has no such state. Sums over each parameter that are taken later stay on the
        device, where the kernels read them.

        Args:
            shared: as in :meth:`move`.
        """
        found = []
        for batch in self.batches:
            with cuda_driver.on(batch.table.device):
                partials = self._run(what, batch, shared)
                names = [name for name, _ in batch.kernels[what].program.sums]
                if self._adapts:
                    totals = cuda_driver.empty(len(names))
                    _reduce(batch.table, partials, totals, len(names))
                    found.append({name: totals[k] for k, name in enumerate(names)})
        return found

    def move(self, shared: dict[str, int]) -> None:
        """The new parameters and slots, in place.

        Args:
            shared: the addresses of the rule's shared state, each a float64 on the device.
        """
        for batch in self.batches:
            with cuda_driver.on(batch.table.device):
                self._run("move", batch, shared)
                if "settle" in batch.kernels:
                    batch.kernels["settle"](batch.single, self.values, shared)

    def _run(self, what: str, batch: Batch, shared: dict[str, int]) -> Any:
        """Launch a program; returns its sums over each chunk."""
        kernel, table = batch.kernels[what], batch.table
        count = len(kernel.program.sums)
        partials = cuda_driver.empty(len(table.chunks) * count) if count else None
        kernel(table, self.values, shared, partials)
        if what in batch.sums:
            _reduce(table, partials, batch.sums[what], count)
        return partials


def _reduce(table: Table, partials: Any, sums: Any, count: int) -> None:
    """Add up so many sums over each chunk, in one order always.

    Args:
        sums: takes them, over each parameter or, where there is no room for that, over all.
    """
    each = len(table.rows) * count // len(sums)
    args = partials, table.on_device()[2], np.int64(each), np.int32(count), sums
    reduce = cuda_driver.loaded(cuda_source.REDUCE, table.device)
    reduce((len(sums),), (cuda_source.THREADS,), args)


def _tables(rows: list[Row], sums: list[Any]) -> tuple[Table, Table]:
    """Of parameters with one program, and of their slots of one value.

    Args:
        sums: for each of the parameters in turn, sums whose addresses are in its row.
    """
    count, first = len(rows), rows[0]
    there = [cuda_driver.address(x) + 8 * np.arange(len(x)).reshape(count, -1) for x in sums]
    known = np.column_stack([np.array([row.addresses for row in rows], np.int64), *there])
    table, dims = known, None
    if first.strides is not None:
        dims = len(first.shape)
        axes = [[x[::-1] for x in (row.shape, *(row.strides or ()))] for row in rows]
        lines = np.array(axes, np.int64).reshape(count, -1)
        none = np.zeros((count, dims * (known.shape[1] - len(first.addresses))), np.int64)
        table = np.column_stack([known, lines, none])
    sizes = np.array([row.size for row in rows], np.int64)
    return (
        Table(table, sizes, first.device, dims),
        Table(known.copy(), np.ones(count, np.int64), first.device, None),
    )
