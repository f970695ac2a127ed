"""What an array is: its namespace, its dtype's precision, its device."""

import contextlib
import functools
import sys
import types
from collections.abc import Callable
from typing import Any

import array_api_compat as compat
import numpy as np

from ._types import Array, Namespace

WIDTH = {"float16": 16, "bfloat16": 16, "float32": 32, "float64": 64}


def is_array(x: Any) -> bool:
    """Whether ``x`` is an array of some namespace; NumPy's scalars count as 0-d arrays."""
    return type(x) in _NAMESPACES or bool(compat.is_array_api_obj(x))


def namespace(x: Array) -> Namespace:
    """The array library's module, completed to the standard where it falls short."""
    if type(x) not in _NAMESPACES:
        xp = compat.array_namespace(x)
        mend = _MENDED.get(xp.__name__)
        _NAMESPACES[type(x)] = xp if mend is None else _completed(xp, mend)
    return _NAMESPACES[type(x)]


_NAMESPACES: dict[type, Namespace] = {}  # those met so far; torch.compile follows a dict's look-up


@functools.cache
def _completed(xp: Namespace, mend: Callable[[Namespace], dict[str, Any]]) -> Namespace:
    module = types.ModuleType(xp.__name__, xp.__doc__)  # array_api_compat goes by the name
    module.__dict__.update(vars(xp) | mend(xp))
    return module


def _torch(xp: Namespace) -> dict[str, Any]:
    """Where torch is not correctly rounded, and where array_api_compat cannot be compiled."""
    torch = sys.modules["torch"]

    def sqrt(x: Array) -> Array:
        # torch's own, on a CPU and not compiled, is MKL's: 1 ulp off for every sixth float32
        exact = x.device.type == "cpu" and not is_traced(x, xp)
        if not exact or (x.requires_grad and torch.is_grad_enabled()):
            return torch.sqrt(x)
        if hasattr(x, "full_tensor"):  # a DTensor: each process has its own part, or a summand
            how, whole = x.placements, any(p.is_partial() for p in x.placements)
            part = x.full_tensor() if whole else x.to_local()
            how = [sys.modules["torch.distributed.tensor"].Replicate()] * len(how) if whole else how
            like = {"run_check": False, "shape": x.shape, "stride": x.stride()}
            return type(x).from_local(sqrt(part), x.device_mesh, how, **like)
        if type(x) not in (torch.Tensor, torch.nn.Parameter):
            return torch.sqrt(x)
        return torch.from_numpy(np.asarray(np.sqrt(x.detach().numpy())))  # shares the memory

    def maximum(x: Array, y: Any) -> Array:
        return torch.clamp(x, min=y) if isinstance(y, int | float) else torch.maximum(x, y)

    def minimum(x: Array, y: Any) -> Array:
        return torch.clamp(x, max=y) if isinstance(y, int | float) else torch.minimum(x, y)

    return {"sqrt": sqrt, "where": torch.where, "maximum": maximum, "minimum": minimum}


def _mlx(xp: Namespace) -> dict[str, Any]:
    """MLX's ``sum`` takes no dtype."""

    def total(x: Array, *, dtype: Any = None, **kwargs: Any) -> Array:
        return xp.sum(x if dtype is None else x.astype(dtype), **kwargs)

    return {"sum": total}


_MENDED = {"array_api_compat.torch": _torch, "mlx.core": _mlx}


def library(xp: Namespace) -> str:
    """The array library's name: ``"numpy"``, ``"torch"``, ``"jax"``, ``"mlx"``, ..."""
    name: str = xp.__name__
    return name.removeprefix("array_api_compat.").partition(".")[0]


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


def copied(x: Array, xp: Namespace) -> Array:
    """An array of the same values with memory of its own."""
    return x.clone() if library(xp) == "torch" else xp.asarray(x, copy=True)


def device(x: Array, xp: Namespace) -> Any:
    """Where ``x`` lies; None where that is not for us to ask (traced or lazy arrays)."""
    if library(xp) in ("jax", "dask"):
        return None
    return getattr(x, "device", None)


def quiet(xp: Namespace) -> contextlib.AbstractContextManager[Any]:
    """No warnings for what every other library does in silence: inf and NaN propagate."""
    host = library(xp) in ("numpy", "array_api_strict")  # arrays in NumPy, where arithmetic warns
    return np.errstate(all="ignore") if host else contextlib.nullcontext()


def first_step(xp: Namespace) -> Any:
    """The number of steps taken before the first: 0, as an array where a trace may carry it."""
    if library(xp) == "jax":
        return xp.zeros((), dtype=xp.int32)
    if library(xp) == "torch":
        return xp.zeros((), dtype=xp.int64, device="cpu")
    return 0


def is_traced(x: Any, xp: Namespace, *, outside: bool = True) -> bool:
    """Whether a trace may hold ``x``, so that its value must not be asked for.

    JAX arrays count as traced even outside of a trace (an answer would wait for the device),
    unless ``outside`` is False.
    """
    if library(xp) == "jax":
        return outside or isinstance(x, sys.modules["jax"].core.Tracer)
    if library(xp) == "torch":
        torch = sys.modules["torch"]
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor
        return bool(torch.compiler.is_compiling() or wrapped(x))
    return False


def compiling() -> bool:
    """Whether torch.compile reads this."""
    return "torch" in sys.modules and bool(sys.modules["torch"].compiler.is_compiling())


def known(step: Any, xp: Namespace) -> Any:
    """A step counter's value as an ``int``, or the array itself where a trace may hold it."""
    return step if isinstance(step, int) or is_traced(step, xp) else int(step)
