"""What a rule for real arrays computes with where they are complex: squares are of the modulus."""

import functools
import operator
from typing import Any

import numpy as np

from ._namespace import cast, copied, device, dtype_name, is_array, library
from ._types import Namespace

REAL = {"complex64": "float32", "complex128": "float64"}
COMPLEX = {real: name for name, real in REAL.items()}
# what a rule may do with complex values; abs and square give the real modulus and its square
KEEPING = frozenset(("abs", "add", "asarray", "astype", "broadcast_to", "divide", "eq", "isfinite",
    "isinf", "isnan", "mul", "multiply", "ne", "neg", "negative", "positive", "reshape", "square",
    "sub", "subtract", "truediv", "where"))  # fmt: skip


def is_complex(x: Any) -> bool:
    """Whether ``x`` is an array of complex64 or complex128."""
    return is_array(x) and dtype_name(x.dtype) in REAL


def complex_of(dtype: Any, xp: Namespace) -> Any:
    """The complex dtype whose two reals are of ``dtype``."""
    if (name := dtype_name(dtype)) not in COMPLEX:
        raise TypeError(f"there are no complex arrays of {name}")
    return getattr(xp, COMPLEX[name])


class Modulus:
    """A real or complex array, as a rule for reals sees it: squares are those of the modulus."""

    xp: Namespace  # a class for each namespace has its own
    __array_ufunc__ = None  # NumPy's scalars leave it to us

    def __init__(self, data: Any) -> None:
        self.data = data
        self.shape, self.ndim = tuple(data.shape), len(data.shape)

    def __array_namespace__(self, *, api_version: str | None = None) -> Namespace:
        return self.xp

    @property
    def dtype(self) -> Any:
        """The real one."""
        name = dtype_name(self.data.dtype)
        return _dtype(self.xp.over, REAL[name]) if name in REAL else self.data.dtype

    @property
    def device(self) -> Any:
        return device(self.data, self.xp.over)

    def clone(self) -> Any:
        return type(self)(copied(self.data, self.xp.over))


def _operators() -> None:
    for name in ("add", "sub", "mul", "truediv", "pow", "eq", "ne", "lt", "le", "gt", "ge"):
        f = getattr(operator, f"__{name}__")
        setattr(Modulus, f"__{name}__", lambda a, b, f=f, n=name: a.xp.call(n, f, a, b))
        setattr(Modulus, f"__r{name}__", lambda a, b, f=f, n=name: a.xp.call(n, f, b, a))
    for name in ("neg", "abs"):
        f = getattr(operator, f"__{name}__")
        setattr(Modulus, f"__{name}__", lambda a, f=f, n=name: a.xp.call(n, f, a))


_operators()


class ByModulus:
    """The namespace of ``Modulus`` arrays over another one, by whose name it goes."""

    def __init__(self, over: Namespace) -> None:
        self.over, self.__name__ = over, library(over)
        self.Modulus = type("Modulus", (Modulus,), {"xp": self})

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.over, name)
        free = callable(value) and not isinstance(value, type)  # dtypes are types in some
        return functools.partial(self.call, name, value) if free else value

    def call(self, name: str, function: Any, *args: Any, **how: Any) -> Any:
        """A function of the namespace or an operator; TypeError where modulus does not tell."""
        data, xp = [plain(a) for a in args], self.over
        if any(map(is_complex, _flat(data))):
            twice = name in ("mul", "multiply") and args[0] is args[1]
            if twice or name == "square" or (name == "pow" and _is_two(args[1])):
                return self.seen(xp.real(data[0]) ** 2 + xp.imag(data[0]) ** 2)
            if name in ("zeros_like", "ones_like"):
                data = [xp.real(data[0])]
            elif name not in KEEPING:
                raise TypeError(f"it takes {name} of complex values")
        return self.seen(function(*data, **how))

    def seen(self, x: Any) -> Any:
        """What the rule sees in the place of an array; truth values are themselves."""
        x = np.asarray(x) if isinstance(x, np.generic) else x
        return self.Modulus(x) if is_array(x) and "bool" not in str(x.dtype) else x

    def complex(self, x: Modulus) -> Modulus:
        """A real array as a complex one."""
        return self.Modulus(cast(x.data, complex_of(x.dtype, self.over), self.over))

    def astype(self, x: Any, dtype: Any) -> Any:
        """Another precision: a complex array stays so."""
        data = plain(x)
        wide = complex_of(dtype, self.over) if is_complex(data) else dtype
        return self.seen(cast(data, wide, self.over))


by_modulus = functools.cache(ByModulus)  # a namespace is one object


@functools.cache
def _dtype(xp: Namespace, name: str) -> Any:
    """A dtype as arrays have it; NumPy's and JAX's namespaces hold what makes one."""
    return xp.zeros(0, dtype=getattr(xp, name)).dtype


def plain(x: Any) -> Any:
    """The array itself, or a list of such."""
    if isinstance(x, list | tuple):
        return type(x)(map(plain, x))
    return x.data if isinstance(x, Modulus) else x


def _flat(x: Any) -> list[Any]:
    """Lists of lists as one list."""
    return [y for part in x for y in _flat(part)] if isinstance(x, list | tuple) else [x]


def _is_two(x: Any) -> bool:
    return isinstance(x, int | float) and x == 2
