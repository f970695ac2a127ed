"""Optimizer update rules, written once for every array library.

Every rule is a module here, by its name: ``arrayopt.adamax``, ``arrayopt.madam``, ...
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import rules, wrappers
from ._schema import hyperparameters
from ._types import Bound, Decay, Epsilon, Fraction, Positive, Range, Rate, Weight
from ._version import __version__
from .optimizer import Optimizer, State

if TYPE_CHECKING:
    from . import schedules
    from ._from_optax import from_optax_state
    from ._from_torch import from_torch_state_dict
    from ._like import like
    from ._partition import partition
    from ._transfer import CheckpointError
    from .checkpoint import Checkpoint, load, save
    from .sweep import Sweep

__all__ = [
    "Bound",
    "Checkpoint",
    "CheckpointError",
    "Decay",
    "Epsilon",
    "Fraction",
    "Optimizer",
    "Positive",
    "Range",
    "Rate",
    "State",
    "Sweep",
    "Weight",
    "__version__",
    "from_optax_state",
    "from_torch_state_dict",
    "hyperparameters",
    "like",
    "load",
    "partition",
    "rules",
    "save",
    "schedules",
    "wrappers",
]
_LATER = {  # imported on first use
    "Checkpoint": "checkpoint",
    "CheckpointError": "_transfer",
    "Sweep": "sweep",
    "from_optax_state": "_from_optax",
    "from_torch_state_dict": "_from_torch",
    "like": "_like",
    "load": "checkpoint",
    "partition": "_partition",
    "save": "checkpoint",
}


def __getattr__(name: str) -> Any:  # a rule's module, or what is in _LATER
    if name in _LATER:
        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    if name in rules.names():
        return rules.find(name)
    if name in ("parity", "schedules"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *rules.names()])
