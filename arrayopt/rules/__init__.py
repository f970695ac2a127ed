"""One module per rule. A file dropped into this folder is a rule: nothing else names it."""

import difflib
import importlib
from typing import Any

from .. import _found

__all__ = ["OTHERS", "find", "known", "names"]

OTHERS = {  # names that are known elsewhere, of what is here under another
    "adamw": 'adam with decay="decoupled"',
    "adamaxw": 'adamax with decay="decoupled"',
    "nadamw": 'nadam with decay="decoupled"',
    "noisy_sgd": "sgd+gradient_noise",
    "sign_sgd": "signum with momentum=0.0",
}


def names() -> list[str]:
    """Every rule's name, sorted."""
    return _found.names(__path__)


def find(name: str) -> Any:
    """The rule of that name, imported on first use; ``adam+ema`` is adam inside the wrapper ema."""
    inner, plus, wrapper = name.rpartition("+")
    if plus:
        from .._wrapped import wrapped

        return wrapped(find(inner), wrapper)
    if not name:
        raise ValueError("the name of a rule is empty")
    if name not in names():
        from .. import wrappers

        if name in wrappers.names():
            raise ValueError(f"{name} is a wrapper, which goes around a rule: adam+{name}")
        word = name.lower()
        close = [n for n in names() if n == word]
        close += [n for n in names() if n.endswith(f"_{word}")]
        close += [n for n in difflib.get_close_matches(word, names()) if n not in close]
        hint = f"; did you mean {' or '.join(close)}?" if close else "."
        hint = f"; it is {OTHERS[word]}." if word in OTHERS else hint
        raise ValueError(f"no rule is named {name!r}{hint} The rules: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")


def known(name: str) -> Any:
    """As :func:`find`, but None where there is none."""
    try:
        return find(name)
    except (ValueError, TypeError):
        return None
