"""NumPy arrays in place, block by block, on threads: for machines without llvmlite."""

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import optree

import arrayopt as ao
from arrayopt._plan import Plan
from arrayopt._schema import rounds
from arrayopt._step import Around, Part, arriving, is_off, measure, move
from arrayopt.fuse.cpu import ALONE
from arrayopt.fuse.program import Untraceable
from arrayopt.fuse.trace import Signature, once, shared_names, signature, trace
from arrayopt.fuse.ufuncs import Blocks

T = TypeVar("T")
TOUCHED = 6 << 20  # bytes that a thread goes over in one block: fewer mean more calls
BLOCK = 1 << 21  # bytes for all threads, where the rule runs as it is written
# ALLOCATOR: glibc gives a freed block of more than 128 KiB back to the system, and every temporary
# then costs page faults, twice the time of the arithmetic. Freeing one of just under 32 MiB, never
# touched, once, makes it keep them, as in any program that has used an array of that size.
Programs = dict[str, tuple[Blocks, Any]]  # each with its scalars


class Block(NamedTuple):
    """A piece of a parameter that fits the cache."""

    part: Part
    whole: int  # which of the parameters it is a piece of
    programs: Programs  # none: the rule as it is written


@once
def blocks(what: str, around: Around, sig: Signature, shared: Any = ()) -> Blocks | None:
    """The program of that name (see :func:`trace`), None if it does nothing; raises Untraceable."""
    program = trace(what, around, sig, shared, inside=True)
    return Blocks(program) if program.stores or program.sums else None


class Step:
    """One step, ready to be carried out over blocks that fit the cache.

    NumPy's functions carry out the traced rule; or the rule itself does, with hyperparameters that
    are arrays.

    Raises:
        Untraceable: the rule cannot be applied to pieces of a parameter.
    """

    direct = False  # it is made anew for each step

    def __init__(
        self,
        optimizer: ao.Optimizer,
        todo: Plan,
        shared: Any,
        pool: ThreadPoolExecutor,
        threads: int,
    ) -> None:
        self.around, self._xp = optimizer.around, todo.xp
        self._pool, self._threads = pool, threads
        what = ["move", "settle", *rounds(self.around.rule)]
        what += ["finite"] * (optimizer.nonfinite != "propagate")
        self._blocks: list[Block] = []
        self._sums: list[dict[str, Any]] = [{} for _ in todo.parts]  # of measure, over each
        known: dict[Signature, Programs] = {}
        for i, part in enumerate(todo.parts):
            programs = self._programs(part, shared, what, known)
            sizes = [TOUCHED // p.bytes_per_element for p, _ in programs.values()]
            most = max(1, min(sizes, default=_elements(part, threads)))
            for index in _blocks(part.param.shape, most):
                self._blocks.append(Block(_block(part, index), i, programs))
        self.parts = [block.part for block in self._blocks]

    def _programs(
        self, part: Part, shared: Any, what: list[str], known: dict[Signature, Programs]
    ) -> Programs:
        """Those for a parameter, each with the scalars of this step."""
        numbers = {k: v for k, v in part.values.items() if not hasattr(v, "shape")}
        arrays = dict.fromkeys(part.values.keys() - numbers.keys(), 0.5)
        sig = signature(self.around, part._replace(values=numbers | arrays))
        if arrays:  # the rule as it is written; a trace tells whether it is made of elements
            if trace("move", self.around, sig, shared).sums:
                raise Untraceable("it sums over a parameter while it moves it")
            return {}
        if sig not in known:
            values = part.values | {"t": part.t}
            found = {one: blocks(one, self.around, sig, shared) for one in what}
            known[sig] = {k: (x, x.scalars(values)) for k, x in found.items() if x is not None}
        return known[sig]

    def finite(self) -> list[bool]:
        """For each block, whether its gradient is finite."""

        def run(block: Block) -> bool:
            if block.programs:
                return self._run(block, "finite", ()) == (0.0,)
            return bool(np.isfinite(arriving(block.part, self._xp)).all())

        return self._each(run)

    def measure(self, what: str, shared: Any) -> list[dict[str, Any]]:
        """The sums that one of the rule's rounds gives, of each block."""

        def run(block: Block) -> dict[str, Any]:
            if not block.programs:
                known = self._sums[block.whole]
                return measure(what, self.around, block.part, shared, known, xp=self._xp)
            names = block.programs[what][0].sums
            found = map(np.asarray, self._run(block, what, shared))
            return dict(zip(names, found, strict=True))

        found = self._each(run)
        more = self._added(found)
        self._sums = [{**own, **new} for own, new in zip(self._sums, more, strict=True)]
        return found

    def move(self, shared: Any) -> None:
        """The new parameters and slots, in place."""

        def run(block: Block) -> Any:
            if block.programs:
                names = block.programs["move"][0].sums
                return dict(zip(names, self._run(block, "move", shared), strict=True))
            return self._written(block, shared)

        found = self._each(run)
        late = self._added(
            [x if b.programs else {} for b, x in zip(self._blocks, found, strict=True)]
        )
        for i, block in enumerate(self._blocks):
            if i and self._blocks[i - 1].whole == block.whole:
                continue  # what is one value for a parameter is written once
            if "settle" in block.programs:
                self._run(block, "settle", shared, late[block.whole])
            for old, new in () if block.programs else found[i]:
                old[...] = new

    def _run(
        self, block: Block, what: str, shared: Any, late: Mapping[str, Any] = {}
    ) -> tuple[float, ...]:
        """Carry out a program; returns the sums over the block.

        ``late`` holds those over the whole parameter that its move gave.
        """
        program, scalars = block.programs[what]
        part = block.part
        arrays = {"param": part.param, "grad": part.grad, **part.slots._asdict()}
        arrays |= dict(zip(shared_names(shared), optree.tree_leaves(shared), strict=True))
        sums = {f"sums.{name}": x for name, x in self._sums[block.whole].items()} | {**late}
        arrays |= {name: np.asarray(x) for name, x in sums.items()}
        return program(arrays, scalars)

    def _added(self, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Sums over each block, as sums over each parameter."""
        whole: list[dict[str, Any]] = [{} for _ in self._sums]
        for block, sums in zip(self._blocks, found, strict=True):
            row = whole[block.whole]
            row |= {name: row[name] + x if name in row else x for name, x in sums.items()}
        return whole

    def _written(self, block: Block, shared: Any) -> list[tuple[Any, Any]]:
        """The rule as it is written, over a block; returns new values of what is one value."""
        part = block.part
        new, slots = move(self.around, part, shared, self._sums[block.whole], xp=self._xp)
        changed = [(a, b) for a, b in zip(part.slots, slots, strict=True) if a is not b]
        # a new slot may be another old one: taken before any is written
        taken = [b.copy() if any(b is s for s in part.slots) else b for _, b in changed]
        pairs = [(old, x) for (old, _), x in zip(changed, taken, strict=True) if not is_off(old)]
        part.param[...] = new
        shape = part.param.shape
        for old, x in pairs:
            if old.shape == shape:
                old[...] = x
        return [(old, x) for old, x in pairs if old.shape != shape]

    def _each(self, function: Callable[[Block], T]) -> list[T]:
        """The function of every block, in order; this thread takes its share."""
        results: list[Any] = [None] * len(self._blocks)
        left = iter(range(len(self._blocks)))

        def share() -> None:
            with np.errstate(all="ignore"):  # it belongs to a thread
                for i in left:
                    results[i] = function(self._blocks[i])

        size = sum(block.part.param.size for block in self._blocks)
        others = min(self._threads, len(self._blocks)) - 1 if size > ALONE else 0
        waiting = [self._pool.submit(share) for _ in range(others)]
        share()
        for one in waiting:
            one.result()
        return results


def _elements(part: Part, threads: int) -> int:
    """How many a block has: fewer for a rule with many slots, which has many temporaries."""
    many = max(1, (sum(not is_off(s) for s in part.slots) + 1) // 2)
    return max(1, BLOCK // threads // many // max(part.param.itemsize, 4))


def _blocks(shape: tuple[int, ...], most: int) -> Iterator[tuple[Any, ...]]:
    """Indices that cut an array into blocks of at most ``most`` elements, each of them a view."""
    size = math.prod(shape)
    if size <= most:
        yield (...,)
    elif size // shape[0] > most:
        for i in range(shape[0]):
            yield from ((i, *rest) for rest in _blocks(shape[1:], most))
    else:
        rows = most * shape[0] // size
        for i in range(0, shape[0], rows):
            yield (slice(i, i + rows), ...)


def _block(part: Part, index: tuple[Any, ...]) -> Part:
    """The part at ``index``; what has one value per parameter goes along whole."""
    shape = part.param.shape
    slots = [s if is_off(s) or s.shape != shape else s[index] for s in part.slots]
    values = {
        k: np.broadcast_to(v, shape)[index] if isinstance(v, np.ndarray) else v
        for k, v in part.values.items()
    }
    return part._replace(
        param=part.param[index],
        grad=part.grad[index],
        slots=type(part.slots)(*slots),
        values=values,
    )
