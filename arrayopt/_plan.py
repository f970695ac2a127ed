"""One step, checked before anything of it is computed."""

import functools
import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ._blocks8 import are_blocks
from ._namespace import (
    WIDTH,
    cast,
    compiling,
    compute_dtype,
    device,
    dtype_name,
    is_array,
    is_traced,
    known,
    library,
    namespace,
)
from ._schema import check, check_together, each_step, name_of
from ._step import Part, arriving, is_off, raise_nonfinite
from ._tree import Tree
from ._types import Array, Namespace


class Plan(NamedTuple):
    """A step that may run."""

    xp: Namespace
    tree: Tree
    parts: list[Part]  # the parameters that have a gradient
    places: list[int]  # where in the tree's leaves each part is
    slots: list[Any]  # the rule's State of every parameter


def one_namespace(who: str, tree: Tree) -> Namespace:
    """The namespace of all leaves, which must be real floating arrays."""
    if not tree.leaves:
        raise ValueError(f"{who}: the tree of parameters holds no array")
    found: dict[Any, str] = {}
    for path, x in zip(tree.paths, tree.leaves, strict=True):
        check_array(who, path, "an array", x)
        found.setdefault(namespace(x), path)
    if len(found) > 1:
        (xp, here), (other, there), *_ = found.items()
        raise TypeError(
            f"{who}: {there} is an array of {library(other)}, but {here} is one of {library(xp)}"
        )
    return next(iter(found))


def check_array(who: str, path: str, wanted: str, x: Any) -> None:
    """Raise unless ``x`` is a real floating array."""
    if not is_array(x):
        raise TypeError(f"{who}: {path} must be {wanted}, got {type(x).__name__}")
    if dtype_name(x.dtype) not in WIDTH:
        options = "complex='two_reals' or 'modulus' of arrayopt.Optimizer"
        hint = f"; view it as two reals, or see {options}" if "complex" in str(x.dtype) else ""
        kinds = ", ".join(WIDTH)
        raise TypeError(f"{who}: {path} must be real floating ({kinds}), got dtype {x.dtype}{hint}")


def check_state(who: str, state: Any) -> None:
    """Raise unless it is an optimizer's state."""
    if getattr(state, "_fields", None) != ("step", "shared", "slots"):
        raise TypeError(f"{who}: state must be what init or step gave, got {type(state).__name__}")


def check_alike(
    who: str,
    path: str,
    what: str,
    x: Any,
    param: Array,
    xp: Namespace,
    shape: tuple[int, ...] | None = None,
) -> None:
    """Raise unless ``x`` is an array beside ``param``: of its namespace, shape and device.

    ``shape`` is given for what has another one than the parameter.
    """
    if not (is_array(x) and what.startswith("slot") and are_blocks(x)):  # their length tells
        check_array(who, f"{what} of {path}", "an array or None", x)
    if namespace(x) is not xp:
        raise TypeError(
            f"{who}: {what} of {path} is an array of {library(namespace(x))}, "
            f"but the parameter is one of {library(xp)}"
        )
    shape = tuple(param.shape) if shape is None else shape
    if tuple(x.shape) != shape and not (what.startswith("slot") and x.shape == ()):
        raise ValueError(f"{who}: {what} of {path} must have shape {shape}, got {tuple(x.shape)}")
    there, here = device(x, xp), device(param, xp)
    scalar = x.shape == ()
    if there != here and not scalar:
        raise ValueError(f"{who}: {what} of {path} is on {there}, but the parameter on {here}")


def split(who: str, what: str, tree: Tree, other: Any) -> list[Any]:
    """The parts of ``other`` in the places of ``tree``."""
    try:
        return tree.split(other)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{who}: the {what} must have the structure of the parameters: {error}"
        ) from None


def slots_of(who: str, rule: Any, tree: Tree, slots: Any) -> list[Any]:
    """Trees of slots, one for each field, as one rule's State for each parameter."""
    if getattr(slots, "_fields", None) != rule.State._fields:
        got = getattr(slots, "_fields", type(slots).__name__)
        raise ValueError(f"{who}: its slots are {rule.State._fields}, got a state with {got}")
    columns = [
        [()] * len(tree.leaves) if is_off(s) else split(who, f"slot {name!r}", tree, s)
        for name, s in zip(slots._fields, slots, strict=True)
    ]
    return (
        [rule.State(*row) for row in zip(*columns, strict=True)]
        if columns
        else [rule.State() for _ in tree.leaves]
    )


def resolve(
    rule: Any, hyper: dict[str, Any], override: dict[str, Any], count: Any, *, each: bool = True
) -> dict[str, Any]:
    """The hyperparameters of the step after ``count`` steps; numbers as Python floats.

    ``each``: whether what every step must be given has to be there.
    """
    checked = not compiling()  # which cannot follow the look into signatures
    if checked and override:
        check(rule, override, step=True)
    given = {**hyper, **override}
    for name in each_step(rule) if checked and each else ():
        if given[name] is None:
            raise TypeError(
                f"{name_of(rule)}: step needs {name}=, which it must be given each time"
            )
    schedules = [k for k, v in given.items() if callable(v)]
    if not override and not schedules:
        return given
    values = {k: plain(v(count) if k in schedules else v) for k, v in given.items()}
    if checked and schedules:
        check(rule, {k: values[k] for k in schedules})
    if checked and (schedules or override):
        check_together(rule, values)
    return values


def plain(value: Any) -> Any:
    """A number, or NumPy's 0-d array, as a float; anything else as it is."""
    if type(value) is float or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Real) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return float(value)
    return value


def local(value: Any, who: str, path: str, param: Array, xp: Namespace) -> Any:
    """A hyperparameter that is an array, in the parameter's namespace and compute dtype."""
    if not hasattr(value, "shape"):
        return value
    dtype = compute_dtype(param.dtype, xp)
    there, here = device(value, namespace(value)), device(param, xp)
    own = namespace(value) in (xp, getattr(xp, "over", xp))  # where xp stands in for another one
    if own and there != here and not (value.shape == () and "cpu" in str(there)):
        raise ValueError(f"{who}: a hyperparameter is on {there}, but {path} on {here}")
    if not own:
        if value.shape == ():
            return float(value)
        value = xp.asarray(np.asarray(value), dtype=dtype)
    try:
        fits = np.broadcast_shapes(tuple(value.shape), tuple(param.shape)) == tuple(param.shape)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"{who}: a hyperparameter of shape {tuple(value.shape)} does not broadcast "
            f"against {path} of shape {tuple(param.shape)}"
        )
    return cast(value, dtype, xp)


def masked(who: str, mask: Any, params: Any, tree: Tree) -> list[bool]:
    """Which parameters decay."""
    if mask is None:
        return [True] * len(tree.leaves)
    found = split(who, "decay_mask", tree, mask(params) if callable(mask) else mask)
    for path, x in zip(tree.paths, found, strict=True):
        if not isinstance(x, bool | np.bool_):
            raise TypeError(f"{who}: decay_mask of {path} must be a bool, got {x!r}")
    return [bool(x) for x in found]


def plan(
    who: str,
    rule: Any,
    hyper: dict[str, Any],
    override: dict[str, Any],
    decay_mask: Any,
    params: Any,
    grads: Any,
    state: Any,
    *,
    off: tuple[bool, ...],
    together: bool,
    shapes: Callable[[tuple[int, ...]], Sequence[tuple[int, ...] | None]],
) -> Plan:
    """Everything that a step needs, or the error that says why it cannot run.

    ``off``: which slots are off; ``together``: whether parameters have a part in one another's
    steps, and must be on one device; ``shapes``: of the slots of a parameter of some shape, None
    for those of its own.
    """
    tree = Tree(params)
    xp = one_namespace(who, tree)
    devices = {str(device(x, xp)) for x in tree.leaves} if together else set()
    if len(devices) > 1:
        raise ValueError(f"{who}: all parameters must be on one device, got {sorted(devices)}")
    check_state(who, state)
    gs = split(who, "gradients", tree, grads)
    slots = slots_of(who, rule, tree, state.slots)
    if (state.shared != ()) != hasattr(rule, "share"):
        raise ValueError(f"{who}: the state's shared part is that of another rule")
    for name, slot, is_to_be in zip(rule.State._fields, state.slots, off, strict=True):
        if is_off(slot) != is_to_be:
            raise ValueError(
                f"{who}: the state has {'no' if is_to_be is False else 'a'} slot {name!r}, "
                "so it was made with other options than this step's"
            )
    mask = masked(who, decay_mask, params, tree)
    count = known(state.step, xp)
    values = resolve(rule, hyper, override, count)
    paths = tree.paths
    parts, places = [], []
    for i, (path, p, g, s) in enumerate(zip(paths, tree.leaves, gs, slots, strict=True)):
        for name, slot, shape in zip(s._fields, s, shapes(tuple(p.shape)), strict=True):
            if not is_off(slot):
                check_alike(who, path, f"slot {name!r}", slot, p, xp, shape)
        if g is None:
            continue
        g = np.asarray(g) if isinstance(g, np.generic) else g  # engines ask for its memory
        check_alike(who, path, "gradient", g, p, xp)
        mine = {k: local(v, who, path, p, xp) for k, v in values.items()}
        t = count + 1
        t = t if isinstance(t, int) else xp.astype(t, compute_dtype(p.dtype, xp))
        parts.append(Part(path, p, g, s, mine, t, mask[i], i))
        places.append(i)
    return Plan(xp, tree, parts, places, slots)


def finite(todo: Plan, who: str, how: str) -> Any:
    """Whether every gradient is finite: a bool, or a 0-d array where a trace holds it; ``how`` is
    the optimizer's ``nonfinite``.
    """
    if how == "propagate" or not todo.parts:
        return True
    xp = todo.xp
    flags = [xp.all(xp.isfinite(arriving(part, xp))) for part in todo.parts]
    if how == "raise":
        raise_nonfinite(who, todo.parts, flags, xp)
    every = functools.reduce(xp.logical_and, flags)
    return every if is_traced(every, xp) else bool(every)
