"""What the imports from other libraries share."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from ._namespace import dtype_name, first_step, is_array
from ._paths import keys_of
from ._plan import one_namespace
from ._step import is_off
from ._transfer import CheckpointError, adapter, put, put_scalar, to_numpy
from ._tree import Tree
from .optimizer import Optimizer, State


class From(NamedTuple):
    """In a table, for a slot that is not kept there as it is here: what it is made of."""

    make: Callable[..., np.ndarray]  # of the optimizer's options, and what there is of the keys
    keys: tuple[str, ...]


Slots = Mapping[str, str | From]  # where another library keeps what our slots are


def keys_read(slots: Slots) -> set[str]:
    """All that is read there."""
    return {k for x in slots.values() for k in (x.keys if isinstance(x, From) else (x,))}


def slot_of(made: str | From, held: Mapping[str, Any], hyper: Mapping[str, Any]) -> Any:
    """A slot from what is held for its parameter; None if it is not there."""
    if isinstance(made, str):
        return held.get(made)
    parts = [to_numpy(held[k]) for k in made.keys if held.get(k) is not None]
    return made.make(hyper, *parts) if parts else None


def joined(_: Any, *parts: np.ndarray) -> np.ndarray:
    """The parts of one slot one after another, as ``_math.packed`` has them."""
    return parts[0] if len(parts) == 1 else np.concatenate([np.ravel(x) for x in parts])


def number(value: Any) -> Any:
    """A 0-d array as a Python number; anything else as it is."""
    return to_numpy(value).item() if is_array(value) and value.shape == () else value


def bound(rule: Any, options: dict[str, Any]) -> Optimizer:
    """The optimizer, for options that another library may have stored."""
    try:
        return Optimizer(rule, **options)
    except ValueError as error:
        raise CheckpointError(str(error)) from None


def state_beside(
    optimizer: Optimizer,
    params: Any,
    step: int,
    values: dict[str, Any],
    shared: Any,
    whole: Collection[str],
) -> State:
    """A state beside ``params``: as at the start, but for the slots' values by path.

    The parameters of the paths ``whole`` must have them all.
    """
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
        lacking = [path for path in whole if path not in given]
        if lacking:
            raise CheckpointError(
                f"the slot {name!r} of {lacking[0]}, which {optimizer.name} has with these "
                "options, is not in the state"
            )
        zeros = tree.split(column)
        new = []
        for path, p, zero in zip(tree.paths, tree.leaves, zeros, strict=True):
            what = f"slot {name!r} of {path}"
            x = _fitting(what, given[path], p, zero) if path in given else None
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


def _fitting(what: str, value: Any, param: Any, zero: Any) -> np.ndarray:
    """A slot's value in the compute dtype of its parameter, which must hold it exactly."""
    if not is_array(value):
        raise CheckpointError(f"{what} must be an array, got {type(value).__name__}")
    x = to_numpy(value)
    if x.shape != tuple(zero.shape):
        raise CheckpointError(f"{what} must have shape {tuple(zero.shape)}, got {x.shape}")
    dtype = np.dtype(dtype_name(zero.dtype))
    if dtype_name(x.dtype) not in ("float16", "bfloat16", "float32", dtype.name):
        raise CheckpointError(
            f"{what} is {x.dtype}, but the parameter, {dtype_name(param.dtype)}, has {dtype} state"
        )
    return x.astype(dtype)
