"""JAX arrays."""

import contextlib
from typing import Any, TypeVar

import jax
import numpy as np

from ._common import settle, usable

__all__ = ["DTYPES", "about", "asarray", "asnumpy", "compiled", "session", "settle", "usable"]
DTYPES = ("float16", "bfloat16", "float32", "float64")
F = TypeVar("F")


def session(dtype: str) -> contextlib.AbstractContextManager[Any]:
    """64-bit mode for float64."""
    return jax.enable_x64(dtype == "float64")


def compiled(function: F) -> F:
    """The function under ``jax.jit``."""
    return jax.jit(function)


def asarray(x: np.ndarray) -> jax.Array:
    return jax.numpy.array(x)


def asnumpy(x: jax.Array) -> np.ndarray:
    return np.asarray(x)


def about() -> str:
    return f"jax {jax.__version__}, {jax.default_backend()}"
