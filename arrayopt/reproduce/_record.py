"""What is kept of an experiment: its settings, seed and numbers, as JSON."""

import importlib
import json
import sys
from typing import Any

import numpy as np

from .. import rules
from .._version import __version__
from . import Tell


def record(experiment: Any, tell: Tell, *, seed: int, quick: bool) -> dict[str, Any]:
    """Run it: what its file is to hold."""
    settings = experiment.SETTINGS | (experiment.QUICK if quick else {})
    numbers = experiment.run(settings, tell, seed=seed)
    return {"settings": settings, "seed": seed, "versions": versions(), **numbers}


def versions() -> dict[str, str]:
    """Of this library, and of those that an experiment may use and that are loaded."""
    loaded = [k for k in ("numpy", "jax", "torch", "sklearn") if k in sys.modules]
    return {"arrayopt": __version__} | {k: sys.modules[k].__version__ for k in loaded}


def dumps(value: Any, line: str = "\n") -> str:
    """JSON with one line for each list or dict that holds no other."""
    many = dict | list | tuple
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, many) else ()
    if not any(isinstance(v, many) for v in inside):
        return json.dumps(value)
    deeper = line + " "
    rows = [dumps(v, deeper) for v in inside]
    if isinstance(value, dict):
        rows = [f"{json.dumps(k)}: {row}" for k, row in zip(value, rows, strict=True)]
        return "{" + ",".join(deeper + row for row in rows) + line + "}"
    return "[" + ",".join(deeper + row for row in rows) + line + "]"


def short(values: Any) -> Any:
    """Five significant digits, enough for a picture and a table; of arrays, nested lists."""
    return [short(v) for v in values] if np.ndim(values) else float(f"{float(values):.5g}")


def rule(name: str) -> Any:
    """The rule of that name; one with a ``_`` first is in this folder, as only papers need it."""
    own = name.startswith("_")
    return importlib.import_module(f"{__package__}.{name}") if own else rules.find(name)
