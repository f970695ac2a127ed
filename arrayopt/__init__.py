"""Optimizer update rules, written once for every array library.

Every rule is a module here, by its name: ``arrayopt.adamax``, ``arrayopt.madam``, ...
"""

from typing import Any

from . import rules
from ._schema import hyperparameters
from ._version import __version__
from .optimizer import Optimizer, State

__all__ = ["Optimizer", "State", "__version__", "hyperparameters", "rules"]


def __getattr__(name: str) -> Any:  # a rule's module, imported on first use
    if name in rules.names():
        return rules.find(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *rules.names()])
