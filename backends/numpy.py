"""NumPy arrays, updated in place: by a compiled loop, or block by block."""

import operator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np

import arrayopt as ao
from arrayopt._namespace import namespace
from arrayopt._plan import Plan
from arrayopt.fuse.cpu import address, cores, missing
from arrayopt.fuse.engine import why_not
from arrayopt.fuse.program import Untraceable

from . import _in_place, _numpy_blocks, _numpy_fused
from ._common import compiled, session, settle, usable

__all__ = [
    "DTYPES",
    "ENGINES",
    "InPlace",
    "about",
    "asarray",
    "asnumpy",
    "compiled",
    "engines",
    "session",
    "settle",
    "usable",
]
DTYPES = ("float16", "float32", "float64")
ENGINES = ("fused", "blocks", "eager")
XP = namespace(np.empty(0))


class InPlace(_in_place.InPlace):
    """Updates the caller's NumPy arrays in place, on as many threads as there are cores.

    The results are those of ``Optimizer.step`` to the bit, but for rules with exp (Madam) or with
    sums over elements (MADA), whose order differs.

    Args:
        params: a tree of writable NumPy arrays, none of which share memory.
        rule, hyper: as for :class:`arrayopt.Optimizer`.
        engine: what carries out a step; the first of these that can, if it is None. ``"fused"``:
            the rule, compiled into one loop over all parameters (it needs llvmlite, the extra
            ``fast``, and hyperparameters that are no arrays). ``"blocks"``: NumPy's functions, over
            blocks that fit the cache. ``"eager"``: the rule as it is written, over whole arrays.
        threads: how many; the number of cores by default.

    A step that cannot run (see ``Optimizer.step``) changes nothing.

    >>> import numpy as np
    >>> w = np.ones(3)
    >>> opt = InPlace({"w": w}, "sgd", lr=0.5)
    >>> opt.step({"w": np.array([1.0, 0.0, 2.0])})
    >>> w.tolist()
    [0.5, 1.0, 0.0]
    """

    LIBRARY = _in_place.Library(
        "NumPy",
        XP,
        np.ndarray,
        address,
        device=operator.attrgetter("device"),
        writeable=operator.attrgetter("flags.writeable"),
        mirror=np.asarray,
    )
    ENGINES = ENGINES

    def __init__(
        self,
        params: Any,
        rule: Any,
        *,
        engine: Literal["fused", "blocks", "eager"] | None = None,
        threads: int | None = None,
        **hyper: Any,
    ) -> None:
        self._threads = max(1, threads or cores())
        self._pool = ThreadPoolExecutor(self._threads)
        super().__init__(params, rule, engine=engine, **hyper)
        np.empty(31 << 20, np.uint8)  # see ALLOCATOR in _numpy_blocks.py

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_pool": None}  # which can be neither copied nor pickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _pool=ThreadPoolExecutor(state["_threads"]))

    def _compiled(self, todo: Plan) -> _numpy_fused.Step:
        if lacks := missing():
            raise Untraceable(lacks)
        return _numpy_fused.Step(self.optimizer, todo, self.state.shared, self._threads)

    def _other(self, todo: Plan) -> _numpy_blocks.Step | None:
        shared = self.state.shared
        try:
            return _numpy_blocks.Step(self.optimizer, todo, shared, self._pool, self._threads)
        except Untraceable as error:
            if self._engine == "blocks":
                who = self.optimizer.name
                raise TypeError(f"{who}: no engine 'blocks': {error}") from None
            return None


def engines(optimizer: ao.Optimizer) -> dict[str, str | None]:
    """What can carry out the steps of ``InPlace``, the preferred first; and why not."""
    return dict.fromkeys(ENGINES) | {"fused": why_not(optimizer)}


def asarray(x: np.ndarray) -> np.ndarray:
    """A copy."""
    return np.array(x)


def asnumpy(x: np.ndarray) -> np.ndarray:
    return np.asarray(x)


def about() -> str:
    return f"numpy {np.__version__}, cpu"
