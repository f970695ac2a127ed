"""NumPy arrays, updated in place: block by block, on threads."""

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.lib.array_utils import byte_bounds

import arrayopt as ao
from arrayopt._namespace import quiet
from arrayopt._step import Part, arriving, is_off, measure, move
from arrayopt._tree import Tree

from ._common import compiled, session, settle, usable

__all__ = [
    "DTYPES",
    "InPlace",
    "about",
    "asarray",
    "asnumpy",
    "compiled",
    "session",
    "settle",
    "usable",
]
DTYPES = ("float16", "float32", "float64")
T = TypeVar("T")
BLOCK = 1 << 21  # bytes, for all threads: smaller ones wait for each other at NumPy's lock
# ALLOCATOR: glibc gives a freed block of more than 128 KiB back to the system, and every temporary
# then costs page faults, twice the time of the arithmetic. Freeing one of just under 32 MiB, never
# touched, once, makes it keep them, as in any program that has used an array of that size.


class InPlace:
    """Updates the caller's NumPy arrays in place.

    The rule runs over blocks that fit the cache, on as many threads as there are cores (NumPy
    releases its lock while it computes). The results are those of ``Optimizer.step`` to the bit,
    but for rules with sums over elements (MADA), which are added up in another order.

    Args:
        params: a tree of writable NumPy arrays, none of which share memory.
        rule, hyper: as for :class:`arrayopt.Optimizer`.
        threads: how many; the number of cores by default.

    A step that cannot run (see ``Optimizer.step``) changes nothing.

    >>> import numpy as np
    >>> w = np.ones(3)
    >>> opt = InPlace({"w": w}, "sgd", lr=0.5)
    >>> opt.step({"w": np.array([1.0, 0.0, 2.0])})
    >>> w.tolist()
    [0.5, 1.0, 0.0]
    """

    def __init__(self, params: Any, rule: Any, *, threads: int | None = None, **hyper: Any) -> None:
        self.optimizer = ao.Optimizer(rule, **hyper)
        self.params = params
        tree = Tree(params)
        named = list(zip(tree.paths, tree.leaves, strict=True))
        for path, x in named:
            if not isinstance(x, np.ndarray):
                raise TypeError(
                    f"{self.optimizer.name}: {path} must be a NumPy array, got {x!r:.80}"
                )
            if not x.flags.writeable:
                raise ValueError(f"{self.optimizer.name}: {path} is read-only")
        _check_overlap(self.optimizer.name, named, written=len(named))
        self.state = self.optimizer.init(params)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self._threads = max(1, threads or cores or 1)
        self._pool = ThreadPoolExecutor(self._threads)
        np.empty(31 << 20, np.uint8)  # see ALLOCATOR

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_pool": None}  # threads can be neither copied nor pickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _pool=ThreadPoolExecutor(state["_threads"]))

    def step(self, grads: Any, **override: Any) -> None:
        """One step, in place; ``override`` gives hyperparameters for this step alone."""
        optimizer = self.optimizer
        todo = optimizer.plan(self.params, grads, self.state, override)
        named = [(part.path, part.param) for part in todo.parts]
        named += [(f"the gradient of {part.path}", part.grad) for part in todo.parts]
        for part in todo.parts:
            for x in (part.param, *part.slots):
                if not is_off(x) and not x.flags.writeable:
                    raise ValueError(f"{optimizer.name}: {part.path} or a slot of it is read-only")
        _check_overlap(optimizer.name, named, written=len(todo.parts))
        blocks = [
            _block(part, index)
            for part in todo.parts
            for index in _blocks(part.param.shape, _elements(part, self._threads))
        ]
        around, xp = optimizer.around, todo.xp
        if optimizer.nonfinite != "propagate":
            flags = self._each(lambda b: bool(np.isfinite(arriving(b, xp)).all()), blocks)
            if optimizer.nonfinite == "raise":
                optimizer.raise_nonfinite(blocks, flags, todo.xp)
            if not all(flags):
                return
        sums = self._each(lambda b: measure(around, b, xp=xp), blocks)
        with quiet(xp):
            shared = optimizer.adapt(todo.parts, self.state.shared, sums, xp)

        def run(block: Part) -> None:
            new, slots = move(around, block, shared, xp=xp)
            block.param[...] = new
            changed = [(a, b) for a, b in zip(block.slots, slots, strict=True) if a is not b]
            # a new slot may be another old one: taken before any is written
            taken = [b.copy() if any(b is s for s in block.slots) else b for _, b in changed]
            for (old, _), value in zip(changed, taken, strict=True):
                if not is_off(old):
                    old[...] = value

        self._each(run, blocks)
        self.state = self.state._replace(step=self.state.step + 1, shared=shared)

    def _each(self, function: Callable[[Part], T], blocks: list[Part]) -> list[T]:
        """The function of every block, in order; this thread takes a share too."""
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


def _check_overlap(who: str, named: list[tuple[str, np.ndarray]], written: int) -> None:
    """Raise if one of the first ``written`` arrays shares memory with another one."""
    for path, x in named[:written]:
        strides = sorted((abs(s), n) for s, n in zip(x.strides, x.shape, strict=True) if n > 1)
        reach = x.itemsize  # of what lies within one step of the next stride
        for stride, n in strides:
            if stride < reach and x.size:
                raise ValueError(f"{who}: elements of {path} share memory")
            reach += stride * (n - 1)
    bounds = sorted((*byte_bounds(x), i) for i, (_, x) in enumerate(named) if x.size)
    reached: list[tuple[int, int]] = []  # how far those reach that begin further to the left
    for low, high, i in bounds:
        reached = [(end, j) for end, j in reached if end > low]
        for _, j in reached:
            (a, x), (b, y) = named[j], named[i]
            if min(i, j) < written and x is y:
                raise ValueError(f"{who}: {a} and {b} are the same array")
            if min(i, j) < written and np.shares_memory(x, y, max_work=10**6):
                raise ValueError(f"{who}: {a} and {b} share memory")
        reached.append((high, i))


def asarray(x: np.ndarray) -> np.ndarray:
    """A copy."""
    return np.array(x)


def asnumpy(x: np.ndarray) -> np.ndarray:
    return np.asarray(x)


def about() -> str:
    return f"numpy {np.__version__}, cpu"
