"""A rule's hyperparameters, read off its signatures, and the errors for those given wrongly."""

import difflib
import functools
import inspect
import numbers
import types
import typing
from typing import Any, Literal, NamedTuple

import numpy as np

from . import rules
from ._types import EACH_STEP, Range

FUNCTIONS = ("init", "share", "measure", "adapt", "update", "evaluate")
# keyword-only, but no hyperparameters: the optimizer passes them
GIVEN = {"xp", "shared", "sums", "decay", "dtype", "place"}
ELSEWHERE = {  # what hyperparameters are called in other libraries, and here
    "learning_rate": "lr",
    "step_size": "lr",
    "alpha": "lr or b2",
    "betas": "b1 and b2",
    **{f"beta{_}{i}": f"b{i}" for i in (1, 2, 3) for _ in ("", "_")},
    "momentum": "b1",
    "rho": "b2",
    "epsilon": "eps",
    "eps": "eps_root",
    "wd": "weight_decay",
}


class Hyper(NamedTuple):
    """One hyperparameter."""

    default: Any
    legal: Range | tuple[Any, ...]  # an interval, or the values to choose from
    optional: bool  # None is legal too
    start: bool  # read only before the first step
    each_step: bool  # every step must be given it

    def check(self, value: Any) -> str | None:
        """What it must be, where ``value`` is not. Only NumPy's arrays are looked at."""
        if value is None and self.optional:
            return None
        if isinstance(self.legal, tuple):
            return None if is_one_of(self.legal, value) else " or ".join(map(repr, self.legal))
        if value is None or isinstance(value, bool | str):
            return f"a number in {self.legal}"
        if isinstance(value, np.ndarray | np.generic):
            ok = value.dtype.kind in "fiu" and value in self.legal
        elif isinstance(value, numbers.Real):
            ok = value in self.legal
        else:
            ok = hasattr(value, "shape")  # another library's array: its values are not fetched
        return None if ok else f"in {self.legal}"


def is_one_of(choices: tuple[Any, ...], value: Any) -> bool:
    """Whether a value is one of the choices: 1 and 1.0 are not True."""
    return any(type(value) is type(v) and value == v for v in choices)


WEIGHT_DECAY = Hyper(0.0, Range("[0, inf)"), optional=False, start=False, each_step=False)


def name_of(rule: Any) -> str:
    """A rule's own name: ``adamax`` for the module ``arrayopt.rules.adamax``."""
    return str(getattr(rule, "__name__", type(rule).__name__)).rpartition(".")[2]


def title_of(rule: Any) -> str:
    """The first words of its docstring: its name in the literature."""
    return (inspect.getdoc(rule) or name_of(rule)).splitlines()[0].rstrip(".")


def rounds(rule: Any) -> tuple[str, ...]:
    """The rule's functions that measure, in turn: each may take what those before it gave."""
    return getattr(rule, "ROUNDS", ("measure",) * hasattr(rule, "measure"))


def functions_of(rule: Any) -> dict[str, Any]:
    """Those of the rule's functions that there are."""
    return {f: getattr(rule, f) for f in (*FUNCTIONS, *rounds(rule)) if hasattr(rule, f)}


@functools.cache
def hyperparameters(rule: Any) -> dict[str, Hyper]:
    """Name, default and legal range of each hyperparameter of a rule, ``update``'s first.

    ``rule`` is a module or a name; ``adam+ema`` has the rule's and then the wrapper's.

    Raises:
        ValueError: no rule has that name.
        TypeError: it is no rule.
    """
    if isinstance(rule, str):
        return hyperparameters(rules.find(rule))
    if not hasattr(rule, "update"):
        raise TypeError(f"{rule!r} is not a rule: it has no update")
    found: dict[str, Hyper] = {}
    readers: dict[str, set[str]] = {}
    for function, call in sorted(functions_of(rule).items(), key=lambda f: f[0] != "update"):
        hints = typing.get_type_hints(call, include_extras=True)
        for name, p in inspect.signature(call).parameters.items():
            if p.kind is not p.KEYWORD_ONLY or name in GIVEN:
                continue
            readers.setdefault(name, set()).add(function)
            if p.default is not p.empty:
                found[name] = _hyper(p.default, hints[name])
    missing = readers.keys() - found
    if missing:
        raise TypeError(f"{name_of(rule)}: no default for {', '.join(sorted(missing))}")
    inside = hyperparameters(rule.rule) if hasattr(rule, "rule") else ()
    order = dict.fromkeys((*inside, *found))
    return {k: found[k]._replace(start=readers[k] <= {"init", "share"}) for k in order}


def _hyper(default: Any, hint: Any) -> Hyper:
    """What a default and a type hint stand for."""
    args = typing.get_args(hint)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (inner,) = (a for a in args if a is not type(None))
        return _hyper(default, inner)._replace(optional=True)
    legal: Any = None
    if typing.get_origin(hint) is Literal:
        legal = args
    elif hint is bool:
        legal = (False, True)
    marks = getattr(hint, "__metadata__", ())
    legal = next((a for a in marks if isinstance(a, Range)), legal)
    if legal is None:
        raise TypeError(f"a hyperparameter's type must carry its range or its choices, got {hint}")
    return Hyper(default, legal, optional=False, start=False, each_step=EACH_STEP in marks)


@functools.cache
def each_step(rule: Any) -> tuple[str, ...]:
    """The names of what every step must be given: the loss, for the rules that read it."""
    return tuple(k for k, h in hyperparameters(rule).items() if h.each_step)


def reads(rule: Any) -> dict[str, frozenset[str]]:
    """The names of the keywords that each of the rule's functions takes, but for ``xp``."""
    return {f: frozenset(keywords(rule, call)) for f, call in functions_of(rule).items()}


def keywords(rule: Any, call: Any) -> tuple[str, ...]:
    """The names of the keywords that a function of the rule takes, in order, but for ``xp``."""
    parameters = inspect.signature(call).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return tuple(hyperparameters(rule))
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "xp")


def check(rule: Any, given: dict[str, Any], *, step: bool = False) -> None:
    """Raise for an unknown name or a value out of range; ``step`` for those given to a step."""
    known = hyperparameters(rule) | {"weight_decay": WEIGHT_DECAY}
    for name, value in given.items():
        if name not in known:
            raise TypeError(unknown(rule, name, list(known)))
        hyper = known[name]
        if step and hyper.start:
            raise TypeError(f"{name_of(rule)}: {name} is read before the first step only")
        if callable(value):
            if isinstance(hyper.legal, tuple) or hyper.start or hyper.each_step:
                raise TypeError(f"{name_of(rule)}: {name} cannot be a schedule")
            continue
        legal = hyper.check(value)
        if legal:
            raise ValueError(f"{name_of(rule)}: {name} must be {legal}, got {value!r}")


def check_together(rule: Any, values: dict[str, Any]) -> None:
    """Raise where numbers that are legal one by one are not so together."""
    if not hasattr(rule, "validate"):
        return
    taken = {k: values[k] for k in keywords(rule, rule.validate)}
    if all(v is None or isinstance(v, int | float | str) for v in taken.values()):
        try:
            rule.validate(**taken)
        except ValueError as error:
            raise ValueError(f"{name_of(rule)}: {error}") from None


def unknown(rule: Any, name: str, known: list[str]) -> str:
    message = f"{name_of(rule)} ({title_of(rule)}) has no hyperparameter {name!r}"
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if name in ELSEWHERE and {*ELSEWHERE[name].split()} <= {"and", "or", *known}:
        close = [ELSEWHERE[name]]
    if close:
        message += f" (did you mean {close[0]}?)"
    owners = [
        f"{other} ({title_of(rules.find(other))})"
        for other in rules.names()
        if name in hyperparameters(rules.find(other))
    ]
    if owners:
        message += f"; {', '.join(owners[:3])} {'have' if owners[1:] else 'has'} it"
    return f"{message}. It has {', '.join(known)}."
