"""Do all array libraries compute the same numbers? Run them and see.

Every rule walks the same fixed gradients on each library, and on NumPy in the same dtype and in
float64. Two distances to NumPy are taken after every step and the largest is kept:

- ``ulp``: in units in the last place of the element, over the parameters and every slot;
- ``eps``: in the dtype's eps times the largest magnitude that the element has had, over the
  parameters. It does not blow up where an element passes through 0.

What is promised is in :func:`bound`.
"""

import functools
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from . import backends, rules
from ._schema import each_step
from ._tree import Tree
from .optimizer import Optimizer

EXACT = ("numpy", "strict", "torch", "dask")  # eager, and rounded as IEEE 754 says
SUMS_EPS = 100.0  # sums over elements round differently in each library
CONTRACTED_EPS = 4.0  # compiled code may fuse a product and a sum, which saves one rounding
SHAPES = {"w": (37, 50), "b": (50,), "s": ()}  # enough to meet what one element in six shows


class Row(NamedTuple):
    """One rule on one library in one dtype; no distances where the library lacks a function."""

    rule: str
    backend: str
    dtype: str
    steps: int
    ulp: float | None  # largest distance to NumPy in the same dtype, parameters and slots
    eps: float | None  # the same over the parameters, in eps of each element's largest magnitude
    float64: float | None  # distance of the parameters to NumPy in float64, in eps likewise
    bound: str  # or what the library lacks
    kept: bool
    about: str  # the library's version and device


def bound(rule: str, backend: str, steps: int) -> tuple[str, float]:
    """What is promised: a unit, ``"ulp"`` or ``"eps"``, and how many of it.

    0 ulp for rules of + - * / sqrt and comparisons on libraries that compute each operation by
    itself; 4 eps where a compiler may contract them, or ``CONTRACTED_EPS`` beside the rule. For
    rules with exp or with sums over elements, ``PARITY_EPS`` beside the rule, or 100 for sums. All
    for 100 steps and in proportion for more.
    """
    found = rules.find(rule)
    sums = SUMS_EPS if hasattr(found, "measure") else None
    own: float | None = getattr(found, "PARITY_EPS", sums)
    if backend == "numpy":
        return "ulp", 0.0
    if own is not None:
        return "eps", own * max(1.0, steps / 100)
    if backend in EXACT:
        return "ulp", 0.0
    most = getattr(found, "CONTRACTED_EPS", CONTRACTED_EPS)
    return "eps", most * max(1.0, steps / 100)


def problem(steps: int, seed: int = 0) -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    """Parameters and gradients in float64; the gradients' scale differs from step to step.

    The parameters have the size of common weights. An element that starts much smaller than the
    steps that move it ends with more eps of its own magnitude, wherever products are contracted.
    """
    rng = np.random.default_rng(seed)
    sizes = {k: np.asarray(rng.uniform(0.5, 2.0, s)) for k, s in SHAPES.items()}
    params = {k: np.asarray(x * rng.choice([-1.0, 1.0], x.shape)) for k, x in sizes.items()}
    grads = []
    for _ in range(steps):  # those of fewer steps are the first of them
        scale = np.exp(2 * rng.standard_normal())
        grads.append({k: scale * np.asarray(rng.standard_normal(s)) for k, s in SHAPES.items()})
    grads[0]["w"][0] = 0.0  # no gradient in the first step
    return params, grads


def trajectory(rule: str, backend: str, dtype: str, steps: int) -> Iterator[list[np.ndarray]]:
    """Parameters, and then slots, after each step; each as a list of NumPy arrays."""
    library = backends.load(backend)
    np_dtype = numpy_dtype(dtype)
    params, grads = problem(steps)

    def there(tree: dict[str, np.ndarray]) -> dict[str, Any]:
        return {k: library.asarray(x.astype(np_dtype)) for k, x in tree.items()}

    with library.session(dtype):
        optimizer = Optimizer(rule)
        step = library.compiled(optimizer.step)
        p = there(params)
        state = library.settle(optimizer.init(p))
        for k, g in enumerate(grads):
            loss = 2 + k % 3 / 4  # for the rules that read it
            each = dict.fromkeys(each_step(optimizer.rule), loss)
            p, state = library.settle(step(p, there(g), state, **each))
            yield [library.asnumpy(x) for x in (*Tree(p).leaves, *Tree(state.slots).leaves)]


def run(
    names: Iterable[str] | None = None,
    on: Iterable[str] | None = None,
    dtypes: Iterable[str] = ("float32", "float64"),
    steps: int = 100,
) -> Iterator[Row]:
    """A row for each rule, library and dtype; all rules and all that is installed by default."""
    chosen = backends.installed() if on is None else list(on)
    for backend in chosen:
        backends.load(backend)
    for rule in rules.names() if names is None else names:
        wide = _on_numpy(rule, "float64", steps)
        for dtype in dtypes:
            same = _on_numpy(rule, dtype, steps)
            for backend in chosen:
                library = backends.load(backend)
                n = min(steps, getattr(library, "PARITY_STEPS", steps))
                if dtype in library.DTYPES:
                    yield _row(rule, backend, dtype, same[:n], wide[:n])


@functools.lru_cache(maxsize=4)
def _on_numpy(rule: str, dtype: str, steps: int) -> list[list[np.ndarray]]:
    return list(trajectory(rule, "numpy", dtype, steps))


def _row(
    rule: str, backend: str, dtype: str, same: list[list[np.ndarray]], wide: list[list[np.ndarray]]
) -> Row:
    steps, n = len(same), len(SHAPES)
    about = backends.load(backend).about()
    try:
        got = list(trajectory(rule, backend, dtype, steps))
    except AttributeError as error:
        if not isinstance(error.obj, ModuleType):
            raise
        lacks = f"has no {error.name}"  # Dask: eigh
        return Row(rule, backend, dtype, steps, None, None, None, lacks, True, about)
    eps = 2.0 ** -{"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}[dtype]
    largest = [np.abs(x) for x in Tree(problem(steps)[0]).leaves]
    ulp = to_numpy = to_wide = 0.0
    for now, want, exact in zip(got, same, wide, strict=True):
        largest = [np.maximum(a, np.abs(x)) for a, x in zip(largest, want[:n], strict=True)]
        ulp = max(ulp, *map(_ulp, now, want))
        to_numpy = max(to_numpy, *map(_relative, now[:n], want, largest))
        to_wide = max(to_wide, *map(_relative, now[:n], exact, largest))
    unit, most = bound(rule, backend, steps)
    distances = ulp, to_numpy / eps, to_wide / eps
    kept = distances[unit == "eps"] <= most
    return Row(rule, backend, dtype, steps, *distances, f"{most:g} {unit}", kept, about)


def numpy_dtype(name: str) -> Any:
    """NumPy's dtype of that name; ml_dtypes' for bfloat16."""
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def _ulp(got: np.ndarray, want: np.ndarray) -> float:
    """The largest number of representable values between two arrays of one dtype."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return np.inf
    if not np.array_equal(np.isnan(got), np.isnan(want)):
        return np.inf
    a, b = _ordered(got[~np.isnan(got)]), _ordered(want[~np.isnan(want)])
    return float(np.max(np.where(a > b, a - b, b - a), initial=0))


def _ordered(x: np.ndarray) -> np.ndarray:
    """Floats as unsigned integers in the same order, one apart where the floats are neighbours."""
    bits = (x + 0).view(f"u{x.itemsize}").astype(np.uint64)  # + 0 makes -0 and 0 the same
    top = np.uint64(1 << (8 * x.itemsize - 1))
    return np.where(bits & top, top - (bits & ~top), bits + top)


def _relative(got: np.ndarray, want: np.ndarray, scale: np.ndarray) -> float:
    distance = np.abs(got.astype(np.float64) - want.astype(np.float64))
    with np.errstate(all="ignore"):
        quotient = np.where(distance == 0, 0.0, distance / scale)
    return float(np.max(quotient, initial=0.0))
