"""What the imports from other libraries share."""

from typing import Any

import numpy as np

from ._namespace import compute_dtype, dtype_name, first_step, is_array
from ._paths import keys_of
from ._plan import one_namespace
from ._step import is_off
from ._transfer import CheckpointError, adapter, put, put_scalar, to_numpy
from ._tree import Tree
from .optimizer import Optimizer, State


def number(value: Any) -> Any:
    """A 0-d array as a Python number; anything else as it is."""
    return to_numpy(value).item() if is_array(value) and value.shape == () else value


def bound(rule: Any, options: dict[str, Any]) -> Optimizer:
    try:
        return Optimizer(rule, **options)
    except ValueError as error:
        raise CheckpointError(str(error)) from None


def state_beside(
    optimizer: Optimizer, params: Any, step: int, values: dict[str, Any], shared: Any
) -> State:
    """A state beside ``params``: as at the start, but for the slots' values by path."""
    tree = Tree(params)
    xp = one_namespace(optimizer.name, tree)
    into = adapter(xp)
    start = optimizer.init(params)
    slots: dict[str, Any] = {}
    for name, column in zip(start.slots._fields, start.slots, strict=True):
        given = values.get(name, {})
        if is_off(column):
            slots[name] = column
            continue
        zeros = tree.split(column)
        new = []
        for path, p, zero in zip(tree.paths, tree.leaves, zeros, strict=True):
            what = f"slot {name!r} of {path}"
            x = _fitting(what, given[path], p, zero, xp) if path in given else None
            new.append(zero if x is None else put(what, x, into, p))
        slots[name] = tree.join(new)
    state = State(first_step(xp) + step, start.shared, type(start.slots)(**slots))
    if shared is None or start.shared == ():
        return state
    scalars = Tree(start.shared)
    new = []
    for path, zero in zip(scalars.paths, scalars.leaves, strict=True):
        value: Any = shared
        for key in keys_of(path):
            value = value[key]
        new.append(put_scalar(number(value), zero))
    return state._replace(shared=scalars.join(new))


def _fitting(what: str, value: Any, param: Any, zero: Any, xp: Any) -> np.ndarray:
    """A slot's value in the compute dtype of its parameter, which must hold it exactly."""
    if not is_array(value):
        raise CheckpointError(f"{what} must be an array, got {type(value).__name__}")
    x = to_numpy(value)
    if x.shape != tuple(zero.shape):
        raise CheckpointError(f"{what} must have shape {tuple(zero.shape)}, got {x.shape}")
    dtype = np.dtype(dtype_name(compute_dtype(param.dtype, xp)))
    if dtype_name(x.dtype) not in ("float16", "bfloat16", "float32", dtype.name):
        raise CheckpointError(
            f"{what} is {x.dtype}, but the parameter, {dtype_name(param.dtype)}, has {dtype} state"
        )
    return x.astype(dtype)
