"""What an optimizer is asked for beside the rule's hyperparameters, checked."""

import importlib
from typing import Any

from ._namespace import WIDTH, cast, library
from ._schema import is_one_of
from ._step import is_off
from ._types import Namespace

DECAYS = ("coupled", "decoupled", "independent")
NONFINITE = ("propagate", "raise", "skip")
COMPLEX = (None, "two_reals", "modulus")


def check_options(who: str, decay: Any, nonfinite: Any, maximize: Any, complex_: Any) -> None:
    """Raise for what is none of the values to choose from."""
    for name, value, legal in (
        ("decay", decay, DECAYS),
        ("nonfinite", nonfinite, NONFINITE),
        ("maximize", maximize, (False, True)),
        ("complex", complex_, COMPLEX),
    ):
        if not is_one_of(legal, value):
            raise ValueError(f"{who}: {name} must be one of {legal}, got {value!r}")


def slot_dtypes(who: str, state_dtype: Any, blank: Any) -> dict[str, str]:
    """The dtype's name of each slot that is to have another than the compute dtype.

    Args:
        blank: the rule's State of a parameter of one axis. One dtype for all slots leaves those of
            one value alone: they take no memory, and sums and counts would stall.
    """
    slots = blank._fields
    named = state_dtype
    if isinstance(state_dtype, str):
        single = (not is_off(s) and s.shape == () for s in blank)
        named = {k: state_dtype for k, one in zip(slots, single, strict=True) if not one}
        named = named or {"": state_dtype}  # the name is looked at all the same
    elif state_dtype is None:
        named = {}
    elif not isinstance(state_dtype, dict):
        raise TypeError(
            f"{who}: state_dtype must be a dtype's name, a dict of such by slot, or None, "
            f"got {state_dtype!r}"
        )
    for slot, dtype in named.items():
        if slot not in (*slots, ""):
            legal = ", ".join(slots) or "none"
            raise ValueError(f"{who}: state_dtype names the slot {slot!r}; its slots are {legal}")
        if not is_one_of(tuple(WIDTH), dtype):
            of = "" if isinstance(state_dtype, str) else f" of slot {slot!r}"
            raise ValueError(
                f"{who}: state_dtype{of} must be one of {', '.join(WIDTH)}, got {dtype!r}"
            )
    return {k: v for k, v in named.items() if k}


def in_dtypes(who: str, slots: Any, dtypes: dict[str, str], xp: Namespace) -> Any:
    """The rule's State, each slot in the dtype of that name."""
    return slots._replace(
        **{
            k: cast(getattr(slots, k), _dtype(who, name, xp), xp)
            for k, name in dtypes.items()
            if not is_off(getattr(slots, k))
        }
    )


def _dtype(who: str, name: str, xp: Namespace) -> Any:
    """The library's dtype of that name; of bfloat16 NumPy knows by ml_dtypes alone."""
    known = getattr(xp, name, None)
    if known is None and name == "bfloat16" and library(xp).split()[0] in ("numpy", "dask"):
        known = importlib.import_module("ml_dtypes").bfloat16
    missing = "float64" not in xp.__array_namespace_info__().dtypes(kind="real floating")
    if known is None or (name == "float64" and missing):  # JAX has it in 64-bit mode only
        raise ValueError(f"{who}: state_dtype is {name}, which {library(xp)} does not have here")
    return known
