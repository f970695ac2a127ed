"""What a file holds, as a run again: the reading half of ``arrayopt/checkpoint.py``."""

import functools
import json
import math
from typing import Any

import numpy as np

from . import rules
from ._fit import check_like, check_tensors, expected
from ._namespace import first_step, namespace
from ._partition import assigned, dotted, own, partition
from ._paths import nested
from ._plan import one_namespace
from ._schema import hyperparameters, name_of
from ._storage import _malformed
from ._transfer import CheckpointError, adapter, numpy_dtype, put, put_scalar
from ._tree import Tree
from ._types import Range
from .optimizer import Optimizer, State


def restore(
    about: Any, tensors: Any, like: Any, library: Any, where: Any, rule: Any, override: Any
) -> tuple[Any, Any, Any]:
    """The optimizer, its parameters or None, and its state; the arguments are those of ``load``."""
    if about["rule"] != "partition" or about["custom"]:
        return _one(about, tensors, like, library, where, rule, override)
    if rule is not None:
        raise CheckpointError(
            "it is a partition: give a rule for a pattern, as **{pattern: {'rule': rule}}"
        )
    return _parts(about, tensors, like, library, where, override)


def _one(
    about: Any, tensors: Any, like: Any, library: Any, where: Any, rule: Any, override: Any
) -> tuple[Optimizer, Any, State]:
    held = about["parameters"]
    into, paths, leaves, join = _onto(held, like, library)

    def column(prefix: str) -> Any:
        return join(
            [
                put(k, tensors[k], into, x, where)
                for k, x in zip([f"{prefix}/{p}" for p in paths], leaves, strict=True)
            ]
        )

    mask = about["decay_mask"]
    mask = None if mask is None else join([mask[p] for p in paths])
    optimizer = _optimizer(about, tensors, into, rule, {"decay_mask": mask} | override)
    start, needed = expected(optimizer, held, about["slots"])
    given = _given(held, tensors)
    check_tensors(optimizer.name, needed | given, tensors)
    beside = into.asarray(np.zeros((), np.float32)) if like is None else leaves[0]
    xp = namespace(beside)
    scalars = [
        put_scalar(tensors[f"shared/{path}"], x, where)
        for path, x in zip(start.paths, Tree(optimizer.share(beside, xp)).leaves, strict=True)
    ]
    state = State(
        first_step(xp) + about["step"],
        start.join(scalars),
        optimizer.rule.State(
            *(column(f"slot/{k}") if on else () for k, on in about["slots"].items())
        ),
    )
    return optimizer, column("param") if given else None, state


def _parts(
    about: Any, tensors: Any, like: Any, library: Any, where: Any, override: Any
) -> tuple[partition, Any, dict[str, State]]:
    held, texts, rest = about["parameters"], about["options"], dict(tensors)
    for pattern in override:
        if not isinstance(texts.get(pattern), str):
            raise CheckpointError(f"none of its optimizers has the pattern {pattern!r}")
    inner: dict[str, Any] = {}
    for i, (pattern, text) in enumerate(texts.items()):
        if text is not None:
            start = f"part/{i}/"
            its = {k.removeprefix(start): rest.pop(k) for k in tensors if k.startswith(start)}
            inner[pattern] = _described(pattern, text, its), its
    given = _given(held, tensors)
    check_tensors("partition", given, rest)
    into, paths, leaves, join = _onto(held, like, library)
    found = leaves
    if given or like is None:  # without parameters, arrays that only say where the others go
        blank = {f"param/{p}": np.zeros(s, numpy_dtype(d)) for p, (d, s) in held.items()}
        names = [f"param/{p}" for p in paths]
        found = [
            put(k, (rest if given else blank)[k], into, x, where)
            for k, x in zip(names, leaves, strict=True)
        ]
    try:
        places = assigned(list(texts), [dotted(p) for p in paths])
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    parts: dict[str, Any] = dict.fromkeys(texts)
    state = {}
    for pattern, (of, its) in inner.items():
        keywords = dict(override.get(pattern, {}))
        rule, beside = keywords.pop("rule", None), own(places[pattern], found)
        try:
            parts[pattern], _, state[pattern] = _one(of, its, beside, None, where, rule, keywords)
        except CheckpointError as error:
            raise CheckpointError(f"{pattern!r}: {error}") from None
    return partition(parts), join(found) if given else None, state


def _described(pattern: str, text: Any, tensors: Any) -> Any:
    """What the file says of a part."""
    try:
        about = json.loads(text)
        wrong = _malformed(about, tensors)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        wrong = repr(error)
    if wrong:
        raise CheckpointError(f"its part {pattern!r} is not as format 1 has it: {wrong}")
    return about


def _onto(held: Any, like: Any, library: Any) -> tuple[Any, list[str], list[Any], Any]:
    """The adapter; each parameter's path and array in ``like``, or None; what makes a tree."""
    if like is None:
        paths = list(held)
        return adapter(library), paths, [None] * len(paths), functools.partial(nested, paths)
    tree = Tree(like)
    into = adapter(one_namespace("like", tree))
    check_like(held, dict(zip(tree.paths, tree.leaves, strict=True)))
    return into, tree.paths, tree.leaves, tree.join


def _given(held: Any, tensors: Any) -> dict[str, Any]:
    """Name, shape and dtype of each parameter's tensor, if the file has parameters."""
    if not any(k.startswith("param/") for k in tensors):
        return {}
    return {f"param/{p}": (tuple(shape), dtype) for p, (dtype, shape) in held.items()}


def _optimizer(about: Any, tensors: Any, into: Any, rule: Any, keywords: Any) -> Optimizer:
    """The optimizer that was saved."""
    name = about["rule"]
    if rule is None:
        if about["custom"] or rules.known(name) is None:
            raise CheckpointError(f"its rule {name!r} is none of arrayopt's: give it as rule=")
        rule = name
    rule = rules.find(rule) if isinstance(rule, str) else rule
    if name_of(rule) != name:
        raise CheckpointError(f"its rule is {name!r}, not {name_of(rule)!r}")
    if rule.State._fields != (*about["slots"],):
        raise CheckpointError(
            f"its slots are {', '.join(about['slots'])}; "
            f"those of {name} are {', '.join(rule.State._fields)}"
        )
    again = [k for k in about["schedules"] if k not in keywords]
    if again:
        raise CheckpointError(
            f"{again[0]} was a schedule, which a file cannot hold: give it again, as {again[0]}="
        )
    legal = {k: h.legal for k, h in hyperparameters(rule).items()}
    ranged = {k for k, v in legal.items() if isinstance(v, Range)}
    options = {
        k: math.inf if v == "inf" and k in ranged else v for k, v in about["options"].items()
    }
    for k, x in tensors.items():
        if k.startswith("hyper/"):  # an array is brought to the parameters by each step
            options[k.removeprefix("hyper/")] = x if x.ndim else put(k, x, into)
    try:
        return Optimizer(rule, **(options | keywords))
    except (TypeError, ValueError) as error:
        raise CheckpointError(str(error)) from None
