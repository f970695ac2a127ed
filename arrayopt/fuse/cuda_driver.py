"""What only CUDA's compiler and driver can do, by way of CuPy."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

# CuPy's own compiler always adds -ftz=true, which makes subnormal numbers 0
OPTIONS = ("--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")


@functools.cache
def _cupy() -> Any:
    """CuPy, whose driver API this goes by; ImportError where it is not installed."""
    import cupy

    return cupy


def compiled(source: str, capability: int) -> bytes:
    """Machine code for a device of that compute capability (90 for 9.0), or PTX for a newer one."""
    nvrtc = _cupy().cuda.nvrtc
    known = nvrtc.getSupportedArchs()
    newest = max(x for x in known if x <= capability)
    exact = capability in known
    arch = f"--gpu-architecture={'sm' if exact else 'compute'}_{newest}"
    program = nvrtc.createProgram(source, "arrayopt.cu", (), ())
    try:
        nvrtc.compileProgram(program, (arch, *OPTIONS))
        return (nvrtc.getCUBIN if exact else nvrtc.getPTX)(program)
    except nvrtc.NVRTCError:
        raise RuntimeError(f"NVRTC: {nvrtc.getProgramLog(program)}") from None
    finally:
        nvrtc.destroyProgram(program)


@functools.cache
def loaded(source: str, device: int) -> Callable[..., None]:
    """The kernel in a source, as a function of grid, block and arguments, on the current device."""
    cupy = _cupy()
    module = cupy.cuda.function.Module()
    module.load(compiled(source, int(cupy.cuda.Device(device).compute_capability)))
    return module.get_function("kernel")


def on(device: int) -> contextlib.AbstractContextManager[Any]:
    """Where ``device`` is the current one."""
    return _cupy().cuda.Device(device)


def stream() -> Any:
    """The current stream of the current device."""
    return _cupy().cuda.get_current_stream()


def sent(x: np.ndarray) -> Any:
    """A copy on the device, by way of pinned memory: the host does not wait."""
    return _cupy().asarray(x)


def empty(count: int) -> Any:
    """Memory for so many sums."""
    return _cupy().empty(count, np.float64)


def address(x: Any) -> int:
    """Where such memory is."""
    return int(x.data.ptr)


def fetched(x: Any) -> np.ndarray:
    """A copy on the host, which waits for it."""
    return _cupy().asnumpy(x)
