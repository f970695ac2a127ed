"""One module per wrapper, which is put around a rule: ``adam+clip_by_global_norm+ema``.

What stands further to the right is further outside: it sees the gradient earlier, and the new
parameter later. A wrapper has any of these functions, pure, of the Array API alone:

- ``State`` and ``init(param, *, xp)``: its slots, as a rule's.
- ``gradient(param, grad, state, t, *, ..., xp)``: the gradient that the rule is given.
- ``source(param, state, t, *, ..., xp)``: the parameter that the rule is given.
- ``turn(t, *, ..., xp)``: which step of the rule this is, and whether it is one.
- ``update(param, grad, state, t, *, new, when, ..., xp)``: the new parameter and slots, where the
  rule gave ``new``.
- ``evaluate(param, state, t, *, ..., xp)``: the parameter to evaluate with.
- ``measure`` (also with ``new``), ``share``, ``adapt``: sums and shared state, as a rule's.
"""

from typing import Any

from .. import _found

__all__ = ["find", "names"]


def names() -> list[str]:
    """Every wrapper's name, sorted."""
    return _found.names(__path__)


def find(name: str) -> Any:
    """The wrapper of that name, imported on first use."""
    return _found.find(__name__, "wrapper", name, names())
