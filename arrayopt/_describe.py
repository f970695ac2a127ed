"""A rule as plain data, read off its docstring, its signatures and its state."""

import inspect
from typing import Any

import numpy as np

from . import rules
from ._schema import Hyper, hyperparameters, name_of, title_of
from ._tree import Tree
from .optimizer import Optimizer


def describe(name: str) -> dict[str, Any]:
    """A rule as plain data."""
    rule = rules.find(name)
    doc = inspect.getdoc(rule) or ""
    optimizer = Optimizer(rule)
    slots = optimizer.init(np.ones(1000, np.float32)).slots
    size = sum(x.nbytes for x in Tree(slots).leaves)
    urls = [w.strip(".,;)") for w in doc.split() if w.startswith("http")]
    return {
        "rule": name_of(rule),
        "title": title_of(rule),
        "url": urls[0] if urls else "",
        "decay": optimizer.around.decay,
        "slots": [k for k, s in zip(slots._fields, slots, strict=True) if not isinstance(s, tuple)],
        "bytes": round(size / 1000),
        "hyper": {
            k: {"default": h.default, "legal": _legal(h)} for k, h in hyperparameters(rule).items()
        },
    }


def _legal(hyper: Hyper) -> str:
    legal = hyper.legal
    text = " | ".join(map(str, legal)) if isinstance(legal, tuple) else str(legal)
    return f"{text} | None" if hyper.optional else text
