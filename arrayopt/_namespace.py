"""What an array is: its namespace, its dtype's precision, its device."""

import contextlib
import sys
from typing import Any

import array_api_compat as compat
import numpy as np

from ._types import Array, Namespace

WIDTH = {"float16": 16, "bfloat16": 16, "float32": 32, "float64": 64}


def is_array(x: Any) -> bool:
    """Whether ``x`` is an array of some namespace; NumPy's scalars count as 0-d arrays."""
    return bool(compat.is_array_api_obj(x))


def namespace(x: Array) -> Namespace:
    """The array library's module, completed to the standard where it falls short."""
    return compat.array_namespace(x)


def dtype_name(dtype: Any) -> str:
    """``"float32"``, in whichever library; ml_dtypes' and torch's bfloat16 too."""
    return str(dtype).rpartition(".")[2]


def compute_dtype(dtype: Any, xp: Namespace) -> Any:
    """The dtype of a rule's arithmetic and state: at least float32."""
    return xp.float32 if WIDTH[dtype_name(dtype)] < 32 else dtype


def cast(x: Array, dtype: Any, xp: Namespace) -> Array:
    """``x`` in ``dtype``; ``x`` itself where it is so already. NumPy's scalars become arrays."""
    if isinstance(x, np.generic):
        return np.asarray(x, dtype=dtype)
    return x if x.dtype == dtype else xp.astype(x, dtype)


def device(x: Array, xp: Namespace) -> Any:
    """Where ``x`` lies; None where that is not for us to ask (traced or lazy arrays)."""
    if compat.is_jax_namespace(xp) or compat.is_dask_namespace(xp):
        return None
    return getattr(x, "device", None)


def is_host(xp: Namespace) -> bool:
    """Whether its arrays live in NumPy, where bad arithmetic warns."""
    return bool(compat.is_numpy_namespace(xp) or compat.is_array_api_strict_namespace(xp))


def quiet(xp: Namespace) -> contextlib.AbstractContextManager[Any]:
    """No warnings for what every other library does in silence: inf and NaN propagate."""
    return np.errstate(all="ignore") if is_host(xp) else contextlib.nullcontext()


def first_step(xp: Namespace) -> Any:
    """The number of steps taken before the first: 0, as an array where a trace may carry it."""
    if compat.is_jax_namespace(xp):
        return xp.zeros((), dtype=xp.int32)
    if compat.is_torch_namespace(xp):
        return xp.zeros((), dtype=xp.int64, device="cpu")
    return 0


def is_traced(x: Any, xp: Namespace, *, outside: bool = True) -> bool:
    """Whether a trace may hold ``x``, so that its value must not be asked for.

    JAX arrays count as traced even outside of a trace (an answer would wait for the device),
    unless ``outside`` is False.
    """
    if compat.is_jax_namespace(xp):
        return outside or isinstance(x, sys.modules["jax"].core.Tracer)
    if compat.is_torch_namespace(xp):
        torch = sys.modules["torch"]
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor
        return bool(torch.compiler.is_compiling() or wrapped(x))
    return False


def known(step: Any, xp: Namespace) -> Any:
    """A step counter's value as an ``int``, or the array itself where a trace may hold it."""
    return step if isinstance(step, int) or is_traced(step, xp) else int(step)
