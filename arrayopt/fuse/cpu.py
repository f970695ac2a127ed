"""Programs compiled by LLVM: one loop over all parameters, in place, on every core.

llvmlite (the extra ``fast``) compiles a program in some 20 ms, so nothing is kept on disk.
"""

import ctypes
import functools
import importlib.util
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from . import ir
from .program import Program, chunks

CHUNK = 1 << 16  # elements, at most, that a thread takes at a time
ALONE = 1 << 16  # elements up to which one thread is done before another has woken up


class Table:
    """Where the arrays of many parameters lie.

    Args:
        rows: int64, a row for each parameter: the address of each of its arrays, in the order of
            the kernel's columns, and at last the number of its set of scalars.
        sizes: int64, the number of elements of each parameter.
    """

    def __init__(self, rows: np.ndarray, sizes: np.ndarray) -> None:
        self.rows, self.size = rows, int(sizes.sum())
        self.chunks = chunks(sizes, CHUNK)


class Kernel:
    """A compiled program.

    Args:
        columns: where in a row of a table the address of each input is.
        speed: how far LLVM optimises, from 0 to 3.
    """

    def __init__(self, program: Program, columns: dict[str, int], *, speed: int = 3) -> None:
        self.program = program
        module, machine = compiled(ir.source(program, columns), speed)
        self._engine = _llvm().create_mcjit_compiler(module, machine)
        self._engine.finalize_object()
        self.function = self._engine.get_function_address("kernel")


class Run:
    """A kernel over a table, as often as it is called.

    Args:
        sets: how many sets of scalars its rows take.

    Attributes:
        partials: the sums over each chunk, float64, of the last call.
    """

    def __init__(self, kernel: Kernel, table: Table, sets: int = 1) -> None:
        self.program, self.table = kernel.program, table
        self._kernel = kernel  # its code is in memory as long as it is
        self._call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(kernel.function)
        self.partials = np.empty((len(table.chunks), len(self.program.sums)))
        self._counter = np.empty(1, np.int64)
        self._sets = np.empty((sets, len(self.program.scalars)))
        arrays = (table.rows, table.chunks, self._sets, self.partials, self._counter)
        self._given = np.array([*map(address, arrays), len(table.chunks)], np.int64)
        self._argument = address(self._given)

    def __call__(self, sets: list[dict[str, Any]], threads: int) -> np.ndarray:
        """Run it; returns ``partials``.

        Args:
            sets: by name, the numbers of which the host computes the scalars of each set.
            threads: at most so many at work.
        """
        host, reads = self.program.host, self.program.reads
        for i, one in enumerate(sets):
            self._sets[i] = host(*[one[name] for name in reads])
        self._counter[0] = 0
        if self.table.size <= ALONE or threads == 1:
            self._call(self._argument)
        else:
            at_once = min(threads, len(self.table.chunks))
            _crew()(self._call, self._kernel.function, self._argument, at_once)
        return self.partials


Call = Callable[[int], None]


def _crew() -> Callable[[Call, int, int, int], None]:
    """What calls a function, given also by its address, with a pointer, on threads at once.

    torch's threads (OpenMP's) go on spinning for a while after each of its operations: any others
    would have to share the cores with them.
    """
    return _torch_crew() if "torch" in sys.modules and os.getpid() == _PROCESS else _own_crew


def _own_crew(call: Call, address: int, argument: int, threads: int) -> None:
    """This process's threads; the calling one takes a share, and Python's lock is not held."""
    waiting = [_pool().submit(call, argument) for _ in range(threads - 1)]
    call(argument)
    for one in waiting:
        one.result()


@functools.cache
def _torch_crew() -> Callable[[Call, int, int, int], None]:
    name = f"libtorch_cpu{'.dylib' if sys.platform == 'darwin' else '.so'}"
    library = Path(sys.modules["torch"].__file__ or "").with_name("lib") / name
    try:
        start = ctypes.CDLL(str(library)).GOMP_parallel
    except (OSError, AttributeError):
        return _own_crew
    start.restype, start.argtypes = None, [ctypes.c_void_p] * 2 + [ctypes.c_uint] * 2
    return lambda call, address, argument, threads: start(address, argument, threads, 0)


_PROCESS = os.getpid()  # OpenMP's threads do not follow a fork


def _field() -> int | None:
    """Where in an array's object the address of its memory is; None if not where we know it.

    NumPy's ABI has it first after the object's head. ``x.ctypes.data`` is eight times slower.
    """
    probe = np.empty(3)
    offset = object.__basicsize__
    try:
        found = ctypes.c_void_p.from_address(id(probe) + offset).value == probe.ctypes.data
    except ValueError:
        return None
    return offset if found else None


_FIELD = _field()


def address(x: np.ndarray) -> int:
    """Where the first element of an array is."""
    if _FIELD is None:
        return int(x.ctypes.data)
    return ctypes.c_void_p.from_address(id(x) + _FIELD).value or 0


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, cores() - 1), "arrayopt")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads stay with the parent


@functools.cache
def missing() -> str | None:
    """What has to be installed before anything can be compiled; None if all is there."""
    if importlib.util.find_spec("llvmlite") is None:
        return 'llvmlite is not installed; pip install "arrayopt[fast]"'
    return None


@functools.cache
def _llvm() -> Any:
    """llvmlite's binding; ImportError where it is not installed."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


def compiled(source: str, speed: int = 3) -> tuple[Any, Any]:
    """A module's text as LLVM has optimised it, and the machine that it is for."""
    llvm = _llvm()
    module = llvm.parse_assembly(source)
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=speed
    )
    tuning = llvm.create_pipeline_tuning_options(speed_level=speed)
    tuning.loop_vectorization = tuning.loop_unrolling = True
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(module, passes)
    return module, machine
