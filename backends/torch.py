"""PyTorch tensors."""

import numpy as np
import torch

from ._common import compiled, session, settle, usable

__all__ = ["DTYPES", "about", "asarray", "asnumpy", "compiled", "session", "settle", "usable"]
DTYPES = ("float16", "bfloat16", "float32", "float64")


def asarray(x: np.ndarray) -> torch.Tensor:
    """A tensor with memory of its own."""
    if str(x.dtype) == "bfloat16":  # torch does not know ml_dtypes'
        return torch.tensor(x.view(np.uint16).copy()).view(torch.bfloat16)
    return torch.tensor(x)


def asnumpy(x: torch.Tensor) -> np.ndarray:
    """An array, in host memory; of ml_dtypes' bfloat16 where the tensor is so."""
    x = x.detach().cpu().contiguous()
    if x.dtype == torch.bfloat16:
        import ml_dtypes

        bits: np.ndarray = x.view(torch.uint16).numpy()
        return bits.view(ml_dtypes.bfloat16)
    return x.numpy()


def about() -> str:
    return f"torch {torch.__version__}, cpu"
