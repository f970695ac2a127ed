"""What a rule computes with where it takes many runs at once: a namespace of arrays of runs."""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ._namespace import compute_dtype, copied, device, is_traced, known, library, namespace
from ._plan import Plan
from ._step import keep
from ._tree import Tree
from ._types import Namespace
from .optimizer import Optimizer, State


class Runs:
    """What each of many runs has in the place of one array or number.

    ``data`` is an array with a leading axis of one entry per run, which the rule does not see; or a
    tuple of Python's numbers. Those are computed with as in a single run, in Python on the host,
    until they meet an array: so results are the same to the bit.
    """

    xp: Namespace  # a class for each namespace has its own
    __array_ufunc__ = None  # NumPy's scalars leave it to us

    def __init__(self, data: Any) -> None:
        self.data = data

    def __array_namespace__(self, *, api_version: str | None = None) -> Namespace:
        return self.xp

    @property
    def shape(self) -> tuple[int, ...]:
        return () if isinstance(self.data, tuple) else tuple(self.data.shape[1:])

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> Any:
        return float if isinstance(self.data, tuple) else self.data.dtype

    @property
    def device(self) -> Any:
        return "cpu" if isinstance(self.data, tuple) else device(self.data, self.xp.base)

    def __bool__(self) -> bool:
        raise TypeError("a rule must not branch on what differs from run to run")


def _operators() -> None:
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or"):
        function = getattr(operator, f"__{name}__")
        setattr(Runs, f"__{name}__", lambda a, b, f=function: a.xp.apply(f, a, b))
        setattr(Runs, f"__r{name}__", lambda a, b, f=function: a.xp.apply(f, b, a))
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        function = getattr(operator, f"__{name}__")
        setattr(Runs, f"__{name}__", lambda a, b, f=function: a.xp.apply(f, a, b))
    for name in ("neg", "abs", "invert"):
        function = getattr(operator, f"__{name}__")
        setattr(Runs, f"__{name}__", lambda a, f=function: a.xp.apply(f, a))


_operators()
# fmt: off
ELEMENTWISE = frozenset((
    "abs", "acos", "acosh", "add", "asin", "asinh", "atan", "atan2", "atanh", "ceil", "clip", "cos",
    "cosh", "divide", "equal", "exp", "expm1", "floor", "greater", "greater_equal", "hypot",
    "isfinite", "isinf", "isnan", "less", "less_equal", "log", "log10", "log1p", "log2",
    "logical_and", "logical_not", "logical_or", "logical_xor", "maximum", "minimum", "multiply",
    "negative", "not_equal", "ones_like", "positive", "pow", "reciprocal", "remainder", "round",
    "sign", "sin", "sinh", "sqrt", "square", "subtract", "tan", "tanh", "trunc", "where",
    "zeros_like",
))
# fmt: on
ON_NUMBERS: dict[str, Callable[..., Any]] = {  # what rules do with numbers alone
    "expm1": math.expm1,
    "log": lambda x: math.log(x) if x else -math.inf,
    "where": lambda condition, a, b: a if condition else b,
}


class NotElementwiseError(TypeError):
    """What a rule calls cannot be done for all runs at once."""


class Together:
    """The namespace in which every array is that of ``n`` runs: ``base`` with a leading axis."""

    def __init__(self, base: Namespace, n: int) -> None:
        self.base, self.n = base, n
        self.__name__ = f"{library(base)} (runs)"
        self.Runs = type("Runs", (Runs,), {"xp": self})

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.base, name)
        if name in ELEMENTWISE:
            return lambda *args: self.apply(value, *args, number=ON_NUMBERS.get(name))
        if callable(value) and not isinstance(value, type):  # dtypes are types in some
            raise NotElementwiseError(f"{name} is no function of single elements")
        return value

    def __array_namespace_info__(self) -> Any:
        return self.base.__array_namespace_info__()

    def apply(self, function: Callable[..., Any], *args: Any, number: Any = None) -> Runs:
        """An elementwise function, of every run's own arguments."""
        arrays = [a for a in args if isinstance(a, Runs) and not isinstance(a.data, tuple)]
        if not arrays:
            columns = [a.data if isinstance(a, Runs) else (a,) * self.n for a in args]
            return self.Runs(tuple(map(number or function, *columns)))
        rank = max(len(a.shape) for a in arrays)
        like = next((a for a in arrays if "bool" not in str(a.dtype)), arrays[0])
        return self.Runs(function(*(self._lift(a, rank, like) for a in args)))

    def _lift(self, x: Any, rank: int, like: Runs) -> Any:
        """An operand as one array whose axes, but for the leading one, are counted from the end."""
        if not isinstance(x, Runs):
            return x
        data = x.data
        if isinstance(data, tuple):
            what = {} if isinstance(data[0], bool) else {"dtype": like.dtype}
            where = {} if like.device is None else {"device": like.device}
            data = self.base.asarray(list(data), **what, **where)
        missing = rank - len(x.shape)
        return self.base.reshape(data, (self.n, *(1,) * missing, *x.shape)) if missing else data

    def astype(self, x: Runs, dtype: Any) -> Runs:
        """Another dtype; numbers take that of what they meet."""
        return x if isinstance(x.data, tuple) else self.Runs(self.base.astype(x.data, dtype))

    def asarray(self, x: Any, *, copy: bool | None = None, **how: Any) -> Runs:
        if isinstance(x, Runs) and not isinstance(x.data, tuple):
            return self.Runs(copied(x.data, self.base)) if copy else x
        numbers = x.data if isinstance(x, Runs) else (x,) * self.n
        return self.Runs(self.base.asarray(list(numbers), **how))

    def sum(self, x: Runs, *, dtype: Any = None) -> Runs:
        """Each run's sum over all elements."""
        flat = self.base.reshape(x.data, (self.n, math.prod(x.shape)))
        return self.Runs(self.base.sum(flat, axis=1, dtype=dtype))

    def all(self, x: Runs) -> Runs:
        """Whether all of each run's elements are true."""
        flat = self.base.reshape(x.data, (self.n, math.prod(x.shape)))
        return self.Runs(self.base.all(flat, axis=1))

    def given(self, value: Any) -> Any:
        """A hyperparameter; where it is an array, that of each run."""
        if not hasattr(value, "shape"):
            return value
        if namespace(value) is self.base and library(self.base) != "numpy":
            return self.Runs(self.base.broadcast_to(value, (self.n,)))
        return self.Runs(tuple(np.broadcast_to(value, (self.n,)).astype(float).tolist()))


together = functools.cache(Together)  # a namespace is one object


class Batched(Optimizer):
    """The optimizer of all runs at once: its arrays, and what differs among them, are ``Runs``."""

    def __init__(self, xp: Together, rule: Any, options: dict[str, Any]) -> None:
        self.xp = xp
        super().__init__(rule, **options)

    def blank(self, shape: Any, hyper: dict[str, Any]) -> Any:
        shape = shape if isinstance(shape, tuple) else (shape,)
        param = self.xp.Runs(self.xp.base.zeros((self.xp.n, *shape)))
        return self.rule.init(param, **keep(self.around, "init", hyper), xp=self.xp)

    def plan(self, params: Any, grads: Any, state: State, override: dict[str, Any]) -> Plan:
        todo = super().plan(params, grads, state._replace(step=0), override)
        return todo._replace(
            parts=[p._replace(t=self._time(state.step, p.param)) for p in todo.parts]
        )

    def _time(self, step: Any, param: Runs) -> Any:
        """The number of this step: one for all, or of each run its own."""
        xp = self.xp
        count = counts(step, xp.base)
        if isinstance(count, int):
            return count + 1
        if isinstance(count, list):
            return xp.Runs(tuple(c + 1 for c in count))
        t = xp.base.astype(count + 1, compute_dtype(param.dtype, xp.base))
        return xp.Runs(xp.base.broadcast_to(t, (xp.n,)))


def counts(step: Any, xp: Namespace) -> Any:
    """The number of steps taken: an ``int``, a list of each run's, or what a trace holds."""
    if getattr(step, "shape", ()) == ():
        return known(step, xp)
    return step if is_traced(step, xp) else [int(c) for c in step]


def plain(tree: Any) -> Any:
    """A tree's arrays themselves, with their leading axis."""
    found = Tree(tree)
    return found.join([x.data for x in found.leaves])
