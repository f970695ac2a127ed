"""What most adapters share; each takes from here what fits its framework."""

import contextlib
from collections.abc import Iterator
from typing import Any, TypeVar

T = TypeVar("T")


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """An import that fails says which extra installs the framework."""
    try:
        yield
    except ImportError as error:
        raise ImportError(f'{error}; pip install "arrayopt[{name}]"') from error


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


def engines(optimizer: Any) -> dict[str, str | None]:
    """What can carry out the optimizer's steps, the preferred first; and why not, where it cannot.

    Here: the rule as it is written.
    """
    return {"eager": None}
