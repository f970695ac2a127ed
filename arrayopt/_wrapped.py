"""A rule with something around it, which is a rule again: ``adam+clip_by_global_norm+ema``."""

import collections
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import optree

from . import rules, wrappers
from ._schema import FUNCTIONS, functions_of, hyperparameters, keywords, name_of, rounds, title_of
from ._signed import bound, defaults, signed
from ._step import is_elementwise, is_off
from ._types import Array, Namespace, Scalar

BOUNDS = ("PARITY_EPS", "CONTRACTED_EPS")  # what a rule or a wrapper promises of itself
HOOKS = ("source", "gradient", "turn")  # what a wrapper changes before the rule's own step
CALLS = {  # which functions of a wrapper each function of the rule around it calls
    "init": ("init",),
    "share": ("share",),
    "adapt": ("adapt", "turn"),
    "update": ("update", *HOOKS),
    "evaluate": ("evaluate",),
    "validate": ("validate",),
}


class Shared(NamedTuple):
    """Shared state where both have some."""

    rule: Any
    wrapper: Any


class Seen(NamedTuple):
    """What the rule inside is given, and whether this is a step of it."""

    param: Array
    grad: Array
    t: Scalar
    when: Any  # True, False, or a 0-d array of a truth value


class Wrapped:
    """A rule inside a wrapper; see :mod:`arrayopt.wrappers` for what a wrapper is.

    It has the functions, the hyperparameters and the slots of both, so whatever takes a rule takes
    it too. The weight decay belongs to the innermost rule.

    Raises:
        TypeError: two parts have a hyperparameter or a slot of one name.
    """

    def __init__(self, rule: Any, wrapper: Any) -> None:
        self.rule, self.wrapper = rule, wrapper
        self.__name__ = f"{name_of(rule)}+{name_of(wrapper)}"
        about, how = inspect.getdoc(rule) or "", inspect.getdoc(wrapper) or ""
        title, around = title_of(rule), title_of(wrapper).partition(":")[0]
        head = f"{title.partition(':')[0]} + {around}:{title.partition(':')[2]}"
        self.__doc__ = f"{head}.\n\n{about}\n\n{how}"
        for name in BOUNDS:
            if found := [getattr(x, name) for x in (rule, wrapper) if hasattr(x, name)]:
                setattr(self, name, max(found))
        self.DECAY = getattr(rule, "DECAY", "decoupled")
        self.ELEMENTWISE = is_elementwise(rule) and is_elementwise(wrapper)
        self._own = tuple(getattr(getattr(wrapper, "State", None), "_fields", ()))
        self._reads = {f: {*keywords(wrapper, getattr(wrapper, f))} for f in _there(wrapper)}
        inside = [f for f in (*functions_of(rule), "validate") if hasattr(rule, f)]
        self._takes = {f: {*keywords(rule, getattr(rule, f))} for f in inside}
        self._check()
        self.State = _state(self, (*rule.State._fields, *self._own))
        for name, calls in CALLS.items():
            if hasattr(rule, name) or hasattr(wrapper, name) or name in ("init", "update"):
                parts = [(rule, name), *((wrapper, f) for f in calls)]
                setattr(self, name, signed(getattr(self, f"_{name}"), name, parts))
        self._plan_rounds()

    def __repr__(self) -> str:
        return f"<rule {self.__name__!r}>"

    def __reduce__(self) -> Any:
        if rules.known(self.__name__) is self:
            return rules.find, (self.__name__,)
        return wrapped, (self.rule, name_of(self.wrapper))

    def _check(self) -> None:
        who, inner = self.__name__, hyperparameters(self.rule)
        mine = {k for f in _there(self.wrapper) for k in defaults(getattr(self.wrapper, f))}
        for what, both in (
            ("hyperparameters", mine & inner.keys()),
            ("slots", {*self._own} & {*self.rule.State._fields}),
        ):
            if both:
                raise TypeError(f"{who}: two parts of it have {what} {', '.join(sorted(both))}")

    def _plan_rounds(self) -> None:
        """Who measures when: the wrapper first if the rule sees what comes of its sums, and last if
        it measures what the rule gives; else both at once.
        """
        inner = rounds(self.rule)
        alone: list[tuple[str | None, bool]] = [(name, False) for name in inner]
        hooks = [self._reads.get(f, set()) for f in ("gradient", "source")]
        last = "new" in self._reads.get("measure", ())
        if not hasattr(self.wrapper, "measure"):
            turns = alone
        elif any({"shared", "sums"} & reads for reads in hooks):
            turns = [(None, True), *alone]
        elif last:
            turns = [*alone, (None, True)]
        else:
            turns = [(inner[0] if inner else None, True), *alone[1:]]
        names = []
        for i, (theirs, ours) in enumerate(turns):
            names.append(f"measure_{i + 1}" if i else "measure")
            parts = [(self.wrapper, "measure")] * ours
            parts += [(self.wrapper, f) for f in HOOKS] if theirs or last else []
            parts += [(self.rule, theirs)] if theirs else []
            parts += [(self.rule, "update")] if ours and last else []
            body = functools.partial(self._measure, theirs, ours)
            setattr(self, names[-1], signed(body, names[-1], parts))
        self.ROUNDS = tuple(names)

    def _init(self, param: Array, *, xp: Namespace, **values: Any) -> Any:
        inner = self._rule("init", values)(param, xp=xp)
        own = self._wrapper("init", values)(param, xp=xp) if self._own else ()
        return self.State(*inner, *own)

    def _share(self, **values: Any) -> Any:
        found = [
            f("share", values)()
            for f, part in ((self._rule, self.rule), (self._wrapper, self.wrapper))
            if hasattr(part, "share")
        ]
        return found[0] if len(found) == 1 else Shared(*found)

    def _measure(
        self,
        theirs: str | None,
        ours: bool,
        param: Array,
        grad: Array,
        state: Any,
        t: Scalar,
        *,
        xp: Namespace,
        **values: Any,
    ) -> dict[str, Array]:
        """What the rule's function of that name, and if so the wrapper, give to be summed."""
        found: dict[str, Array] = {}
        if theirs:
            seen = self._seen(param, grad, state, t, values, xp)
            found = self._inside(theirs, seen, state, values, xp)
        if ours:
            given = dict(values)
            if "new" in self._reads["measure"]:
                seen = self._seen(param, grad, state, t, values, xp)
                given["new"], _ = self._inside("update", seen, state, values, xp)
            terms = self._wrapper("measure", given)(param, grad, self._mine(state), t, xp=xp)
            found |= {self._prefix + name: x for name, x in terms.items()}
        return found

    def _adapt(
        self, shared: Any, sums: dict[str, Array], t: Scalar, *, xp: Namespace, **values: Any
    ) -> Any:
        inner, own = self._halves(shared)
        ours, theirs = self._sorted(sums)
        if ours and hasattr(self.wrapper, "adapt"):
            own = self._wrapper("adapt", values)(own, ours, t, xp=xp)
        if theirs and hasattr(self.rule, "adapt"):
            count, when = self._turn(t, values | {"shared": _join(inner, own)}, xp)
            new = self._rule("adapt", values)(inner, theirs, count, xp=xp)
            inner = _chosen(when, new, inner, xp)
        return _join(inner, own)

    def _update(
        self, param: Array, grad: Array, state: Any, t: Scalar, *, xp: Namespace, **values: Any
    ) -> tuple[Array, Any]:
        seen = self._seen(param, grad, state, t, values, xp)
        new, inner = seen.param, self._theirs(state)
        if seen.when is not False:
            made = self._inside("update", seen, state, values, xp)
            new, inner = _chosen(seen.when, made, (new, inner), xp)
        own = self._mine(state)
        if hasattr(self.wrapper, "update"):
            given = values | {"new": new, "when": seen.when}
            new, own = self._wrapper("update", given)(param, grad, own, t, xp=xp)
        return new, self.State(*inner, *own)

    def _evaluate(
        self, param: Array, state: Any, t: Scalar, *, xp: Namespace, **values: Any
    ) -> Array:
        if hasattr(self.wrapper, "evaluate"):
            return self._wrapper("evaluate", values)(param, self._mine(state), t, xp=xp)
        return self._rule("evaluate", values)(param, self._theirs(state), t, xp=xp)

    def _validate(self, **values: Any) -> None:
        for f, part in ((self._rule, self.rule), (self._wrapper, self.wrapper)):
            if hasattr(part, "validate"):
                f("validate", values)()

    def _seen(
        self, param: Array, grad: Array, state: Any, t: Scalar, values: Any, xp: Namespace
    ) -> Seen:
        """What the rule inside is given."""
        own, w = self._mine(state), self.wrapper
        if hasattr(w, "gradient"):
            grad = self._wrapper("gradient", values)(param, grad, own, t, xp=xp)
        if hasattr(w, "source"):
            param = self._wrapper("source", values)(param, own, t, xp=xp)
        return Seen(param, grad, *self._turn(t, values, xp))

    def _turn(self, t: Scalar, values: Any, xp: Namespace) -> tuple[Scalar, Any]:
        if not hasattr(self.wrapper, "turn"):
            return t, True
        count, when = self._wrapper("turn", values)(t, xp=xp)
        return count, when

    def _inside(self, function: str, seen: Seen, state: Any, values: Any, xp: Namespace) -> Any:
        """``update``, or one that measures, of the rule inside."""
        param, grad, decay = seen.param, seen.grad, values["decay"]
        if not isinstance(self.rule, Wrapped):
            grad = decay.gradient(param, grad)
            param = decay.param(param, xp=xp) if function == "update" else param
        return self._rule(function, values)(param, grad, self._theirs(state), seen.t, xp=xp)

    def _rule(self, function: str, values: Any) -> Callable[..., Any]:
        """A function of the rule inside, with the keywords that it takes."""
        call = getattr(self.rule, function)
        return bound(call, self._takes[function], self._given(values, 0))

    def _wrapper(self, function: str, values: Any) -> Callable[..., Any]:
        return bound(getattr(self.wrapper, function), self._reads[function], self._given(values, 1))

    def _given(self, values: Any, which: int) -> dict[str, Any]:
        """The keywords for the rule inside (0) or the wrapper (1)."""
        found = dict(values)
        if "shared" in found:
            found["shared"] = self._halves(found["shared"])[which]
        if "sums" in found:
            found["sums"] = self._sorted(found["sums"])[1 - which]
        return found

    def _halves(self, shared: Any) -> tuple[Any, Any]:
        """The shared state of the rule inside, and of the wrapper."""
        if isinstance(shared, Shared) and hasattr(self.wrapper, "share"):
            return shared.rule, shared.wrapper
        return ((), shared) if hasattr(self.wrapper, "share") else (shared, ())

    def _sorted(self, sums: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        """The wrapper's sums, and those of the rule inside."""
        start = self._prefix
        ours = {k.removeprefix(start): x for k, x in sums.items() if k.startswith(start)}
        return ours, {k: x for k, x in sums.items() if not k.startswith(start)}

    @property
    def _prefix(self) -> str:
        return f"{name_of(self.wrapper)}_"

    def _theirs(self, state: Any) -> Any:
        return self.rule.State(*tuple(state)[: len(self.rule.State._fields)])

    def _mine(self, state: Any) -> Any:
        own = tuple(state)[len(self.rule.State._fields) :]
        return self.wrapper.State(*own) if self._own else ()


@functools.cache
def wrapped(rule: Any, wrapper: str) -> Wrapped:
    """A rule, a module or what this gave before, inside the wrapper of that name."""
    return Wrapped(rule, wrappers.find(wrapper))


def _there(wrapper: Any) -> list[str]:
    """Those of a wrapper's functions that there are."""
    return [f for f in (*FUNCTIONS, *HOOKS, "validate") if hasattr(wrapper, f)]


def _chosen(when: Any, new: Any, old: Any, xp: Namespace) -> Any:
    """``new`` where it is a step of the rule inside, else ``old``."""
    if isinstance(when, bool):
        return new if when else old
    return optree.tree_map(lambda a, b: a if is_off(a) else xp.where(when, a, b), new, old)


def _join(inner: Any, own: Any) -> Any:
    return Shared(inner, own) if inner != () and own != () else inner if inner != () else own


def _state(rule: Wrapped, fields: tuple[str, ...]) -> Any:
    """A NamedTuple of these slots, which can be pickled."""
    make: Any = collections.namedtuple
    made = make("State", fields)
    made.__doc__ = f"Slots of {name_of(rule)}."
    made.__reduce__ = lambda self: (_restored, (rule, tuple(self)))
    return made


def _restored(rule: Wrapped, slots: tuple[Any, ...]) -> Any:
    return rule.State(*slots)
