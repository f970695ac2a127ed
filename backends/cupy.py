"""CuPy arrays, updated in place on their GPU."""

import operator
from typing import Any, Literal

import numpy as np

import arrayopt as ao
from arrayopt._plan import Plan
from arrayopt.fuse.trace import untraceable

from . import _in_place
from ._common import compiled, extra, session, settle

with extra("cupy"):
    import cupy
    from array_api_compat import cupy as xp

    from . import _cupy_fused

__all__ = [
    "DTYPES",
    "ENGINES",
    "InPlace",
    "about",
    "asarray",
    "asnumpy",
    "compiled",
    "engines",
    "session",
    "settle",
    "usable",
]
DTYPES = ("float16", "float32", "float64")
ENGINES = ("fused", "eager")


class InPlace(_in_place.InPlace):
    """Updates the caller's CuPy arrays in place, on CuPy's current stream.

    Args:
        params: a tree of CuPy arrays, none of which share memory.
        rule, hyper: as for :class:`arrayopt.Optimizer`.
        engine: what carries out a step; the first of these that can, if it is None. ``"fused"``:
            the rule, compiled into one kernel over all parameters of a dtype (it needs
            hyperparameters that are no arrays). ``"eager"``: the rule as it is written, one
            operation after the other.

    No step waits for the GPU, but with ``nonfinite="raise"`` or ``"skip"``, which read a flag.
    A step that cannot run (see ``Optimizer.step``) changes nothing.
    """

    LIBRARY = _in_place.Library(
        "CuPy",
        xp,
        cupy.ndarray,
        operator.attrgetter("data.ptr"),
        device=operator.attrgetter("data.device_id"),
        writeable=lambda x: True,
        mirror=_cupy_fused.mirrored,
    )
    ENGINES = ENGINES

    def __init__(
        self,
        params: Any,
        rule: Any,
        *,
        engine: Literal["fused", "eager"] | None = None,
        **hyper: Any,
    ) -> None:
        super().__init__(params, rule, engine=engine, **hyper)

    def _compiled(self, todo: Plan) -> _cupy_fused.Step:
        return _cupy_fused.Step(self.optimizer, todo, self.state.shared)


def engines(optimizer: ao.Optimizer) -> dict[str, str | None]:
    """What can carry out the steps of ``InPlace``, the preferred first; and why not."""
    none = None if usable() else "no GPU is found"
    return {"fused": none or untraceable(optimizer), "eager": none}


def usable() -> bool:
    """Whether there is a GPU."""
    return bool(cupy.cuda.is_available())


def asarray(x: np.ndarray) -> Any:
    return cupy.array(x)


def asnumpy(x: Any) -> np.ndarray:
    return cupy.asnumpy(x)


def about() -> str:
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode() if usable() else "no GPU"
    return f"cupy {cupy.__version__}, {name}"
