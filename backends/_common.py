"""What most adapters share; each takes from here what fits its framework."""

import contextlib
from typing import Any, TypeVar

T = TypeVar("T")


def usable() -> bool:
    """Whether the framework can compute here."""
    return True


def session(dtype: str) -> contextlib.AbstractContextManager[Any]:
    """What has to hold while the framework computes in ``dtype``: nothing."""
    return contextlib.nullcontext()


def compiled(function: T) -> T:
    """The function as it is: the framework runs eagerly."""
    return function


def settle(tree: T) -> T:
    """The tree as it is: its arrays are no promises."""
    return tree
