"""Packages that an extra of this one installs."""

import importlib
from typing import Any


def needed(who: str, package: str, extra: str) -> Any:
    """The package, or an ImportError that says what needs it and how to install it."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ImportError(f'{who} needs {package}: pip install "arrayopt[{extra}]"') from error
