"""The optimizers of other frameworks, under their names and with their own options and defaults.

One file per framework holds a table of rows and nothing else; none imports its framework. What a
row says is compared with the framework's own optimizer in ``tests/test_like.py``.
"""

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..optimizer import Optimizer

FRAMEWORKS = ("torch", "optax", "keras", "mlx")


class Needed:
    """In the place of a default: the option must be given."""

    def __repr__(self) -> str:
        return "needed"


class Nothing:
    """In the place of a word: the option is accepted, and no number depends on it."""


class Instead(NamedTuple):
    """In the place of a word: only the default can be had; what to do for another value."""

    text: str


NEEDED, NOTHING = Needed(), Nothing()
# How an option is spelled here: a name, a name for each part of a pair, or a function from the
# value to options of ours, among which may be another "rule", or a wrapper "around" it.
Word = str | tuple[str, ...] | Callable[[Any], Mapping[str, Any]] | Nothing | Instead
Words = dict[str, Word]


class Row(NamedTuple):
    """One optimizer of a framework."""

    rule: str
    defaults: Mapping[str, Any]  # all options that it has there, and their defaults there
    words: Mapping[str, Word] = {}  # for this row alone; one in no table is spelled alike here
    fixed: Mapping[str, Any] = {}  # options of ours which always have this value there
    together: Callable[..., Mapping[str, Any]] | None = None  # of options that no word translates
    note: str = ""  # what remains different, or what to know


class Table(NamedTuple):
    """All of a framework's."""

    modules: Mapping[str, Mapping[str, Row]]  # by the module and then the name
    words: Mapping[str, Word]  # for every row
    absent: Mapping[str, str]  # names that are no row, and why
    exclusive: tuple[str, ...] = ()  # options of which one at most may be given

    @property
    def rows(self) -> dict[str, Row]:
        """Every row by its name."""
        return {name: row for rows in self.modules.values() for name, row in rows.items()}

    def word(self, row: Row, option: str) -> Word:
        """How the option is spelled here."""
        if option in row.words or option not in parameters(row.together):
            return row.words.get(option, self.words.get(option, option))
        return NOTHING


def like(framework: str, name: str, /, **options: Any) -> Optimizer:
    """The optimizer that computes what a framework's own does, from that one's options.

    Args:
        framework: ``"torch"``, ``"optax"``, ``"keras"`` or ``"mlx"``. It need not be installed.
        name: as the framework spells it: ``"RMSprop"`` of torch, ``"rmsprop"`` of optax, from
            ``optax.contrib`` also. ``arrayopt like torch`` lists them.
        options: the framework's own, with the framework's defaults. A schedule is a function of
            the number of steps taken, 0 at the first.

    Raises:
        ValueError: for a name that has no counterpart here, or a value that cannot be reproduced.
        TypeError: for an option that the framework's optimizer does not have.

    >>> like("torch", "RMSprop", alpha=0.9).hyper["b2"]
    0.9
    >>> opt = like("optax", "adamw", learning_rate=0.1)
    >>> opt.name, opt.hyper["weight_decay"], opt.around.decay
    ('adam', 0.0001, 'decoupled')
    """
    where, row = find(framework, name)
    table = load(framework)
    for option in options:
        if option not in row.defaults:
            raise TypeError(f"{where} has no option {option!r}{_hint(table, row, option)}")
    values = {**row.defaults, **options}
    missing = [k for k, v in values.items() if v is NEEDED]
    if missing:
        raise TypeError(f"{where} needs {', '.join(missing)}")
    try:
        ours = translate(table, row, values)
        return Optimizer(ours.pop("rule", row.rule), **ours)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from None


def find(framework: str, name: str) -> tuple[str, Row]:
    """The optimizer's full name, and its row."""
    table = load(framework)
    for module, rows in table.modules.items():
        if name in rows:
            return f"{module}.{name}", rows[name]
    if name in table.absent:
        raise ValueError(f"{framework}'s {name} has no counterpart here: {table.absent[name]}")
    raise ValueError(f"{framework} has no optimizer {name!r} known here{_near(name, table.rows)}")


def load(framework: str) -> Table:
    """The framework's table."""
    if framework not in FRAMEWORKS:
        raise ValueError(f"no framework is named {framework!r}; known are {', '.join(FRAMEWORKS)}")
    table: Table = importlib.import_module(f"{__name__}.{framework}").TABLE
    return table


def translate(table: Table, row: Row, values: Mapping[str, Any]) -> dict[str, Any]:
    """Options of ours, and perhaps a "rule", for values of all of theirs."""
    ours, around = dict(row.fixed), []
    given = [k for k in table.exclusive if values.get(k)]
    if len(given) > 1:
        raise ValueError(f"only one of {', '.join(given)} may be given")
    for option, value in values.items():
        word = table.word(row, option)
        if isinstance(word, Instead):
            if not same(value, row.defaults[option]):
                raise ValueError(f"{option}={value!r} cannot be had here: {word.text}")
        elif isinstance(word, str):
            ours[word] = value
        elif isinstance(word, tuple):
            ours |= pair(option, word, value, row.defaults[option])
        elif callable(word):
            found = dict(word(value))
            around += [found.pop("around")] if "around" in found else []
            ours |= found
    if row.together:
        ours |= row.together(**{k: values[k] for k in parameters(row.together)})
    if around:
        ours["rule"] = "+".join([ours.get("rule", row.rule), *around])
    return ours


def pair(option: str, word: tuple[str, ...], value: Any, default: Any) -> dict[str, Any]:
    """Options of ours for a value that has a part for each."""
    try:
        return dict(zip(word, value, strict=True))
    except (TypeError, ValueError):
        count = ("two", "three")[len(word) - 2]
        text = f"{option} must be {count} values, as in {default!r}, got {value!r}"
        raise ValueError(text) from None


def spelled(table: Table, row: Row, option: str) -> str:
    """What the option is here, in words."""
    word, default = table.word(row, option), row.defaults[option]
    if isinstance(word, Instead):
        return f"the default alone: {word.text}"
    if option in parameters(row.together) and word is NOTHING:
        rate = {"learning_rate": 1.0} if "learning_rate" in parameters(row.together) else {}
        taken = {k: row.defaults[k] for k in parameters(row.together)} | rate
        found = row.together(**taken) if row.together else {}
        alike = {k: w if isinstance(w := table.words.get(k), str) else k for k in taken}
        others = {alike[k] for k in taken if k != option}
        own = [k for k in found if k not in others] or found
        return alike[option] if alike[option] in found else ", ".join(own)
    if isinstance(word, str):
        return word
    if isinstance(word, tuple):
        return ", ".join(word)
    if callable(word):
        found = word(default) or word(2)  # of a switch, what it does
        other = [f"rule {found['rule']}"] if "rule" in found else []
        return ", ".join(other or [f"+{v}" if k == "around" else k for k, v in found.items()])
    return "no effect"


@functools.cache
def parameters(together: Any) -> frozenset[str]:
    """The names of a function's parameters."""
    return frozenset(inspect.signature(together).parameters) if together else frozenset()


def mapped(change: Callable[..., Any], *values: Any) -> Any:
    """``change`` of numbers; of schedules among them, a schedule."""
    if not any(map(callable, values)):
        return change(*values)
    return lambda k: change(*(v(k) if callable(v) else v for v in values))


def same(value: Any, default: Any) -> bool:
    """Whether a value is the default. One that is a dtype stands in a table by its name."""
    return value is default or bool(type(value) is type(default) and value == default)


def _hint(table: Table, row: Row, option: str) -> str:
    """What else might have been meant: our spelling of one of theirs, or a near miss."""
    for theirs in row.defaults:
        word = table.word(row, theirs)
        if option == word or (isinstance(word, tuple) and option in word):
            return f", there it is {theirs!r}. {_list(row.defaults)}"
    return _near(option, row.defaults)


def _near(name: str, known: Mapping[str, Any]) -> str:
    small = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), small, n=1, cutoff=0.6)
    close += [k for k in small if name.lower() == k.rpartition("_")[2]]
    return f"; did you mean {small[close[0]]!r}? {_list(known)}" if close else f". {_list(known)}"


def _list(known: Mapping[str, Any]) -> str:
    return f"It has {', '.join(known)}."
