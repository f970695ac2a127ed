r"""A run in one file, whatever library its arrays belong to: :func:`save` and :func:`load`.

The file is in the safetensors format: 8 bytes that give the length of the header, the header in
JSON, the bytes of the tensors. Every tensor is F64, F32, F16 or BF16, and its name is one of

    param/PATH        the parameter; left out of all with ``include_params=False``
    slot/NAME/PATH    the slot NAME of that parameter: of the parameter's shape, or 0-d
    shared/PATH       one scalar of the state of the whole optimizer, by its path in ``Shared``
    hyper/NAME        a hyperparameter that is an array

PATH is the parameter's place in the tree, written as in Python: ``['layer'][0].w`` is the field
``w`` of the first item of the entry ``layer``; a tree that is one bare array has the path
``params``. The header's ``__metadata__`` comes first in it and has one entry, ``arrayopt``: a
JSON object with the members, in this order,

    checksum     SHA-256, in hexadecimal, of the file from its first byte to the end of the
                 header, with 64 zeros in the place of this checksum
    format       1; a reader refuses a higher number
    arrayopt     the version of the library that wrote the file
    rule         the rule's name
    custom       whether the rule is one that the library does not have
    step         the number of steps taken
    options      the keywords of the optimizer by name: numbers, strings, booleans, null;
                 an infinite number is the string "inf"; state_dtype may be an object,
                 dtypes' names by NAME of the slot
    schedules    names of the hyperparameters that were functions, which a file cannot hold
    decay_mask   null, or by PATH whether the parameter decays
    parameters   by PATH the dtype's name and the shape
    slots        by NAME whether the slot is there; it is not where the options do without it
    tensors      by the tensor's name the SHA-256, in hexadecimal, of its bytes

A :class:`arrayopt.partition` is the rule ``partition``, not custom; its step is the largest of its
parts'. In the place of options it has by pattern, in their order, null for frozen parameters or a
string: the JSON object that a file of this part without its parameters would have, whose PATH are
those of a dict by path. Each tensor of that file has the name ``part/INDEX/NAME`` here.

So no byte can change unnoticed. Loading executes nothing: a rule is looked up by its name among
those of the library, and nothing in the file is unpickled, imported or evaluated.
"""

import json
import math
import numbers
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import rules
from ._namespace import WIDTH, dtype_name, is_array
from ._needs import needed
from ._partition import own, partition
from ._plan import check_alike, masked, one_namespace, slots_of
from ._restore import restore
from ._step import is_off
from ._storage import FORMAT, read, sha256, write
from ._transfer import CheckpointError, adapter, to_numpy
from ._tree import Tree
from ._version import __version__
from .optimizer import Optimizer


class Checkpoint(NamedTuple):
    """What a file holds."""

    optimizer: Any  # an Optimizer or a partition
    params: Any  # a tree; None if the file holds no parameters
    state: Any  # that of the optimizer


def save(
    path: Any, optimizer: Any, params: Any, state: Any, *, include_params: bool = True
) -> None:
    """Write a run into one file; the module's docstring says how it is laid out.

    The file appears at once and whole: it is written in a temporary folder beside ``path``,
    forced to the disk, and renamed. A process killed meanwhile leaves the old file, if there was
    one, and perhaps that folder, named ``.NAME.*.tmp``, which may be deleted.

    Args:
        path: the file; one that is there is replaced.
        optimizer, params, state: the run, of an ``Optimizer`` or a ``partition``. Arrays are
            copied to the host's memory.
        include_params: whether the parameters are written too.

    A schedule cannot be stored: :func:`load` asks for it again. A ``decay_mask`` that is a
    function is stored as what it gives for ``params``.

    Raises:
        FileNotFoundError: the folder is not there.
    """
    needed("a checkpoint", "safetensors", "checkpoint")
    path = os.path.realpath(path)
    if not os.path.isdir(os.path.dirname(path)):
        raise FileNotFoundError(f"save: there is no folder {os.path.dirname(path)}")
    if not isinstance(optimizer, Optimizer | partition):
        kind = type(optimizer).__name__
        hint = "; save each of its runs, with its entries of the arrays" if kind == "Sweep" else ""
        raise TypeError(f"save takes an arrayopt.Optimizer or a partition, got a {kind}{hint}")
    args = params, state, include_params
    if isinstance(optimizer, partition):
        about, tensors = _parts(optimizer, *args)
    else:
        about, tensors = _one(optimizer, *args)
    write(path, tensors, json.dumps(about, separators=(",", ":")))


def _one(
    optimizer: Any, params: Any, state: Any, include_params: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The metadata and the tensors of one optimizer's run."""
    who, rule = optimizer.name, optimizer.rule
    tree = Tree(params)
    xp = one_namespace(who, tree)
    paths = tree.paths
    if len({*paths}) < len(paths):
        raise ValueError(f"{who}: two parameters have the same path, among {paths}")
    into = adapter(xp)
    leaves, state = into.settle((tree.leaves, state))  # lazy arrays in one computation
    rows = slots_of(who, rule, tree, state.slots)
    tensors: dict[str, np.ndarray] = {}
    for path_, p, slots in zip(paths, leaves, rows, strict=True):
        if include_params:
            tensors[f"param/{path_}"] = to_numpy(p)
        shapes = optimizer.shapes(tuple(p.shape))
        for name, slot, shape in zip(slots._fields, slots, shapes, strict=True):
            if not is_off(slot):
                check_alike(who, path_, f"slot {name!r}", slot, p, xp, shape)
                tensors[f"slot/{name}/{path_}"] = to_numpy(slot)
    shared = Tree(state.shared)
    for path_, x in zip(shared.paths, shared.leaves, strict=True):
        tensors[f"shared/{path_}"] = to_numpy(x)
    options, schedules = {}, []
    for name, value in optimizer.options().items():
        if name == "decay_mask":
            continue
        if callable(value):
            schedules.append(name)
        elif is_array(value) and not (
            isinstance(value, np.generic | np.ndarray) and not value.ndim
        ):
            x = to_numpy(value)
            tensors[f"hyper/{name}"] = x if dtype_name(x.dtype) in WIDTH else x.astype(np.float64)
        else:
            options[name] = _number(who, name, value)
    mask = optimizer.decay_mask
    about = _members(
        who,
        int(state.step),
        options,
        dict(zip(paths, leaves, strict=True)),
        tensors,
        custom=rule is not rules.known(who),
        schedules=schedules,
        decay_mask=None
        if mask is None
        else dict(zip(paths, masked(who, mask, params, tree), strict=True)),
        slots={k: not is_off(s) for k, s in zip(state.slots._fields, state.slots, strict=True)},
    )
    return about, tensors


def _parts(
    whole: partition, params: Any, state: Any, include_params: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The metadata and the tensors of a partition's run."""
    tree = Tree(params)
    into = adapter(one_namespace("partition", tree))
    whole.check(state)
    leaves, state = into.settle((tree.leaves, state))
    paths, places = tree.paths, whole.places(tree)
    named = dict(zip(paths, leaves, strict=True))
    tensors = {f"param/{k}": to_numpy(x) for k, x in named.items()} if include_params else {}
    options: dict[str, Any] = dict.fromkeys(whole.parts)
    for i, (pattern, optimizer) in enumerate(whole.parts.items()):
        if optimizer is not None:
            part = own(places[pattern], leaves)
            about, found = _one(optimizer, part, state[pattern], False)
            options[pattern] = json.dumps(about, separators=(",", ":"))
            tensors |= {f"part/{i}/{k}": x for k, x in found.items()}
    step = max((int(s.step) for s in state.values()), default=0)
    return _members("partition", step, options, named, tensors), tensors


def _members(
    rule: str,
    step: int,
    options: dict[str, Any],
    params: dict[str, Any],
    tensors: dict[str, np.ndarray],
    *,
    custom: bool = False,
    schedules: Sequence[str] = (),
    decay_mask: dict[str, bool] | None = None,
    slots: dict[str, bool] | None = None,
) -> dict[str, Any]:
    """The metadata, in the order of the module's docstring."""
    return {
        "checksum": "0" * 64,
        "format": FORMAT,
        "arrayopt": __version__,
        "rule": rule,
        "custom": custom,
        "step": step,
        "options": options,
        "schedules": schedules,
        "decay_mask": decay_mask,
        "parameters": {k: [dtype_name(p.dtype), list(p.shape)] for k, p in params.items()},
        "slots": slots or {},
        "tensors": {k: sha256(x) for k, x in sorted(tensors.items())},
    }


def load(
    path: Any,
    *,
    like: Any = None,
    namespace: Any = None,
    device: Any = None,
    rule: Any = None,
    **override: Any,
) -> Checkpoint:
    """Read a run from a file, into any library's arrays.

    Args:
        path: a file that :func:`save` wrote.
        like: a tree with the parameters' paths, shapes and dtypes, such as a new model's
            parameters. What is loaded takes its containers, its library, and each array's device
            (JAX: sharding; Dask: chunks). Its values are not used.
        namespace: instead of ``like``, a library's name, such as ``"torch"``. The trees are then
            dicts and lists: numbers from 0 on make a list, everything else a dict by key or field.
        device: where to place all arrays, in place of the default or of ``like``'s.
        rule: the rule, if it is not one of the library's.
        override: keywords of the optimizer that replace those of the file; schedules must be
            given again so. For a partition they are dicts of such keywords by pattern, where
            ``rule`` is one too: ``**{"*.bias": {"lr": 0.1}}``.

    Returns:
        The optimizer, the parameters (None if the file has none), and the state.

    Raises:
        CheckpointError: the file is damaged, none of ours, of a newer format, or it does not fit
            ``like``, ``rule`` or the library. It says what is wrong, and where.
    """
    if (like is None) == (namespace is None):
        raise TypeError("load takes either like=, a tree of arrays, or namespace=, a name")
    needed("a checkpoint", "safetensors", "checkpoint")
    about, tensors = read(path)
    try:
        return Checkpoint(*restore(about, tensors, like, namespace, device, rule, override))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _number(who: str, name: str, value: Any) -> Any:
    """What stands for an option in JSON."""
    if value is None or isinstance(value, bool | str) or name == "state_dtype":
        return value
    if isinstance(value, np.generic | np.ndarray):
        value = value.item()
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return "inf" if math.isinf(value) else float(value)
    raise TypeError(f"{who}: {name} cannot be stored in a file: {value!r:.80}")
