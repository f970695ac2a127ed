"""Fixtures: the array libraries, the rules, and a little data."""

import gc
import importlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import arrayopt as ao
from arrayopt import backends
from arrayopt._step import is_elementwise

EAGER = ("numpy", "strict", "torch")
SEED_RULES = (
    "adamax",
    "mada",
    "madam",
    "maxva_lamadam",
    "maxva_madam",
    "simplified_ademamix",
)
# What the exhaustive tests of the machinery run over, each for what it alone asks of it; what every
# rule promises is in test_every_rule.py. Rules that need the loss in each step are only there.
REPRESENTATIVE = (
    "adam",  # the plain one, and what most of the others are near to
    "adan",  # a slot that holds the gradient itself
    "lamb",  # sums over each parameter
    "mada",  # state of the whole optimizer, learned from sums over everything
    "madam",  # exp, and a 0-d slot that stays
    "maxva_madam",  # a slot that is off, and the most of them
    "muon",  # whole arrays: no loop over elements
    "novograd",  # a 0-d slot that each step changes
    "prodigy",  # sums, state of the whole optimizer, and a slot of the first parameters
    "schedule_free_adamw",  # other parameters to evaluate with
    "sgd",  # no slots
)
# Those over which a kernel is compiled for many devices, taken apart and interpreted; every other
# rule that can be a kernel is compiled and run once.
TRACED_RULES = (
    "adam",
    "adamax",
    "adan",
    "amsgrad",
    "avgrad",
    "lamb",  # sums over each parameter
    "laprop",
    "mada",  # pow, and sums over everything
    "madam",
    "maxva_lamadam",
    "maxva_madam",
    "novograd",  # sums over each parameter, and a 0-d slot made of them
    "prodigy",  # sums that need the shared state
    "schedule_free_adamw",  # pow of 0-d slots that change
    "sgd",
    "simplified_ademamix",
    "yogi",
)


def adapter(name: str) -> Any:
    """A backend's adapter. At home a missing library skips the test; in CI it fails it."""
    try:
        return backends.load(name)
    except ImportError:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{name} is not installed")


def package(name: str) -> Any:
    """A package that tests use. At home its lack skips the test; in CI it fails it."""
    return importlib.import_module(name) if os.environ.get("CI") else pytest.importorskip(name)


def once(factory: pytest.TempPathFactory, name: str, run: Callable[[Path], None]) -> Path:
    """A folder that ``run`` has filled: once, where pytest-xdist has several processes."""
    root = factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / name
    done, error = folder / "done", None
    try:
        folder.mkdir()
    except FileExistsError:
        end = time.monotonic() + 280
        while not done.exists() and time.monotonic() < end:
            time.sleep(0.1)
    else:
        try:
            run(folder)
        except BaseException as e:
            error = e
        partial = folder / "partial"
        partial.write_text("" if error is None else repr(error))
        partial.rename(done)
    if error is not None:
        raise error
    assert done.read_text() == ""
    return folder


@pytest.fixture(autouse=True, scope="module")
def old() -> None:
    """What was there before a file's tests is not gone through by each collection of garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["numpy", "strict", "torch", "jax", "dask", "mlx"])
def backend(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each array library in turn, ready for float32."""
    module = adapter(request.param)
    with module.session("float32"):
        yield module


@pytest.fixture(params=REPRESENTATIVE, scope="session")
def rule(request: pytest.FixtureRequest) -> str:
    """The name of each of ``REPRESENTATIVE`` in turn."""
    return str(request.param)


@pytest.fixture
def elementwise(rule: str) -> None:
    """Skips what has no sense for a rule that works on whole arrays."""
    if not is_elementwise(ao.rules.find(rule)):
        pytest.skip("it works on whole arrays")


def sums(rule: str) -> bool:
    """Whether a rule sums over elements, so that one of them is in the numbers of all."""
    return hasattr(ao.rules.find(rule), "measure")


def data(seed: int = 0, steps: int = 10, shape: tuple[int, ...] = (4, 7)) -> Any:
    """Read-only parameters and gradients in float64; their scales differ from step to step."""
    rng = np.random.default_rng(seed)
    params = {"w": rng.standard_normal(shape), "b": [rng.standard_normal(shape[-1:])]}
    scale = np.exp(rng.standard_normal(steps))
    grads = [
        {"w": s * rng.standard_normal(shape), "b": [s * rng.standard_normal(shape[-1:])]}
        for s in scale
    ]
    for tree in (params, *grads):
        for x in (tree["w"], tree["b"][0]):
            x.flags.writeable = False
    return params, grads
