"""What the contestants of :mod:`arrayopt.bench` are given; and the roof, which is one of them.

The roof of a rule is a loop that reads the arrays that the rule reads and writes those that it
writes, and only adds.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import rules
from .._schema import each_step, hyperparameters, rounds
from .._step import is_off
from ..fuse import cpu, engine
from ..fuse.program import Program
from ..fuse.symbols import Graph
from ..fuse.trace import signature, trace
from ..optimizer import Optimizer


class Entry(NamedTuple):
    """A contestant at the start."""

    step: Callable[[], None]  # one step, done when it returns
    feed: Callable[[], None]  # gradients at new addresses for the next step
    params: Callable[[], list[np.ndarray]]  # as they are now


class Problem:
    """What every contestant is given: a rule, parameters and gradients.

    Args:
        params, grads: float64 for float64, float32 for float32 and bfloat16.
    """

    def __init__(
        self, rule: str, dtype: str, threads: int, params: list[np.ndarray], grads: list[np.ndarray]
    ) -> None:
        self.rule, self.dtype, self.threads = rule, dtype, threads
        self.params, self.grads = params, grads
        self.hyper = {k: h.default for k, h in hyperparameters(rules.find(rule)).items()}
        self._stack = contextlib.ExitStack()

    def close(self) -> None:
        """End what the contestants began."""
        self._stack.close()

    @functools.cached_property
    def torch_grads(self) -> list[Any]:
        return self.tensors(self.grads)

    def tensors(self, arrays: list[np.ndarray]) -> list[Any]:
        """In torch's own memory: NumPy asks for huge pages, where the system gives them."""
        import torch

        return [torch.tensor(x, dtype=getattr(torch, self.dtype)) for x in arrays]

    @functools.cached_property
    def jax_grads(self) -> list[Any]:
        self.jax()
        return self.jax_arrays(self.grads)

    def jax_arrays(self, arrays: list[np.ndarray]) -> list[Any]:
        return [self.jax().numpy.array(x) for x in arrays]

    def jax(self) -> Any:
        """The module; in 64-bit mode for float64, until the end."""
        import jax

        if self.dtype == "float64" and not jax.config.jax_enable_x64:
            self._stack.enter_context(jax.enable_x64(True))
        return jax


@contextlib.contextmanager
def same_threads(n: int) -> Iterator[None]:
    """So many threads for every contestant whose library is not at work yet."""
    wanted = {"NPROC": str(n), "JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "jax"}  # NPROC: XLA's
    before = {k: os.environ.get(k) for k in wanted}
    os.environ.update(wanted)
    torch: Any = _torch()
    threads = torch and torch.get_num_threads()
    if torch:
        torch.set_num_threads(n)
    try:
        yield
    finally:
        if torch:
            torch.set_num_threads(threads)
        for k, v in before.items():
            os.environ.pop(k) if v is None else os.environ.update({k: v})


def _torch() -> Any:
    """The module; None if it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch


def roof_program(program: Program) -> Program:
    """A program of the same arrays: what it stores, or sums, is the sum of all that it reads."""
    graph, reads = Graph(), {node.data for node in program.nodes if node.op == "input"}
    inputs = [x for x in program.inputs if not x.single]  # one value for all costs nothing
    arrays: dict[str, Any] = {x.name: graph.input(*x) for x in inputs}
    dtypes = {x.name: x.dtype for x in inputs}
    wide = "float64" if "float64" in dtypes.values() else "float32"
    total, *rest = (graph.lift(arrays[x.name], wide) for x in inputs if x.name in reads)
    for x in rest:
        total = total + x  # type: ignore[operator]
    stores = {name: graph.lift(total, dtypes[name]) for name, _ in program.stores}
    return graph.program(stores, {"all": graph.sum(total)} if program.sums else {})


def roof(problem: Problem, torch: bool) -> Entry:
    """All programs of the rule's step, one after the other, as their roofs."""
    grads = problem.torch_grads if torch else problem.grads
    params = problem.tensors(problem.params) if torch else [x.copy() for x in problem.params]
    optimizer = Optimizer(problem.rule)
    state = optimizer.init(params)
    told = dict.fromkeys(each_step(optimizer.rule), 1.0)
    plan, held, runs = optimizer.plan(params, grads, state, told), [], []
    sig = signature(optimizer.around, plan.parts[0])
    for part in plan.parts:
        held.append([part.param, part.grad, *(s for s in part.slots if not is_off(s))])
    rows = [[*(x.data_ptr() if torch else cpu.address(x) for x in xs), 0] for xs in held]
    sizes = np.array([x.size for x in problem.params])
    table = cpu.Table(np.array(rows, np.int64), sizes)
    for what in (*rounds(optimizer.rule), "move"):
        program = roof_program(trace(what, optimizer.around, sig, state.shared))
        kernel = cpu.Kernel(program, engine.columns(optimizer.rule, sig))
        runs.append(cpu.Run(kernel, table))

    def step() -> None:
        for run in runs:
            run([{}], problem.threads)

    return Entry(step, lambda: None, lambda: [np.asarray(xs[0]) for xs in held])
