"""Experiments of the papers behind the rules, each from one command: ``arrayopt reproduce NAME``.

One module per experiment; nothing else names it. It has

- a docstring: the first line is its title, the rest says what is done, with the paper, number of
  figure or equation, URL, and what is done in another way than there;
- ``SETTINGS``: all that the numbers depend on, but for code: rules, hyperparameters, grids, steps,
  runs, sizes, as plain data of JSON (lists, dicts with names, numbers);
- ``QUICK``: those of its entries that are others where it only has to be seen to run;
- ``run(settings, tell, *, seed) -> dict``: the numbers, as JSON has them, from these settings and
  no other constants. ``tell(done, note)`` shows how far it is: ``done`` from 0 to 1;
- ``table(numbers) -> list[Row]``: what the paper says beside what was seen. ``numbers`` is all that
  is in the file: what ``run`` gave, and ``settings``, ``seed`` and ``versions``;
- ``draw(numbers, figure)``: the picture, into an empty figure of matplotlib.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from .. import _found

Tell = Callable[[float, str], None]


class Row(NamedTuple):
    """One line of an experiment's result."""

    what: str
    paper: str
    here: str


def names() -> list[str]:
    """Every experiment's name, sorted."""
    return _found.names(__path__)


def find(name: str) -> Any:
    """The experiment of that name, imported on first use."""
    return _found.find(__name__, "experiment", name, names())
