"""A rule's slots, with what the comments beside them say."""

import inspect
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

import arrayopt as ao
from arrayopt._schema import title_of
from arrayopt._step import is_elementwise
from arrayopt._tree import Tree

SIZE = 1024  # elements of the parameter whose slots are measured


class Slot(NamedTuple):
    """One slot."""

    name: str
    meaning: str
    bytes: str


def slots(module: Any, rule: Any) -> list[Slot]:
    """What a rule or wrapper keeps; ``rule`` is the rule, or the wrapper around some rule."""
    param = np.ones(SIZE if is_elementwise(rule) else (32, 32), np.float32)
    made = ao.Optimizer(rule).init(param).slots._asdict()
    own = meanings(module.State) if hasattr(module, "State") else ()
    shared = meanings(module.Shared) if hasattr(module, "Shared") else ()
    return [
        *(Slot(name, meaning, size(made[name])) for name, meaning in own),
        *(Slot(name, meaning, "one value for all parameters") for name, meaning in shared),
    ]


def size(slot: Any) -> str:
    """Bytes for each element of the parameter."""
    if isinstance(slot, tuple):
        return "off by default"
    (leaf,) = Tree(slot).leaves
    return f"{leaf.nbytes / SIZE:.2g}" if leaf.size > 1 else "one value for each parameter"


def meanings(state: Any) -> Iterator[tuple[str, str]]:
    """Each slot's name and the comment beside it, or on the lines after it."""
    found: list[list[str]] = []
    for line in inspect.getsource(state).splitlines():
        field = re.match(r"    (\w+): [^#]*(?:#\s*(.*))?$", line)
        if field:
            found.append([field[1], field[2] or ""])
        elif found and (more := re.match(r"\s+#\s*(.*)", line)):
            found[-1][1] += f" {more[1]}"
    last = ""  # one comment may stand for the slots that follow
    for name, meaning in found:
        last = meaning or last
        yield name, last


def torch_class(rule: Any) -> str:
    """The name of its class in ``arrayopt.backends.torch``."""
    return re.sub(r"\W", "", title_of(rule).partition(":")[0])
