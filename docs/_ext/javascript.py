"""One more namespace: arrays of JavaScript's expressions, so that a page can run the rules.

A rule is called as with any other array library; what it does to the elements is written down as
JavaScript, statement by statement, in float64 (which is what JavaScript's numbers are).
"""

import math
import re
import types
from typing import Any

import numpy as np

UNARY = {
    "abs": "Math.abs({})", "sqrt": "Math.sqrt({})", "exp": "Math.exp({})", "log": "Math.log({})",
    "expm1": "Math.expm1({})", "log1p": "Math.log1p({})", "tanh": "Math.tanh({})",
    "cbrt": "Math.cbrt({})", "sin": "Math.sin({})", "cos": "Math.cos({})", "negative": "-{}",
    "logical_not": "!{}", "isfinite": "Number.isFinite({})", "sign": "Math.sign({})",
    "number": "Number({})", "truth": "Boolean({})",
}  # fmt: skip
BINARY = {
    "add": "{} + {}", "subtract": "{} - {}", "multiply": "{} * {}", "divide": "{} / {}",
    "floor_divide": "Math.floor({} / {})", "remainder": "({0} % {1} + {1}) % {1}",
    "pow": "({0} === 1 ? 1 : {0} ** {1})",
    "maximum": "Math.max({}, {})", "minimum": "Math.min({}, {})",
    "less": "{} < {}", "less_equal": "{} <= {}", "greater": "{} > {}", "greater_equal": "{} >= {}",
    "equal": "{} === {}", "not_equal": "{} !== {}",
    "logical_and": "{} && {}", "logical_or": "{} || {}",
}  # fmt: skip
OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide",
    "floordiv": "floor_divide", "mod": "remainder", "pow": "pow",
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal",
    "eq": "equal", "ne": "not_equal", "and": "logical_and", "or": "logical_or",
}  # fmt: skip
TRUTHS = {"logical_not", "isfinite", "truth", *list(BINARY)[list(BINARY).index("less") :]}


class Unwritable(AttributeError):  # noqa: N818
    """A rule does what cannot be written so; the message says what."""


class Script:
    """Statements, each of which names a new value; equal ones are one."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def value(self, expression: str) -> str:
        """The name of an expression's value."""
        return self.names.setdefault(expression, f"v{len(self.names)}")

    def text(self, results: list[str]) -> str:
        """The statements that the results need, in order."""
        needed, kept = set(results), []
        for expression, name in reversed(self.names.items()):
            if name in needed:
                kept.append(f"const {name} = {expression};")
                needed.update(re.findall(r"\bv\d+\b", expression))
        return "\n".join(reversed(kept))


class Array:
    """An array of any shape whose elements are expressions.

    Args:
        items: an array of strings: names or literals.
        dtype: ``"float64"`` or ``"bool"``.
    """

    device = None

    def __init__(self, script: Script, items: Any, dtype: str = "float64") -> None:
        self.script, self.items, self.dtype = script, np.asarray(items, object), dtype

    shape = property(lambda self: self.items.shape)
    ndim = property(lambda self: self.items.ndim)
    size = property(lambda self: self.items.size)
    T = property(lambda self: self.like(self.items.T))

    def like(self, items: Any) -> "Array":
        """Elements of this one, arranged otherwise."""
        return Array(self.script, items, self.dtype)

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return XP

    def reshaped(self, shape: tuple[int, ...]) -> "Array":
        return self.like(self.items.reshape(shape))

    def __getitem__(self, key: Any) -> "Array":
        return self.like(self.items[key])

    def __bool__(self) -> bool:
        raise Unwritable("it branches on an element's value")

    __float__ = __int__ = __index__ = __bool__
    __hash__ = object.__hash__

    def __neg__(self) -> "Array":
        return elementwise("negative", self)

    def __abs__(self) -> "Array":
        return elementwise("abs", self)

    def __invert__(self) -> "Array":
        return elementwise("logical_not", self)

    def __matmul__(self, other: "Array") -> "Array":
        rows = [[total(elementwise("multiply", a, b)) for b in other.T] for a in self]
        return self.like([[x.items.item() for x in row] for row in rows])

    def __iter__(self) -> Any:
        return (self[i] for i in range(self.shape[0]))


def literal(x: Any) -> str:
    """A Python number as JavaScript has it."""
    if isinstance(x, bool | np.bool_):
        return "true" if x else "false"
    x = float(x)
    if math.isfinite(x):
        return f"({x!r})" if x < 0 or str(x)[0] == "-" else repr(x)
    return "NaN" if math.isnan(x) else "Infinity" if x > 0 else "(-Infinity)"


def elementwise(op: str, *args: Any) -> Array:
    """A function of JavaScript over the elements, which are broadcast."""
    script = next(a.script for a in args if isinstance(a, Array))
    form = UNARY.get(op) or BINARY.get(op) or "{} ? {} : {}"
    items = [a.items if isinstance(a, Array) else np.asarray(literal(a), object) for a in args]
    made = np.frompyfunc(lambda *xs: script.value(form.format(*xs)), len(args), 1)(*items)
    return Array(script, made, "bool" if op in TRUTHS else "float64")


def total(x: Array, *, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> Array:
    """The sum, in order."""
    return reduced("add", x, axis, keepdims)


def reduced(op: str, x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    """Elements along axes (all, by default) made one by a function of two."""
    axes = range(x.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
    for k in sorted((a % x.ndim for a in axes), reverse=True):
        first, *rest = (x.like(np.take(x.items, [i], k)) for i in range(x.shape[k]))
        for one in rest:
            first = elementwise(op, first, one)
        x = first if keepdims else first.like(np.squeeze(first.items, k))
    return x


def mean(x: Array, *, axis: Any = None, keepdims: bool = False) -> Array:
    sums = total(x, axis=axis, keepdims=keepdims)
    return sums / (x.size / sums.size)


def tensordot(x: Array, y: Array, *, axes: Any) -> Array:
    a, b = ([k % v.ndim for k in one] for v, one in zip((x, y), axes, strict=True))
    left = np.moveaxis(x.items, a, range(-len(a), 0))
    right = np.moveaxis(y.items, b, range(len(b)))
    size = math.prod(left.shape[-len(a) :] if a else ())
    product = x.like(left.reshape(-1, size)) @ y.like(right.reshape(size, -1))
    return x.like(product.items.reshape(left.shape[: left.ndim - len(a)] + right.shape[len(b) :]))


def astype(x: Array, dtype: str, *, copy: bool = True) -> Array:
    """Truth values as numbers, or the other way round."""
    return x if x.dtype == dtype else elementwise("number" if dtype == "float64" else "truth", x)


def clip(x: Array, /, min: Any = None, max: Any = None) -> Array:
    x = x if min is None else XP.maximum(x, min)
    return x if max is None else XP.minimum(x, max)


def missing(name: str) -> Any:
    raise Unwritable(f"it calls {name}")


def filled(value: float) -> Any:
    return lambda x, **kwargs: x.like(np.full(x.shape, literal(value), object))


def asarray(x: Any, *, copy: Any = None, **kwargs: Any) -> Array:
    """A copy where one is asked for; there is no array for a number without a script."""
    return x.like(x.items)


class Info:
    @staticmethod
    def dtypes(*, kind: str) -> dict[str, str]:
        return {"float64": "float64"}


XP: Any = types.ModuleType("javascript", "The part of the Array API that rules call.")
XP.float32 = XP.float64 = "float64"
XP.bool, XP.inf, XP.nan, XP.pi, XP.e = "bool", math.inf, math.nan, math.pi, math.e
XP.__array_namespace_info__ = lambda: Info
XP.finfo = lambda dtype: np.finfo(np.float64)
XP.astype = astype
XP.zeros_like, XP.ones_like, XP.asarray = filled(0.0), filled(1.0), asarray
XP.sum, XP.mean, XP.tensordot, XP.clip = total, mean, tensordot, clip
XP.square = lambda x: x * x
XP.__getattr__ = missing
XP.max = lambda x, *, axis=None, keepdims=False: reduced("maximum", x, axis, keepdims)
XP.reshape = lambda x, shape: x.reshaped(shape)
XP.moveaxis = lambda x, a, b: x.like(np.moveaxis(x.items, a, b))
XP.matrix_transpose = lambda x: x.like(np.swapaxes(x.items, -1, -2))
XP.take = lambda x, indices, *, axis: x.like(np.take(x.items, indices, axis))
XP.flip = lambda x, *, axis: x.like(np.flip(x.items, axis))
XP.concat = lambda xs, *, axis=0: xs[0].like(np.concatenate([x.items for x in xs], axis))
for _op in (*UNARY, *BINARY, "where"):
    setattr(XP, _op, lambda *args, _op=_op: elementwise(_op, *args))
for _word, _op in OPERATORS.items():
    setattr(Array, f"__{_word}__", lambda a, b, _op=_op: elementwise(_op, a, b))
    setattr(Array, f"__r{_word}__", lambda a, b, _op=_op: elementwise(_op, b, a))
