"""Dask arrays: a step is a graph; it is computed once a step, so that graphs do not grow."""

import contextlib
from typing import Any, TypeVar

import numpy as np

import arrayopt as ao

from ._common import compiled, engines, extra, usable

with extra("dask"):
    import dask
    import dask.array as da

__all__ = [
    "DTYPES",
    "PARITY_STEPS",
    "Optimizer",
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
PARITY_STEPS = 20  # it computes with NumPy, and takes 2 ms to note down an operation
T = TypeVar("T")


class Optimizer(ao.Optimizer):
    """An optimizer whose results are persisted: all of a step in one computation.

    ``arrayopt.Optimizer`` itself is lazy on Dask arrays: its graph grows with every step.
    """

    def init(self, params: Any) -> ao.State:
        """The state before the first step, persisted."""
        return settle(super().init(params))

    def step(self, params: Any, grads: Any, state: ao.State, **override: Any) -> Any:
        """One step, persisted."""
        return settle(super().step(params, grads, state, **override))


def session(dtype: str) -> contextlib.AbstractContextManager[Any]:
    """No threads, for small arrays; and NumPy's warnings off, as everywhere."""
    stack = contextlib.ExitStack()
    stack.enter_context(dask.config.set(scheduler="synchronous"))
    stack.enter_context(np.errstate(all="ignore"))
    return stack


def settle(tree: T) -> T:
    """The same tree, its arrays computed and kept in their chunks, in one computation."""
    (settled,) = dask.persist(tree)
    return settled


def asarray(x: np.ndarray) -> da.Array:
    """A lazy array over a copy of ``x``."""
    return da.from_array(x.copy())


def asnumpy(x: da.Array) -> np.ndarray:
    return np.asarray(x.compute())


def about() -> str:
    return f"dask {dask.__version__}, cpu"
