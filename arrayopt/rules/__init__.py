"""One module per rule. A file dropped into this folder is a rule: nothing else names it."""

import difflib
import importlib
import pkgutil
from typing import Any

__all__ = ["find", "names"]


def names() -> list[str]:
    """Every rule's name, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def find(name: str) -> Any:
    """The rule of that name, imported on first use."""
    if name not in names():
        close = difflib.get_close_matches(name.lower(), names(), n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(f"no rule is named {name!r}{hint} The rules: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
