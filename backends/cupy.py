"""CuPy arrays, updated in place on their GPU."""

from typing import Any

import numpy as np

import arrayopt as ao
from arrayopt._tree import Tree

from ._common import compiled, extra, session, settle

with extra("cupy"):
    import cupy

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


class InPlace:
    """Updates the caller's CuPy arrays in place, on CuPy's current stream.

    Args:
        params: a tree of CuPy arrays, none of which share memory.
        rule, hyper: as for :class:`arrayopt.Optimizer`.

    No step waits for the GPU, but with ``nonfinite="raise"`` or ``"skip"``, which read a flag.
    A step that cannot run (see ``Optimizer.step``) changes nothing.
    """

    def __init__(self, params: Any, rule: Any, **hyper: Any) -> None:
        self.optimizer = ao.Optimizer(rule, **hyper)
        self.params = params
        tree = Tree(params)
        named = list(zip(tree.paths, tree.leaves, strict=True))
        for path, x in named:
            if not isinstance(x, cupy.ndarray):
                raise TypeError(
                    f"{self.optimizer.name}: {path} must be a CuPy array, got {x!r:.80}"
                )
        for i, (path, x) in enumerate(named):
            for other, y in named[:i]:
                if cupy.may_share_memory(x, y):
                    raise ValueError(f"{self.optimizer.name}: {other} and {path} share memory")
        self.state = self.optimizer.init(params)

    def step(self, grads: Any, **override: Any) -> None:
        """One step, in place; ``override`` gives hyperparameters for this step alone."""
        params, self.state = self.optimizer.step(self.params, grads, self.state, **override)
        for old, new in zip(Tree(self.params).leaves, Tree(params).leaves, strict=True):
            if new is not old:
                old[...] = new


def usable() -> bool:
    """Whether there is a GPU."""
    return bool(cupy.cuda.is_available())


def asarray(x: np.ndarray) -> Any:
    return cupy.array(x)


def asnumpy(x: Any) -> np.ndarray:
    return cupy.asnumpy(x)


def about() -> str:
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode() if usable() else "no GPU"
    return f"cupy {cupy.__version__}, {name}"
