"""array-api-strict: the standard's referee, in its strictest setting."""

import contextlib
from typing import Any

import numpy as np

from ._common import compiled, engines, extra, settle, usable

with extra("test"):
    import array_api_strict as xp

__all__ = [
    "DTYPES",
    "about",
    "asarray",
    "asnumpy",
    "compiled",
    "engines",
    "session",
    "settle",
    "usable",
]
DTYPES = ("float32", "float64")


def session(dtype: str) -> contextlib.AbstractContextManager[Any]:
    """The 2024.12 standard, without anything optional but what some rules need: ``linalg``."""
    return xp.ArrayAPIStrictFlags(
        api_version="2024.12",
        boolean_indexing=False,
        data_dependent_shapes=False,
        enabled_extensions=("linalg",),
    )


def asarray(x: np.ndarray) -> Any:
    return xp.asarray(x)


def asnumpy(x: Any) -> np.ndarray:
    return np.from_dlpack(x)


def about() -> str:
    return f"array-api-strict {xp.__version__}, cpu"
