"""A device of host memory: it takes the place of ``arrayopt.fuse.cuda_driver``.

Its kernels are those that a GPU would be given, compiled by g++ or, as PTX, interpreted.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import ptx
import pytest

from arrayopt.fuse import cuda, cuda_driver, cuda_source

Function = Callable[[tuple[int], tuple[int], tuple[Any, ...]], None]

PRELUDE = r"""
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <utility>
#define __global__ static
#define __device__ static
#define __shared__ static
#define __launch_bounds__(n)
#define __builtin_assume(x)
struct Index { unsigned x; };
static Index threadIdx, blockIdx, gridDim;
static float __uint_as_float(unsigned x) { float y; memcpy(&y, &x, 4); return y; }
static unsigned __float_as_uint(float x) { unsigned y; memcpy(&y, &x, 4); return y; }
static double __longlong_as_double(long long x) { double y; memcpy(&y, &x, 8); return y; }
template <class T> static unsigned short half_bits(T x) {
  const _Float16 y = (_Float16)x;
  unsigned short z;
  memcpy(&z, &y, 2);
  return z;
}
static float half_value(unsigned short x) { _Float16 y; memcpy(&y, &x, 2); return (float)y; }
template <class... A, size_t... I>
static void call(void (*f)(A...), void** args, std::index_sequence<I...>) {
  f(*(A*)args[I]...);
}
template <class... A> static void call(void (*f)(A...), void** args) {
  call(f, args, std::index_sequence_for<A...>());
}
static void (*body)(void**);
static void** args;
static ucontext_t host, *thread;
static unsigned done;
static void __syncthreads() { swapcontext(thread, &host); }
static void one() { body(args); ++done; }
static void meeting(unsigned block) {  // each thread up to the barrier, then each to the next one
  const size_t stack = 1 << 15;
  char* stacks = (char*)malloc(block * stack);
  ucontext_t* threads = (ucontext_t*)malloc(block * sizeof(ucontext_t));
  for (unsigned t = 0; t < block; ++t) {
    getcontext(&threads[t]);
    threads[t].uc_stack.ss_sp = stacks + t * stack;
    threads[t].uc_stack.ss_size = stack;
    threads[t].uc_link = &host;
    makecontext(&threads[t], one, 0);
  }
  for (done = 0; done < block;) {
    if (done) abort();  // not all of them came to the barrier
    for (threadIdx.x = 0; threadIdx.x < block; ++threadIdx.x) {
      thread = &threads[threadIdx.x];
      swapcontext(&host, thread);
    }
  }
  free(threads);
  free(stacks);
}
static void all(void (*f)(void**), unsigned grid, unsigned block, void** given, bool meet) {
  body = f, args = given, gridDim.x = grid;
  for (blockIdx.x = 0; blockIdx.x < grid; ++blockIdx.x) {
    if (meet) meeting(block);
    else for (threadIdx.x = 0; threadIdx.x < block; ++threadIdx.x) body(args);
  }
}
"""
FLAGS = ("-std=c++14", "-O0", "-ffp-contract=off", "-w", "-shared", "-fPIC")  # quick to compile


def compiler() -> str:
    """g++; without it, tests are skipped at home and fail in CI."""
    found = shutil.which("g++")
    if found is None:
        if os.environ.get("CI"):
            raise RuntimeError("g++ is not installed")
        pytest.skip("g++ is not installed")
    return found


def native(sources: list[str], folder: Path) -> list[Function]:
    """Kernels compiled by g++, each as a function of grid, block and arguments."""
    parts = [PRELUDE]
    for k, source in enumerate(sources):
        for name in ("half_value", "half_bits"):  # of PTX instructions
            source = source.replace(cuda_source.CONVERSIONS[name], "")
        meet = "true" if "__syncthreads" in source else "false"
        parts.append(f"namespace n{k} {{")
        parts.append(source.replace('extern "C"', ""))
        parts.append("void body(void** args) { call(kernel, args); } }")
        parts.append(f'extern "C" void launch{k}(unsigned grid, unsigned block, void** args) {{')
        parts.append(f"  all(n{k}::body, grid, block, args, {meet}); }}")
    text = "\n".join(parts)
    library = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            (Path(work) / "kernel.cpp").write_text(text)
            output = Path(work) / "kernel.so"
            command = [compiler(), *FLAGS, "kernel.cpp", "-o", str(output)]
            done = subprocess.run(command, cwd=work, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            output.rename(library)
    loaded = ctypes.CDLL(str(library))
    return [functools.partial(_native, loaded[f"launch{k}"]) for k in range(len(sources))]


def _native(launch: Any, grid: tuple[int], block: tuple[int], args: tuple[Any, ...]) -> None:
    held = [ctypes.create_string_buffer(raw(x), 8) for x in args]
    pointers = (ctypes.c_void_p * len(held))(*[ctypes.addressof(x) for x in held])
    launch(grid[0], block[0], pointers)


def raw(x: Any) -> bytes:
    """An argument as a kernel gets it: a number's bytes, or an array's address."""
    if isinstance(x, np.generic):
        return x.tobytes()
    return np.uint64(address(x)).tobytes()


def address(x: Any) -> int:
    return x.ctypes.data if isinstance(x, np.ndarray) else x.data.ptr


class Compiled(NamedTuple):
    """What NVRTC made of a source."""

    ptx: str
    log: str


@functools.cache
def nvrtc(source: str, arch: int, options: tuple[str, ...] = cuda_driver.OPTIONS) -> Compiled:
    """PTX and the assembler's report for an architecture; no GPU is needed."""
    from cupy.cuda import nvrtc as library

    program = library.createProgram(source, "arrayopt.cu", (), ())
    arguments = (f"--gpu-architecture=sm_{arch}", "--ptxas-options=-v", *options)
    try:
        library.compileProgram(program, arguments)
        text = library.getPTX(program)
        found = text if isinstance(text, str) else text.decode()
        return Compiled(found.strip("\0"), library.getProgramLog(program))
    except library.NVRTCError:
        raise AssertionError(library.getProgramLog(program)) from None
    finally:
        library.destroyProgram(program)


class Launch(NamedTuple):
    source: str
    grid: int
    block: int
    args: tuple[Any, ...]


class Device:
    """The calls of ``cuda_driver``, on host memory.

    Args:
        kernels: makes a function of a source.

    Attributes:
        launches, sends: what there was so far.
        memories: what each launch did to memory, where PTX is interpreted.
        now: what stands for the current stream.
    """

    def __init__(self, kernels: Callable[[str, "Device"], Function]) -> None:
        self._kernels = kernels
        self.launches: list[Launch] = []
        self.memories: list[ptx.Memory] = []
        self.sends: list[np.ndarray] = []
        self.fetches: list[int] = []  # how many numbers
        self.now = 0
        self.arrays: list[np.ndarray] = []  # memory that kernels may touch
        self.wrap: Callable[[np.ndarray], Any] = lambda x: x

    def loaded(self, source: str, device: int) -> Function:
        run = self._kernels(source, self)

        def function(grid: tuple[int], block: tuple[int], args: tuple[Any, ...]) -> None:
            assert grid[0] > 0  # CuPy would launch one block
            self.launches.append(Launch(source, *grid, *block, args))
            run(grid, block, args)

        return function

    def on(self, device: int) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def stream(self) -> int:
        return self.now

    def sent(self, x: np.ndarray) -> Any:
        self.sends.append(x.copy())
        return self._new(x.copy())

    def empty(self, count: int) -> Any:
        return self._new(np.full(count, np.nan))

    def address(self, x: Any) -> int:
        return address(x)

    def fetched(self, x: Any) -> np.ndarray:
        self.fetches.append(x.size)
        low = address(x)
        for y in self.arrays:
            start = low - y.ctypes.data
            if y.dtype == np.float64 and start >= 0 and start + 8 * x.size <= y.nbytes:
                return y[start // 8 : start // 8 + x.size].copy()
        return np.empty(0)

    def _new(self, x: np.ndarray) -> Any:
        self.arrays.append(x)
        return self.wrap(x)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "Device":
        for name in ("loaded", "on", "stream", "sent", "empty", "address", "fetched"):
            monkeypatch.setattr(cuda_driver, name, getattr(self, name))
        return self


def by_gpp(folder: Path) -> Callable[[str, Device], Function]:
    """Kernels compiled by g++."""

    @functools.cache
    def made(source: str) -> Function:
        return native([source], folder)[0]

    return lambda source, device: made(source)


def by_ptx(
    arch: int, options: tuple[str, ...] = cuda_driver.OPTIONS
) -> Callable[[str, Device], Function]:
    """Kernels compiled to PTX by NVRTC and interpreted."""

    @functools.cache
    def made(source: str) -> ptx.Kernel:
        return ptx.Kernel(nvrtc(source, arch, options).ptx)

    def function(source: str, device: Device) -> Function:
        def run(grid: tuple[int], block: tuple[int], args: tuple[Any, ...]) -> None:
            device.memories.append(ptx.Memory(device.arrays))
            made(source)(grid[0], block[0], [raw(x) for x in args], device.memories[-1])

        return run

    return function


@contextlib.contextmanager
def chunks_of(count: int) -> Iterator[None]:
    """Small chunks, for small arrays to have several."""
    before, cuda.CHUNK = cuda.CHUNK, count
    try:
        yield
    finally:
        cuda.CHUNK = before
