"""CuPy's arrays in place by compiled kernels: where they lie."""

import operator
from types import SimpleNamespace
from typing import Any

import numpy as np
import optree

import arrayopt as ao
from arrayopt._plan import Plan
from arrayopt._step import Around, Part, is_off
from arrayopt._types import Array
from arrayopt.fuse import cuda
from arrayopt.fuse.program import Untraceable
from arrayopt.fuse.trace import shared_names, signature


class Step(cuda.Step):
    """A step of CuPy's arrays, all with the same hyperparameters and step number."""

    def __init__(self, optimizer: ao.Optimizer, todo: Plan, shared: Any) -> None:
        self.parts = todo.parts
        addresses(shared)  # tells whether they can be had
        rows = [_row(optimizer.around, part) for part in todo.parts]
        values = todo.parts[0].values | {"t": todo.parts[0].t} if rows else {}
        guarded = optimizer.nonfinite != "propagate"
        super().__init__(optimizer.around, rows, values, shared, guarded=guarded)
        # whether the next step may be told apart from this one by its gradients' addresses
        self.direct = bool(rows) and all(map(_CONTIGUOUS, (part.grad for part in todo.parts)))

    def again(self, values: dict[str, Any]) -> None:
        """Make it the next step, of the same arrays but for the gradients."""
        self.values = values

    def measure(self, what: str, shared: Any) -> list[dict[str, Any]]:
        return super().measure(what, addresses(shared))

    def move(self, shared: Any) -> None:
        super().move(addresses(shared))


def _row(around: Around, part: Part) -> cuda.Row:
    arrays = [part.param, part.grad, *(x for x in part.slots if not is_off(x))]
    shape, device = part.param.shape, part.param.device.id
    if any(x.device.id != device for x in arrays):
        raise Untraceable(f"{part.path} and its slots are on several devices")
    places = [x.data.ptr for x in arrays]
    strides = None
    if not all(map(_CONTIGUOUS, arrays)) and not all(x.flags.f_contiguous for x in arrays):
        same = (x.shape == shape for x in arrays)  # but for slots of one value
        strides = tuple(
            tuple(s // x.itemsize for s in x.strides) if each else (0,) * len(shape)
            for x, each in zip(arrays, same, strict=True)
        )
    return cuda.Row(signature(around, part), places, part.param.size, device, shape, strides)


def addresses(shared: Any) -> dict[str, int]:
    """Where each value of the shared state is, by the name that a kernel has for it."""
    if shared == ():
        return {}
    leaves = optree.tree_leaves(shared)
    if any(x.dtype != np.float64 for x in leaves):
        raise Untraceable("the shared state is not float64")
    return {k: x.data.ptr for k, x in zip(shared_names(shared), leaves, strict=True)}


def mirrored(x: Array) -> np.ndarray:
    """An array at the same address, for NumPy to tell what it overlaps; it is not to be read."""
    return np.asarray(
        SimpleNamespace(
            __array_interface__={
                "version": 3,
                "shape": x.shape,
                "strides": x.strides,
                "typestr": x.dtype.str,
                "data": (x.data.ptr, False),
            }
        )
    )


_CONTIGUOUS = operator.attrgetter("flags.c_contiguous")
