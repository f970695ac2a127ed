"""Small functions of torch's tensors."""

from typing import Any

import torch
from torch import Tensor

from arrayopt._namespace import cast, compute_dtype, is_traced, namespace
from arrayopt._plan import plain

XP = namespace(torch.empty(0))


def copied(x: Any, p: Tensor, *, keep: bool = False) -> Any:
    """A slot for ``p``, in the precision of the rule's arithmetic, or as it is."""
    if not isinstance(x, Tensor):
        return x
    dtype = compute_dtype(p.dtype.to_real(), XP)
    dtype = dtype.to_complex() if x.is_complex() else dtype
    return x.detach().to(p.device, x.dtype if keep else dtype, copy=True)


def number(x: Any) -> Any:
    """A hyperparameter in a step: a number, or a 0-d tensor where to ask for it would cost."""
    if not isinstance(x, Tensor):
        return plain(x)
    x = x.detach().reshape(())
    return x if x.device.type != "cpu" or is_traced(x, XP) else x.item()


def write(old: Tensor, new: Tensor) -> None:
    """In place. torch.compile loses what copy_ writes to a 0-d float64 tensor on a CPU."""
    if old.ndim == 0 and is_traced(old, XP):
        torch._foreach_copy_([old], [new])
    else:
        old.copy_(new)


def cast_to(x: Any, dtype: torch.dtype) -> Any:
    return cast(x, dtype, XP) if isinstance(x, Tensor) else x


def real(x: Tensor) -> Tensor:
    """A complex tensor as pairs of reals: a view of its memory."""
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def count(steps: Any) -> Tensor:
    """A number of steps as torch keeps it."""
    return torch.tensor(float(steps), dtype=torch.float32, device="cpu")


def whole(x: Any) -> Any:
    """The sum over all shards, where there are some (DTensor)."""
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def moved_to(device: Any, tree: Any) -> Any:
    """Nested NamedTuples of tensors, on the device."""
    return (
        type(tree)(*[moved_to(device, x) for x in tree])
        if isinstance(tree, tuple)
        else tree.to(device)
    )
