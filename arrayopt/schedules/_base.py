"""What a schedule is: how it computes, and how its arguments are checked."""

# ruff: noqa: N801 (classes with the names of functions: repr shows what one writes)

import functools
import math
import numbers
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from .._math import widest
from .._namespace import cast, namespace
from .._schema import is_one_of
from .._types import Range, Scalar

Value: TypeAlias = Annotated[float, Range("(-inf, inf)")]
Size: TypeAlias = Annotated[float, Range("[0, inf)")]
Positive: TypeAlias = Annotated[float, Range("(0, inf)")]
Share: TypeAlias = Annotated[float, Range("[0, 1)")]
Inside: TypeAlias = Annotated[float, Range("(0, 1)")]
Steps: TypeAlias = Annotated[int, Range("[1, inf)")]
Wait: TypeAlias = Annotated[int, Range("[0, inf)")]
Shift: TypeAlias = Annotated[int, Range("(-inf, inf)")]
Inner: TypeAlias = Annotated[Any, "a function of the number of steps, or a number"]


class Numbers:
    """What a schedule computes with where the number of steps is a Python number."""

    cos, exp, sqrt = math.cos, math.exp, math.sqrt
    maximum, minimum, real = max, min, float

    @staticmethod
    def where(condition: bool, a: float, b: float) -> float:
        return a if condition else b

    @staticmethod
    def power(base: float, exponent: float) -> float:
        try:
            return base**exponent
        except OverflowError:  # as arrays have it
            return math.inf


class Arrays:
    """The same where it is an array: what it makes of numbers are floating arrays like it."""

    def __init__(self, count: Any) -> None:
        xp = self.xp = namespace(count)
        self.cos, self.exp, self.sqrt = xp.cos, xp.exp, xp.sqrt
        self.maximum, self.minimum = xp.maximum, xp.minimum
        self.like = cast(count, widest(xp.float32, xp=xp), xp)

    def real(self, x: Any) -> Any:
        if isinstance(x, numbers.Real):
            return self.xp.full_like(self.like, float(x))
        return cast(x, self.like.dtype, self.xp)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return self.xp.where(condition, self.real(a), self.real(b))

    def power(self, base: float, exponent: Any) -> Any:
        return self.exp(exponent * math.log(base))  # float32 would round the base: 0.999**1000


class Schedule:
    """A function of the number of steps taken; a subclass is a dataclass of its arguments."""

    def __call__(self, count: Any) -> Any:
        if isinstance(count, numbers.Integral):  # NumPy's too
            return self.at(int(count), Numbers)
        if isinstance(count, numbers.Real):
            return self.at(float(count), Numbers)
        return self.at(count, Arrays(count))

    def at(self, t: Scalar, xp: Any) -> Scalar:
        """The value after ``t`` steps, computed with :class:`Numbers` or :class:`Arrays`."""
        raise NotImplementedError

    def __mul__(self, other: Any) -> "product":
        return product(self, other)

    def __rmul__(self, other: Any) -> "product":
        return product(other, self)

    def __post_init__(self) -> None:
        cls: Any = type(self)
        for name, hint in _hints(cls).items():
            value = legal(f"{cls.__name__}: {name}", hint, getattr(self, name))
            object.__setattr__(self, name, value)  # the dataclass may be frozen


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def legal(what: str, hint: Any, value: Any) -> Any:
    """An argument, checked and converted as its type hint says."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        if value is None:
            return None
        hint = typing.get_args(hint)[0]
    if hint is bool or typing.get_origin(hint) is Literal:
        choices = (False, True) if hint is bool else typing.get_args(hint)
        if not is_one_of(choices, value):
            raise ValueError(f"{what} must be {' or '.join(map(repr, choices))}, got {value!r}")
        return value
    mark = getattr(hint, "__metadata__", (None,))[0]
    if mark is None:
        return value  # not an argument, or the class checks it itself
    if isinstance(mark, str):
        if callable(value):
            return value
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise ValueError(f"{what} must be {mark}, got {value!r}")
        return constant(float(value))
    whole = hint.__origin__ is int
    of: Any = numbers.Integral if whole else numbers.Real
    if isinstance(value, bool) or not isinstance(value, of) or value not in mark:
        noun = "an integer" if whole else "a number"
        raise ValueError(f"{what} must be {noun} in {mark}, got {value!r}")
    return hint.__origin__(value)


def by_step(what: str, given: Any, at: Any, of: Any) -> tuple[tuple[Any, Any], ...]:
    """A mapping from steps to numbers, checked, as pairs in the order of the steps."""
    try:
        rows = sorted(dict(given).items())
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be a dict from steps to numbers, got {given!r}") from None
    return tuple(
        (legal(f"{what}: a step", at, t), legal(f"{what}: at step {t}", of, x)) for t, x in rows
    )


@dataclass(frozen=True)
class constant(Schedule):
    """``value`` at every step."""

    value: Value

    def at(self, t: Scalar, xp: Any) -> Scalar:
        return xp.real(self.value)


@dataclass(frozen=True, init=False, repr=False)
class product(Schedule):
    """The product of its factors; ``a * b`` makes one."""

    factors: tuple[Any, ...]

    def __init__(self, *factors: Inner) -> None:
        checked = (legal("product: a factor", Inner, f) for f in factors)
        object.__setattr__(self, "factors", tuple(checked))

    def __repr__(self) -> str:
        return f"product({', '.join(map(repr, self.factors))})"

    def at(self, t: Scalar, xp: Any) -> Scalar:
        found = xp.real(1.0)
        for factor in self.factors:
            found = found * xp.real(factor(t))
        return found
