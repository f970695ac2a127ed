"""MLX: its namespace is standard enough to run every rule as it is."""

import importlib.metadata
from typing import Any

import numpy as np

from ._common import compiled, engines, extra, session, settle, usable

with extra("mlx"):
    import mlx.core as mx

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
DTYPES = ("float16", "bfloat16", "float32")


def asarray(x: np.ndarray) -> Any:
    if str(x.dtype) == "bfloat16":  # MLX does not know ml_dtypes'
        return mx.array(x.view(np.uint16)).view(mx.bfloat16)
    return mx.array(x)


def asnumpy(x: Any) -> np.ndarray:
    if x.dtype == mx.bfloat16:
        import ml_dtypes

        return np.array(x.view(mx.uint16)).view(ml_dtypes.bfloat16)
    return np.array(x)


def about() -> str:
    return f"mlx {importlib.metadata.version('mlx')}, {mx.default_device()}"
