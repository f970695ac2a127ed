"""Whether what a file holds fits the rule, and the tree it is for."""

from typing import Any

import numpy as np

from ._blocks8 import NAME, length
from ._namespace import WIDTH, dtype_name
from ._step import is_elementwise, is_off, keep
from ._transfer import CheckpointError
from ._tree import Tree
from .optimizer import Optimizer


def expected(optimizer: Optimizer, held: Any, on: Any) -> tuple[Tree, dict[str, Any]]:
    """The rule's shared state at its start; name, shape and dtype of each tensor of its state."""
    around, rule = optimizer.around, optimizer.rule
    start = rule.share(**keep(around, "share", optimizer.hyper)) if hasattr(rule, "share") else ()
    found: dict[str, Any] = {f"shared/{p}": ((), None) for p in Tree(start).paths}
    for path, (_, shape) in held.items():
        # the rule says which slots are 0-d, off, or, where it takes whole arrays, of which shape
        small = tuple(min(n, 2) for n in shape) if is_elementwise(rule) else tuple(shape)
        slots = optimizer.blank(small, optimizer.hyper)
        for name, slot in zip(slots._fields, slots, strict=True):
            if is_off(slot) is on[name]:
                raise CheckpointError(
                    f"its slot {name!r} is {'there' if on[name] else 'not there'}, "
                    f"otherwise than the options of {optimizer.name} ask for"
                )
            if on[name]:
                full = tuple(shape) if slot.shape == small else slot.shape
                blocks = optimizer.slot_dtypes.get(name) == NAME
                found[f"slot/{name}/{path}"] = ((length(full),), "int8") if blocks else (full, None)
    return Tree(start), found


def check_tensors(who: str, expected: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    """Raise unless a file has the tensors that the rule needs, and no others."""
    for name in sorted(expected.keys() - tensors):
        raise CheckpointError(f"it lacks {name}, which {who} needs")
    for name, x in tensors.items():
        if name.startswith("hyper/"):
            continue
        if name not in expected:
            raise CheckpointError(f"it has {name}, which {who} does not know")
        shape, dtype = expected[name]
        if x.shape != shape:
            raise CheckpointError(f"{name} has shape {x.shape}, but should have {shape}")
        got = dtype_name(x.dtype)
        if got != dtype and (dtype or got not in WIDTH):
            raise CheckpointError(
                f"{name} has dtype {x.dtype}, but should have {dtype or 'real numbers'}"
            )


def check_like(held: Any, like: dict[str, Any]) -> None:
    """Raise unless the tree has the paths, shapes and dtypes of the file."""
    missing, extra = sorted(held.keys() - like), sorted(like.keys() - held)
    if missing or extra:
        raise CheckpointError(
            "like is another tree: "
            + " and ".join(
                [f"it lacks {x} of the file" for x in missing[:1]]
                + [f"the file lacks its {x}" for x in extra[:1]]
            )
            + f" ({len(missing)} and {len(extra)} in all)"
        )
    for path, (dtype, shape) in held.items():
        x = like[path]
        if tuple(x.shape) != tuple(shape):
            raise CheckpointError(
                f"{path} has shape {tuple(shape)}, but like has {tuple(x.shape)} there"
            )
        if dtype_name(x.dtype) != dtype:
            raise CheckpointError(
                f"{path} has dtype {dtype}, but like has {dtype_name(x.dtype)} there"
            )
