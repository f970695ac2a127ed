"""NumPy arrays in place by compiled loops: which parameters go together, and where they lie."""

import operator
from typing import Any

import numpy as np

import arrayopt as ao
from arrayopt._plan import Plan
from arrayopt._step import is_off
from arrayopt.fuse import engine
from arrayopt.fuse.cpu import address
from arrayopt.fuse.engine import Layout
from arrayopt.fuse.trace import signature

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

    def again(self, values: dict[str, Any]) -> None:
        """Ready for the next step, with these hyperparameters and step number."""
        self.sets = [values]

    def move(self, shared: Any) -> None:
        super().move(shared)
        for x, y in self._copies:
            if id(x) not in self._grads:
                x[...] = y
