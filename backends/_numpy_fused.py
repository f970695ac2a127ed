"""NumPy arrays in place by compiled loops: which parameters go together, and where they lie."""

import operator
from typing import Any

import numpy as np

import arrayopt as ao
from arrayopt._plan import Plan, masked, resolve
from arrayopt._step import is_off
from arrayopt._types import Array
from arrayopt.fuse import engine
from arrayopt.fuse.cpu import address
from arrayopt.fuse.engine import Layout
from arrayopt.fuse.program import Untraceable
from arrayopt.fuse.trace import divide, signature

LAYOUT = Layout(
    operator.attrgetter("flags.c_contiguous"),
    operator.attrgetter("strides"),
    lambda x, y: np.empty_like(x, dtype=y.dtype),
)


class Step(engine.Step):
    """A step of NumPy arrays, all with the same hyperparameters and step number.

    Arrays in another order than the loop wants are copied, and copied back.
    """

    def __init__(self, optimizer: ao.Optimizer, todo: Plan, shared: Any, threads: int) -> None:
        self.parts = todo.parts
        copies, rows = [], []
        for part in todo.parts:
            arrays = [part.param, part.grad, *(x for x in part.slots if not is_off(x))]
            found = LAYOUT.alike(arrays)
            copies += [(x, y) for x, y in zip(arrays, found, strict=True) if x is not y]
            sig = signature(optimizer.around, part)
            rows.append(engine.Row(sig, [*map(address, found)], part.param.size, 0))
        sets = [part.values | {"t": part.t} for part in todo.parts[:1]]
        guarded = optimizer.nonfinite != "propagate"
        super().__init__(optimizer.around, rows, sets, shared, guarded=guarded, threads=threads)
        for x, y in copies:
            y[...] = x
        self._copies = copies  # which live as long as their addresses are in the tables
        self._grads = {id(part.grad) for part in todo.parts}
        self.direct = bool(rows) and not copies  # whether the loops work on the arrays themselves

    def move(self, shared: Any) -> None:
        super().move(shared)
        for x, y in self._copies:
            if id(x) not in self._grads:
                x[...] = y


class Memory:
    """What a step was made of, so that the next one need not look at everything again.

    It can be taken as it is if the same arrays are to be moved, by the same program, with gradients
    that look the same. NumPy does not move the memory of an array that is referred to elsewhere.
    """

    def __init__(self, optimizer: ao.Optimizer, todo: Plan, step: Step, params: Any) -> None:
        grads = [part.grad for part in todo.parts]
        moved = [part.param for part in todo.parts]
        self._step, self._tree = step, todo.tree
        self._held = self._arrays(params, optimizer.trees(todo.tree, todo.slots))
        step.parts = [part._replace(grad=None) for part in todo.parts]  # those are the caller's
        self._dtypes, self._shapes = [*map(_DTYPE, grads)], [*map(_SHAPE, grads)]
        self._there = [i in todo.places for i in range(len(todo.tree.leaves))]
        self._decays = masked("", optimizer.decay_mask, params, todo.tree)
        self._chosen = divide(todo.parts[0].values)
        self._found = [*map(address, grads)]
        self._sizes = np.array([x.nbytes for x in grads])
        begin = np.array([*map(address, moved)])
        order = np.argsort(begin)
        self._begin = begin[order]
        self._end = self._begin + np.array([x.nbytes for x in moved])[order]

    def again(
        self,
        optimizer: ao.Optimizer,
        params: Any,
        grads: Any,
        state: ao.State,
        override: dict[str, Any],
    ) -> Step | None:
        """The next step, or None where something is not as it was."""
        try:
            held = self._arrays(params, state.slots)
            found = self._tree.split(grads)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None  # told in full when all is looked at
        if len(held) != len(self._held) or not all(map(operator.is_, held, self._held)):
            return None
        relaid = override.keys() & optimizer.around.reads["init"]
        if relaid or not all(map(_WRITEABLE, held)):
            return None
        decay = optimizer.decay_mask
        if decay is not None and masked("", decay, params, self._tree) != self._decays:
            return None
        values = resolve(optimizer.rule, optimizer.hyper, override, state.step)
        try:
            if divide(values) != self._chosen:
                return None
        except Untraceable:  # an array, for once
            return None
        if [x is not None for x in found] != self._there or not self._take(found):
            return None
        step, t = self._step, state.step + 1
        step.parts[0] = step.parts[0]._replace(values=values, t=t)
        step.sets = [values | {"t": t}]
        return step

    def _arrays(self, params: Any, slots: Any) -> list[Array]:
        """Every parameter and slot."""
        trees = [params, *(x for x in slots if not is_off(x))]
        return [x for tree in trees for x in self._tree.split(tree)]

    def _take(self, grads: list[Any]) -> bool:
        """Put the gradients' addresses into the tables, if they look like the last ones."""
        if not all(self._there):
            grads = [x for x in grads if x is not None]
        if (
            {*map(type, grads)} != {np.ndarray}
            or [*map(_DTYPE, grads)] != self._dtypes
            or [*map(_SHAPE, grads)] != self._shapes
            or not all(map(_CONTIGUOUS, grads))
        ):
            return False
        found = [*map(address, grads)]
        if found == self._found:
            return True
        where = np.array(found)
        before = np.searchsorted(self._begin, where + self._sizes) - 1  # the last to begin there
        if np.any((before >= 0) & (self._end[before] > where)):
            return False  # a gradient may share memory with a parameter
        self._found = found
        for batch in self._step.batches:
            batch.table.rows[:, 1] = where[batch.places]
        return True


_DTYPE, _SHAPE = operator.attrgetter("dtype"), operator.attrgetter("shape")
_WRITEABLE = operator.attrgetter("flags.writeable")
_CONTIGUOUS = operator.attrgetter("flags.c_contiguous")
