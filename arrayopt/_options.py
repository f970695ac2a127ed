"""What an optimizer is asked for beside the rule's hyperparameters, checked."""

from typing import Any

from ._blocks8 import NAME, encoded
from ._namespace import WIDTH, cast, library
from ._needs import needed
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
    known = (*WIDTH, NAME)
    legal = ", ".join(known)
    if state_dtype is None:
        return {}
    if isinstance(state_dtype, str):
        if state_dtype not in known:
            raise ValueError(f"{who}: state_dtype must be one of {legal}, got {state_dtype!r}")
        pairs = zip(blank._fields, blank, strict=True)
        return {k: state_dtype for k, s in pairs if is_off(s) or s.shape != ()}
    if not isinstance(state_dtype, dict):
        raise TypeError(
            f"{who}: state_dtype must be a dtype's name, a dict of such by slot, or None, "
            f"got {state_dtype!r}"
        )
    for slot, dtype in state_dtype.items():
        if slot not in blank._fields:
            slots = ", ".join(blank._fields) or "none"
            raise ValueError(f"{who}: state_dtype names the slot {slot!r}; its slots are {slots}")
        if not is_one_of(known, dtype):
            raise ValueError(
                f"{who}: state_dtype of slot {slot!r} must be one of {legal}, got {dtype!r}"
            )
    return dict(state_dtype)


def in_dtypes(
    who: str, slots: Any, dtypes: dict[str, str], shape: tuple[int, ...], xp: Namespace
) -> Any:
    """The rule's State, each slot in the dtype of that name; ``shape`` is the parameter's."""
    found = {}
    for k, name in dtypes.items():
        slot = getattr(slots, k)
        if is_off(slot):
            continue
        if name == NAME and tuple(slot.shape) != shape:
            raise ValueError(
                f"{who}: state_dtype of slot {k!r} cannot be {NAME}: its shape is "
                f"{tuple(slot.shape)}, and not {shape} as the parameter's"
            )
        blocks = name == NAME
        found[k] = encoded(slot, None, xp=xp) if blocks else cast(slot, _dtype(who, name, xp), xp)
    return slots._replace(**found)


def _dtype(who: str, name: str, xp: Namespace) -> Any:
    """The library's dtype of that name; of bfloat16 NumPy knows by ml_dtypes alone."""
    known = getattr(xp, name, None)
    if known is None and name == "bfloat16" and library(xp).split()[0] in ("numpy", "dask"):
        known = needed(f"{who}: bfloat16 in NumPy", "ml_dtypes", "checkpoint").bfloat16
    missing = "float64" not in xp.__array_namespace_info__().dtypes(kind="real floating")
    if known is None or (name == "float64" and missing):  # JAX has it in 64-bit mode only
        raise ValueError(f"{who}: state_dtype is {name}, which {library(xp)} does not have here")
    return known
