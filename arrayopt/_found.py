"""Modules found by their names: a file dropped into a folder is one more of its kind."""

import difflib
import importlib
import pkgutil
from collections.abc import Collection, Iterable
from typing import Any


def names(path: Iterable[str]) -> list[str]:
    """The modules of a package, sorted, but for those with a ``_`` first."""
    return sorted(m.name for m in pkgutil.iter_modules(path) if m.name[0] != "_")


def find(package: str, kind: str, name: str, known: list[str]) -> Any:
    """The module ``name`` of a package, imported on first use; ``kind`` is what errors call it."""
    if name not in known:
        raise unknown(kind, name, known)
    return importlib.import_module(f"{package}.{name}")


def unknown(kind: str, name: str, known: Collection[str]) -> ValueError:
    """What is told of a name that is none of those known."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else "."
    return ValueError(f"no {kind} is named {name!r}{hint} The {kind}s: {', '.join(known)}")
