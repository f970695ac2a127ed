"""The namespace that a rule sees while it is traced."""

import math
from typing import Any

from .._math import sign
from .program import BINARY, COMPARE, LOGIC, UNARY, Untraceable
from .symbols import Graph, Symbol, apply


class XP:
    """The namespace that a rule sees while it is traced.

    Args:
        alone: whether the parameter is one element, which is its own sum.
    """

    __name__ = "arrayopt.fuse"
    float16, bfloat16, float32, float64, bool = "float16", "bfloat16", "float32", "float64", "bool"
    e, inf, nan, pi = math.e, math.inf, math.nan, math.pi

    def __init__(self, graph: Graph, *, alone: Any = False) -> None:
        self._graph, self._alone = graph, alone

    def __getattr__(self, name: str) -> Any:
        if name in UNARY or name in BINARY or name in COMPARE or name in LOGIC or name in OTHERS:
            return lambda *args: apply(self._graph, name, *args)
        raise Untraceable(f"it calls {name}, which is not made of single elements")

    def astype(self, x: Any, dtype: str, copy: Any = True) -> Any:
        """Another dtype; the host's numbers take that of what they meet."""
        if isinstance(x, Symbol) and "bool" in (x.dtype, dtype) and x.dtype != dtype:
            raise Untraceable("it makes numbers of truth values; xp.where does")
        return self._graph.lift(x, dtype) if isinstance(x, Symbol) else x

    def asarray(self, x: Any, *, copy: Any = None) -> Any:
        """Nothing is overwritten before all is read, so it is its own copy."""
        return x

    def zeros_like(self, x: Symbol) -> Symbol:
        return self._graph.lift(0.0, x.dtype)

    def ones_like(self, x: Symbol) -> Symbol:
        return self._graph.lift(1.0, x.dtype)

    def square(self, x: Any) -> Any:
        return x * x

    def sign(self, x: Any) -> Any:
        return sign(x, xp=self)

    def clip(self, x: Any, /, min: Any = None, max: Any = None) -> Any:
        """Limited from both sides, or from one."""
        x = x if min is None else self.maximum(x, min)
        return x if max is None else self.minimum(x, max)

    def sum(self, x: Symbol, *, dtype: str | None = None) -> Symbol:
        """What ``measure`` may give, and what one value for a parameter may be made of."""
        if not isinstance(x, Symbol):
            raise Untraceable("it sums over what is no array")
        dtype = x.dtype if dtype is None else dtype
        return self._graph.lift(x if self._alone else self._graph.sum(x), dtype)

    def __array_namespace_info__(self) -> Any:
        class Info:
            @staticmethod
            def dtypes(*, kind: str) -> dict[str, str]:
                return {"float32": "float32", "float64": "float64"}

        return Info


OTHERS = ("maximum", "minimum", "where", "isfinite")
