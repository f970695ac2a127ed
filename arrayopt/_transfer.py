"""Arrays from one library to another, by way of NumPy."""

import sys
from typing import Any

import array_api_compat as compat
import numpy as np

from . import backends
from ._namespace import device, dtype_name, library, namespace
from ._types import Array, Namespace

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I8": "int8"}


class CheckpointError(ValueError):
    """A file or a state that cannot be taken up; it says what is wrong, and where."""


def adapter(name: Any) -> Any:
    """The adapter for a backend's name, or for a namespace."""
    name = name if isinstance(name, str) else library(name)
    return backends.load("strict" if name == "array_api_strict" else name)


def to_numpy(x: Array) -> np.ndarray:
    """The array in host memory, in C order; bfloat16 as ml_dtypes has it."""
    return np.asarray(adapter(namespace(x)).asnumpy(x), order="C")


def from_bytes(what: str, data: Any, dtype: str, shape: list[int]) -> np.ndarray:
    """A tensor of a safetensors file."""
    if dtype not in DTYPES:
        raise CheckpointError(f"{what} has dtype {dtype}, not one of {', '.join(DTYPES)}")
    return np.frombuffer(data, numpy_dtype(DTYPES[dtype])).reshape(shape)


def numpy_dtype(name: str) -> Any:
    """NumPy's dtype of that name, in the byte order of files; ml_dtypes' for bfloat16."""
    if name == "bfloat16":
        from ml_dtypes import bfloat16

        return np.dtype(bfloat16)
    return np.dtype(name).newbyteorder("<")


def put(what: str, x: np.ndarray, into: Any, like: Array = None, where: Any = None) -> Array:
    """``x`` in the library of the adapter ``into``, beside ``like`` or on the device ``where``."""
    try:
        y = into.asarray(x)
        got = dtype_name(y.dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        got = f"an error, {error}"
    if got != dtype_name(x.dtype):
        library = into.__name__.rpartition(".")[2]
        hint = "; turn on its 64-bit mode" if (library, got) == ("jax", "float32") else ""
        raise CheckpointError(f"{what} is {x.dtype}, of which {library} makes {got}{hint}")
    return _moved(y, like, where, namespace(y))


def put_scalar(x: np.ndarray, like: Array, where: Any = None) -> Array:
    """A 0-d array in the library, dtype and device of ``like``, or on the device ``where``."""
    xp = namespace(like)
    there = {} if device(like, xp) is None else {"device": device(like, xp)}
    return _moved(xp.asarray(float(x), dtype=like.dtype, **there), None, where, xp)


def _moved(y: Array, like: Array, where: Any, xp: Namespace) -> Array:
    """``y`` on a device; beside ``like`` also in its chunks, or its sharding."""
    name = library(xp)
    if where is not None:
        if name == "jax" and isinstance(where, str):
            where = sys.modules["jax"].devices(where)[0]
        return compat.to_device(y, where)
    if like is None:
        return y
    if name == "dask":
        return y.rechunk(like.chunks) if y.shape == like.shape else y
    if name == "jax":
        same = y.shape != like.shape or y.sharding == like.sharding
        return y if same else sys.modules["jax"].device_put(y, like.sharding)
    there = device(like, xp)
    return y if there in (None, device(y, xp)) else compat.to_device(y, there)
