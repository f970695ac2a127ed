"""A rule's step recorded once, with symbols in the place of arrays.

What involves numbers alone (``lr / (1 - b1**t)``) is computed on the host, in float64, before each
step; the rest is a :class:`Program`.
"""

import functools
import itertools
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import optree

from .._math import total
from .._namespace import dtype_name
from .._schema import rounds
from .._step import Around, Part, arriving, is_elementwise, is_off, is_zero, measure, move
from .namespace import XP
from .program import Program, Untraceable
from .symbols import Graph

T = TypeVar("T")


class Signature(NamedTuple):
    """All that shapes a parameter's program; parameters that share it share the program."""

    param: str  # dtypes
    grad: str
    slots: tuple[str | None, ...]  # None where a slot is off
    single: tuple[bool, ...]  # which slots hold one value
    alone: bool  # whether the parameter is 0-d itself: all of its slots are then as it is
    options: tuple[tuple[str, Any], ...]  # hyperparameters that choose: no numbers, but for 0 decay
    numbers: tuple[str, ...]
    decay: str
    maximize: bool
    decays: bool


def signature(around: Around, part: Part) -> Signature:
    """The signature of a parameter in a step."""
    slots = [None if is_off(s) else dtype_name(s.dtype) for s in part.slots]
    if "int8" in slots:
        raise Untraceable("a slot is held in 8 bits")
    single = [s is not None and x.shape == () for s, x in zip(slots, part.slots, strict=True)]
    alone = part.param.shape == ()
    single = [False] * len(slots) if alone else single
    options, numbers = divide(part.values)
    return Signature(
        dtype_name(part.param.dtype),
        dtype_name(part.grad.dtype),
        tuple(slots),
        tuple(single),
        alone,
        options,
        numbers,
        around.decay,
        around.maximize,
        part.decays,
    )


def divide(values: dict[str, Any]) -> tuple[tuple[tuple[str, Any], ...], tuple[str, ...]]:
    """Hyperparameters that choose between programs, and names of those that are numbers in one."""
    options, numbers = [], []
    for name, value in values.items():
        if type(value) is float and value != 0:
            numbers.append(name)
            continue
        if hasattr(value, "shape"):
            raise Untraceable(f"{name} is an array")
        choice = value is None or isinstance(value, bool | str)
        if choice or (name == "weight_decay" and is_zero(value)):
            options.append((name, value))
        else:
            numbers.append(name)
    return tuple(options), tuple(numbers)


def once(make: Callable[..., T]) -> Callable[..., T]:
    """What ``make(what, around, sig, shared)`` gives, made once for each rule and signature."""
    known: dict[Hashable, T | Untraceable] = {}

    @functools.wraps(make)
    def get(what: str, around: Around, sig: Signature, shared: Any = ()) -> T:
        key = what, around.rule, sig
        if key not in known:
            try:
                known[key] = make(what, around, sig, shared)
            except Untraceable as error:
                known[key] = error
        found = known[key]
        if isinstance(found, Untraceable):
            raise Untraceable(str(found))
        return found

    return get


def trace(
    what: str, around: Around, sig: Signature, shared: Any = (), inside: bool = False
) -> Program:
    """A program for parameters of a signature.

    ``"measure"`` and what else :func:`rounds` names give the sums that the rule asks for,
    ``"finite"`` counts the gradient's elements that are not finite. ``"move"`` writes the parameter
    and the slots of its shape, and gives the sums that the rule takes in its update; ``"settle"``,
    after it, writes the slots of one value: all that it reads and writes is one element, also of
    these sums.

    Args:
        shared: the rule's shared state, for its structure.
        inside: whether shared values are inputs; they are the host's numbers otherwise.

    Raises:
        Untraceable: the rule does what a loop over elements cannot.
    """
    if not is_elementwise(around.rule):
        raise Untraceable("the rule works on whole arrays")
    try:
        return _traced(what, around, sig, shared, inside)
    except Untraceable:
        raise
    except Exception as error:  # run as it is written, it may be right, or fail with its own words
        raise Untraceable(f"{type(error).__name__}: {error}") from error


def _traced(what: str, around: Around, sig: Signature, shared: Any, inside: bool) -> Program:
    graph = Graph()
    around = around._replace(decay=sig.decay, maximize=sig.maximize)
    param, grad = graph.input("param", sig.param), graph.input("grad", sig.grad)
    fields = around.rule.State._fields
    slots = [
        () if dtype is None else graph.input(f, dtype, single)
        for f, dtype, single in zip(fields, sig.slots, sig.single, strict=True)
    ]
    values = dict(sig.options) | {k: graph.number(k) for k in sig.numbers}
    part = Part("", param, grad, around.rule.State(*slots), values, graph.number("t"), sig.decays)
    xp = XP(graph, alone=sig.alone and what in ("move", "settle"))
    if what == "finite":
        came = arriving(part, xp)
        bad = xp.where(xp.isfinite(came), xp.zeros_like(came), 1.0)
        return graph.program({}, {"bad": total(bad, xp=xp)})
    names = shared_names(shared)
    like = [graph.input(n, "float64", True) if inside else graph.number(n) for n in names]
    known = optree.tree_unflatten(optree.tree_structure(shared), like)
    asked = sums_of(around, sig, shared, what)
    sums = {name: graph.input(f"sums.{name}", "float64", True) for name in asked}
    if what in rounds(around.rule):
        return graph.program({}, measure(what, around, part, known, sums, xp=xp))
    new, after = move(around, part, known, sums, xp=xp)
    stores = {"param": new} | {f: x for f, x in zip(fields, after, strict=True) if not is_off(x)}
    return graph.settling(stores) if what == "settle" else graph.program(stores, {})


def sums_of(around: Around, sig: Signature, shared: Any, until: str = "move") -> list[str]:
    """The names of the sums over a parameter that what the rule does then may take."""
    before = [*itertools.takewhile(lambda what: what != until, rounds(around.rule))]
    if not any("sums" in around.reads[f] for f in ("update", *rounds(around.rule))):
        return []
    return [name for what in before for name, _ in trace(what, around, sig, shared).sums]


def untraceable(optimizer: Any) -> str | None:
    """Why the steps of an ``arrayopt.Optimizer`` cannot be traced; None if they can."""
    probe = np.ones(2, np.float32)
    around, state = optimizer.around, optimizer.init(probe)
    try:
        sig = signature(around, optimizer.probe(probe, state).parts[0])
        for what in ("move", "settle", *rounds(around.rule)):
            trace(what, around, sig, state.shared)
    except Untraceable as error:
        return str(error)
    return None


def shared_names(shared: Any) -> list[str]:
    """``shared.value.b1``, ...: a name for each leaf of the shared state."""
    return [a.codify("shared") for a in optree.tree_accessors(shared)]
