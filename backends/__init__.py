"""One adapter per framework; each loads its own framework only.

Every adapter module offers ``asarray`` (from NumPy), ``asnumpy`` (to NumPy), ``about`` (version and
device), ``session`` (what has to hold while it computes in a dtype), ``compiled`` (a function
made fast, or as it is), ``settle`` (lazy arrays computed), ``engines`` (what carries out an
optimizer's steps) and ``DTYPES``.
"""

import importlib
import importlib.util
from typing import Any

if __name__ != "arrayopt.backends":
    raise ImportError("import arrayopt.backends, not backends")

# the adapter, the package that it adapts, the extra that installs it
PACKAGES = {
    "numpy": ("numpy", None),
    "strict": ("array_api_strict", "test"),
    "torch": ("torch", "torch"),
    "jax": ("jax", "jax"),
    "dask": ("dask.array", "dask"),
    "mlx": ("mlx.core", "mlx"),
    "cupy": ("cupy", "cupy"),
}


def load(name: str) -> Any:
    """The adapter of that name, or an error that says what to install."""
    if name not in PACKAGES:
        raise ValueError(f"no backend is named {name!r}; there are {', '.join(PACKAGES)}")
    package, extra = PACKAGES[name]
    try:
        return importlib.import_module(f"arrayopt.backends.{name}")
    except ImportError as error:
        why = error.__cause__ or error  # without the adapter's own hint
        raise ImportError(
            f'the backend {name} needs {package}: pip install "arrayopt[{extra}]" ({why})'
        ) from error


def available() -> list[str]:
    """The backends whose framework is installed."""
    found = []
    for name in PACKAGES:
        try:
            load(name)
        except ImportError:
            continue
        found.append(name)
    return found


def installed() -> list[str]:
    """The backends that run here; CuPy only where it finds a GPU."""
    return [name for name in available() if load(name).usable()]
