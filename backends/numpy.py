"""NumPy arrays, updated in place: by a compiled loop, or block by block."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from numpy.lib.array_utils import byte_bounds

import arrayopt as ao
from arrayopt._namespace import namespace, quiet
from arrayopt._plan import Plan
from arrayopt._step import is_off
from arrayopt._tree import Tree
from arrayopt.fuse.cpu import cores, installed
from arrayopt.fuse.engine import why_not
from arrayopt.fuse.program import Untraceable

from . import _numpy_blocks, _numpy_fused
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


class InPlace:
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

    def __init__(
        self,
        params: Any,
        rule: Any,
        *,
        engine: Literal["fused", "blocks", "eager"] | None = None,
        threads: int | None = None,
        **hyper: Any,
    ) -> None:
        self.optimizer = ao.Optimizer(rule, **hyper)
        if engine not in (None, *ENGINES):
            raise ValueError(
                f"{self.optimizer.name}: engine must be one of {ENGINES} or None, got {engine!r}"
            )
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
        self._engine = engine
        self._threads = max(1, threads or cores())
        self._forget()
        if engine == "fused":  # told now if it cannot be
            self._fused(self.optimizer.plan(params, params, self.state, {}))
        np.empty(31 << 20, np.uint8)  # see ALLOCATOR in _numpy_blocks.py

    def _forget(self) -> None:
        """What can be neither copied nor pickled, as it is at first."""
        self._memory: _numpy_fused.Memory | None = None
        self._pool = ThreadPoolExecutor(self._threads)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_pool": None, "_memory": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def step(self, grads: Any, **override: Any) -> None:
        """One step, in place; ``override`` gives hyperparameters for this step alone."""
        optimizer, state = self.optimizer, self.state
        step: _numpy_fused.Step | _numpy_blocks.Step | None = None
        if self._memory:
            step = self._memory.again(optimizer, self.params, grads, state, override)
        todo = None
        if not step:
            self._memory = None
            todo = self._checked(grads, override)
            if self._engine == "eager":
                self._whole(grads, override)
                return
            step = self._fused(todo) or _numpy_blocks.Step(
                optimizer, todo, state.shared, self._pool, self._threads
            )
        if optimizer.nonfinite != "propagate":
            flags = step.finite()
            if optimizer.nonfinite == "raise":
                optimizer.raise_nonfinite(step.parts, flags, XP)
            if not all(flags):
                return
        shared = state.shared
        if shared != ():
            with quiet(XP):
                shared = optimizer.adapt(step.parts, shared, step.measure(), XP)
        step.move(shared)
        self.state = state._replace(step=state.step + 1, shared=shared)
        if todo and isinstance(step, _numpy_fused.Step) and step.direct:
            self._memory = _numpy_fused.Memory(optimizer, todo, step, self.params)

    def _whole(self, grads: Any, override: dict[str, Any]) -> None:
        """The pure step, written into the arrays."""
        new, self.state = self.optimizer.step(self.params, grads, self.state, **override)
        for old, x in zip(Tree(self.params).leaves, Tree(new).leaves, strict=True):
            if x is not old:
                old[...] = x

    def _checked(self, grads: Any, override: dict[str, Any]) -> Plan:
        """The step's plan, if it can be carried out in place."""
        optimizer = self.optimizer
        todo = optimizer.plan(self.params, grads, self.state, override)
        named = [(part.path, part.param) for part in todo.parts]
        named += [(f"the gradient of {part.path}", part.grad) for part in todo.parts]
        for part in todo.parts:
            for x in (part.param, *part.slots):
                if not is_off(x) and not x.flags.writeable:
                    raise ValueError(f"{optimizer.name}: {part.path} or a slot of it is read-only")
        _check_overlap(optimizer.name, named, written=len(todo.parts))
        return todo

    def _fused(self, todo: Plan) -> _numpy_fused.Step | None:
        """The step by the compiled rule; None if that cannot be and is not asked for by name."""
        if self._engine == "blocks":
            return None
        try:
            if not installed():
                raise Untraceable('llvmlite is not installed; pip install "arrayopt[fast]"')
            return _numpy_fused.Step(self.optimizer, todo, self.state.shared, self._threads)
        except Untraceable as error:
            if self._engine == "fused":
                raise TypeError(f"{self.optimizer.name}: no engine 'fused': {error}") from None
            return None


def engines(optimizer: ao.Optimizer) -> dict[str, str | None]:
    """What can carry out the steps of ``InPlace``, the preferred first; and why not."""
    return dict.fromkeys(ENGINES) | {"fused": why_not(optimizer)}


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
            if min(i, j) < written and np.shares_memory(x, y, max_work=10**6):  # type: ignore[arg-type]
                raise ValueError(f"{who}: {a} and {b} share memory")
        reached.append((high, i))


def asarray(x: np.ndarray) -> np.ndarray:
    """A copy."""
    return np.array(x)


def asnumpy(x: np.ndarray) -> np.ndarray:
    return np.asarray(x)


def about() -> str:
    return f"numpy {np.__version__}, cpu"
