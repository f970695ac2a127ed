"""NumPy arrays in place, block by block, on threads: for machines without llvmlite."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

import arrayopt as ao
from arrayopt._plan import Plan
from arrayopt._step import Part, arriving, is_off, measure, move

T = TypeVar("T")
BLOCK = 1 << 21  # bytes, for all threads: smaller ones wait for each other at NumPy's lock
# ALLOCATOR: glibc gives a freed block of more than 128 KiB back to the system, and every temporary
# then costs page faults, twice the time of the arithmetic. Freeing one of just under 32 MiB, never
# touched, once, makes it keep them, as in any program that has used an array of that size.


class Step:
    """One step, ready to be carried out by the rule itself over blocks that fit the cache."""

    def __init__(
        self, optimizer: ao.Optimizer, todo: Plan, pool: ThreadPoolExecutor, threads: int
    ) -> None:
        self.around, self._xp = optimizer.around, todo.xp
        self._pool, self._threads = pool, threads
        self.parts = [
            _block(part, index)
            for part in todo.parts
            for index in _blocks(part.param.shape, _elements(part, threads))
        ]

    def finite(self) -> list[bool]:
        """For each block, whether its gradient is finite."""
        return self._each(lambda b: bool(np.isfinite(arriving(b, self._xp)).all()))

    def measure(self) -> list[dict[str, Any]]:
        """The rule's sums, of each block."""
        return self._each(lambda b: measure(self.around, b, xp=self._xp))

    def move(self, shared: Any) -> None:
        """The new parameters and slots, in place."""

        def run(block: Part) -> None:
            new, slots = move(self.around, block, shared, xp=self._xp)
            block.param[...] = new
            changed = [(a, b) for a, b in zip(block.slots, slots, strict=True) if a is not b]
            # a new slot may be another old one: taken before any is written
            taken = [b.copy() if any(b is s for s in block.slots) else b for _, b in changed]
            for (old, _), value in zip(changed, taken, strict=True):
                if not is_off(old):
                    old[...] = value

        self._each(run)

    def _each(self, function: Callable[[Part], T]) -> list[T]:
        """The function of every block, in order; this thread takes a share too."""
        blocks = self.parts
        results: list[Any] = [None] * len(blocks)

        def share(first: int) -> None:
            with np.errstate(all="ignore"):  # it belongs to a thread
                for i in range(first, len(blocks), self._threads):
                    results[i] = function(blocks[i])

        others = [self._pool.submit(share, i) for i in range(1, min(self._threads, len(blocks)))]
        share(0)
        for other in others:
            other.result()
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
