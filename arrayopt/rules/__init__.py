"""One module per rule. A file dropped into this folder is a rule: nothing else names it."""

import difflib
import importlib
import pkgutil
from typing import Any

__all__ = ["find", "known", "names"]


def names() -> list[str]:
    """Every rule's name, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def find(name: str) -> Any:
    """The rule of that name, imported on first use; ``adam+ema`` is adam inside the wrapper ema."""
    inner, _, wrapper = name.rpartition("+")
    if inner:
        from .._wrapped import wrapped

        return wrapped(find(inner), wrapper)
    if name not in names():
        word = name.lower()
        close = [n for n in names() if n.endswith(f"_{word}") or n == word]
        close += [n for n in difflib.get_close_matches(word, names()) if n not in close]
        hint = f"; did you mean {' or '.join(close)}?" if close else "."
        if word == "adamw":
            hint = '; AdamW is adam with decay="decoupled".'
        raise ValueError(f"no rule is named {name!r}{hint} The rules: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")


def known(name: str) -> Any:
    """As :func:`find`, but None where there is none."""
    try:
        return find(name)
    except (ValueError, TypeError):
        return None
