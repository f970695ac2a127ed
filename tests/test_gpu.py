"""What only a GPU can show; skipped where there is none.

``pytest -m gpu`` runs it, with CuPy installed. ``python tests/test_gpu.py REPORT.json`` does the
same and writes down which device it was, each result, and the rates that were measured.
"""

import importlib.util
import json
import math
import platform
import sys
import time
from typing import Any

import numpy as np
import optree
import pytest
from conftest import adapter
from test_cuda import (
    DTYPES,
    compare,
    compare_shared,
    difference,
    problem,
    traced,
    unit,
    values,
)

import arrayopt as ao
from arrayopt.fuse import cuda_driver

pytestmark = pytest.mark.gpu
SPIN = r"""
__device__ unsigned long long now() {
  unsigned long long x;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(x));
  return x;
}
extern "C" __global__ void spin(const unsigned long long nanoseconds) {
  const unsigned long long start = now();
  while (now() - start < nanoseconds) {}
}
"""


@pytest.fixture
def gpu() -> Any:
    """The adapter, on a device."""
    found = adapter("cupy")
    if not found.usable():
        pytest.skip("no GPU")
    return found


@pytest.fixture
def launches(monkeypatch) -> list[int]:
    """The number of blocks of each launch of a compiled kernel."""
    found: list[int] = []
    loaded = cuda_driver.loaded

    def counting(source, device):
        function = loaded(source, device)

        def run(grid, block, args):
            found.append(grid[0])
            function(grid, block, args)

        return run

    monkeypatch.setattr(cuda_driver, "loaded", counting)
    return found


def there(gpu: Any, tree: Any) -> Any:
    return optree.tree_map(gpu.asarray, tree)


def back(gpu: Any, tree: Any) -> Any:
    return optree.tree_map(gpu.asnumpy, tree)


def pure(rule: str, params: Any, grads: Any, **hyper: Any) -> tuple[Any, Any]:
    opt = ao.Optimizer(rule, **hyper)
    with np.errstate(all="ignore"):
        state = opt.init(params)
        for g in grads:
            params, state = opt.step(params, g, state)
    return params, state


# Of those that launch more than one kernel for a step: sums, and what is one value for a parameter.
LAUNCHES = {"lamb": 3, "mada": 3, "novograd": 4, "prodigy": 3, "schedule_free_adamw": 2}


@traced
@pytest.mark.parametrize("dtype", [x for x in DTYPES if x != "bfloat16"])  # which CuPy has not
@pytest.mark.parametrize("engine", ["fused", "eager"])
def test_numbers(gpu, rule, dtype, engine):
    """Each step starts from what NumPy's gave, so that no difference hides behind another."""
    params, grads = problem(rule, dtype, 10, (100_001, 1, 257))
    if engine == "eager":  # CuPy's own kernels contract and flush subnormal numbers
        params, grads = optree.tree_map(lambda x: np.where(np.abs(x) < 1, x, 1), (params, grads))
    reference = ao.Optimizer(rule)
    with np.errstate(all="ignore"):
        state = reference.init(params)
    for g in grads:
        mine = there(gpu, params)
        opt = gpu.InPlace(mine, rule, engine=engine)
        opt.state = ao.State(state.step, *there(gpu, (state.shared, state.slots)))
        opt.step(there(gpu, g))
        with np.errstate(all="ignore"):
            params, state = reference.step(params, g, state)
        got, slots, shared = back(gpu, (mine, opt.state.slots, opt.state.shared))
        if engine == "fused":
            compare(rule, dtype, (g, got, slots), (g, params, state.slots))
            compare_shared(shared, state.shared)
        else:
            for a, b in zip(got, params, strict=True):
                np.testing.assert_allclose(a, b, rtol=2e-3 if dtype == "float16" else 1e-5)


@traced
def test_many_parameters_in_one_launch(gpu, rule, launches):
    sizes = [1 + 37 * i % 5000 for i in range(1000)]
    params, grads = problem(rule, "float32", 3, sizes)
    mine = there(gpu, params)
    opt = gpu.InPlace(mine, rule, engine="fused")
    for g in grads:
        launches.clear()
        opt.step(there(gpu, g))
        assert len(launches) == LAUNCHES.get(rule, 1)
    want, _ = pure(rule, params, grads)
    for a, b in zip(back(gpu, mine), want, strict=True):
        assert difference(a, b, 10 * unit(rule, "float32"), 0.1) is None


@pytest.mark.parametrize("rule", ["adam", "mada", "madam", "novograd"])
def test_arrays_with_gaps(gpu, rule):
    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal((65, 33, 4)), "b": rng.standard_normal(1001)}
    grads = [optree.tree_map(lambda x: rng.standard_normal(x.shape), params) for _ in range(3)]
    whole = there(gpu, {"w": np.zeros((130, 33, 8)), "b": np.zeros(2002)})
    mine = {"w": whole["w"][::-2, :, 1::2], "b": whole["b"][::2]}
    for name, x in mine.items():
        x[...] = gpu.asarray(params[name])
    opt = gpu.InPlace(mine, rule, engine="fused")
    for g in grads:
        opt.step(there(gpu, g))
    want, _ = pure(rule, params, grads)
    for name, x in want.items():
        assert difference(gpu.asnumpy(mine[name]), x, 10 * unit(rule, "float64"), 0.1) is None
    assert not gpu.asnumpy(whole["b"])[1::2].any()


@pytest.mark.parametrize("how", ["skip", "raise"])
def test_nonfinite(gpu, how):
    params, good = ([values("f4", n, i, (0.0,)) for n in (9000, 3)] for i in range(2))
    bad = [good[0].copy(), good[1]]
    bad[0][8999] = math.inf
    mine = there(gpu, params)
    opt = gpu.InPlace(mine, "adam", nonfinite=how)
    opt.step(there(gpu, good))
    before = back(gpu, (mine, opt.state.slots))
    if how == "skip":
        opt.step(there(gpu, bad))
    else:
        with pytest.raises(FloatingPointError, match=r"adam: the gradient of \[0\] is not finite"):
            opt.step(there(gpu, bad))
    optree.tree_map(np.testing.assert_array_equal, back(gpu, (mine, opt.state.slots)), before)
    assert opt.state.step == 1


@pytest.mark.parametrize("rule", ["lamb", "mada", "novograd", "prodigy"])
def test_sums_are_always_the_same(gpu, rule):
    params, grads = problem("mada", "float32", 5, (1_000_003, 17))
    runs = []
    for _ in range(3):
        mine = there(gpu, params)
        opt = gpu.InPlace(mine, rule, engine="fused")
        for g in grads:
            opt.step(there(gpu, g))
        runs.append(back(gpu, (mine, opt.state.shared)))
    for other in runs[1:]:
        optree.tree_map(np.testing.assert_array_equal, other, runs[0])


# --- streams


def busy(cupy: Any, seconds: float) -> None:
    """Keep the current stream so long."""
    cupy.RawKernel(SPIN, "spin")((1,), (1,), (np.uint64(seconds * 1e9),))


@pytest.mark.parametrize("rule", ["adam", "mada"])
def test_the_current_stream_is_used(gpu, rule):
    """What a step needs is on the same stream before it, and what it gives is there after it."""
    import cupy

    params, grads = problem(rule, "float32", 4, (50_000, 3))
    mine = there(gpu, params)
    opt = gpu.InPlace(mine, rule, engine="fused")
    held = [there(gpu, g) for g in grads]
    late = optree.tree_map(cupy.zeros_like, held)
    cupy.cuda.Device().synchronize()
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    done = None
    for k, (g, source) in enumerate(zip(late, held, strict=True)):
        with streams[k % 2] as stream:  # another one than before
            if done is not None:
                stream.wait_event(done)
            busy(cupy, 0.05)
            optree.tree_map(cupy.copyto, g, source)
            opt.step(g)
            done = stream.record()
    done.synchronize()
    want, _ = pure(rule, params, grads)
    for a, b in zip(back(gpu, mine), want, strict=True):
        assert difference(a, b, 10 * unit(rule, "float32"), 0.1) is None


@pytest.mark.parametrize("rule", ["adam", "lamb", "mada", "madam", "novograd", "prodigy"])
def test_the_host_does_not_wait(gpu, rule):
    import cupy

    params, grads = problem(rule, "float32", 6, (5000,) * 100)
    opt = gpu.InPlace(there(gpu, params), rule, engine="fused")
    held = [there(gpu, g) for g in grads]  # at other addresses: the table is sent each time
    for g in held[:3]:
        opt.step(g)
    stream = cupy.cuda.get_current_stream()
    stream.synchronize()
    busy(cupy, 0.0)  # compiled, that is
    busy(cupy, 1.0)
    start = time.perf_counter()
    for g in held[3:]:
        opt.step(g)
    took = time.perf_counter() - start
    assert not stream.done
    assert took < 0.5
    stream.synchronize()


# --- speed: written down, not judged


def rate(cupy: Any, run: Any, moved: int) -> float:
    """Bytes a second, from the median of 20 runs as the device's clock has it."""
    from cupyx.profiler import benchmark

    times = benchmark(run, n_repeat=20, n_warmup=3).gpu_times[0]
    return moved / float(np.median(times))


@traced
@pytest.mark.parametrize("n", [10_000_000, 100_000_000])
def test_bytes_per_second(gpu, rule, n, record_property):
    """A step's rate beside that of a copy from device to device."""
    import cupy

    p, g = (cupy.full(n, x, np.float32) for x in (1.0, 0.5))
    opt = gpu.InPlace(p, rule, engine="fused")
    slots = [x for x in optree.tree_leaves(opt.state.slots) if x.shape]
    # the gradient is read, once more for sums; all else is read and written
    passes = 3 + 2 * len(slots) + hasattr(opt.optimizer.rule, "measure")
    step = rate(cupy, lambda: opt.step(g), 4 * n * passes)
    other = cupy.empty_like(p)
    copy = rate(cupy, lambda: cupy.copyto(other, p), 8 * n)
    record_property("step_bytes_per_second", step)
    record_property("copy_bytes_per_second", copy)
    assert step > 0


def test_many_small_parameters_per_second(gpu, record_property):
    import cupy

    params = [cupy.ones(1000, np.float32) for _ in range(1000)]
    grads = [cupy.ones(1000, np.float32) for _ in range(1000)]
    opt = gpu.InPlace(params, "adam", engine="fused")
    from cupyx.profiler import benchmark

    found = benchmark(lambda: opt.step(grads), n_repeat=20, n_warmup=3)
    record_property("host_seconds", float(np.median(found.cpu_times)))
    record_property("device_seconds", float(np.median(found.gpu_times[0])))
    assert opt.state.step == 23


class Report:
    """Collects what the tests found, as a plugin of pytest."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or not report.passed:
            row = {"test": report.nodeid, "outcome": report.outcome}
            reason = {} if report.passed else {"reason": str(report.longrepr)}
            self.rows.append(row | reason | dict(report.user_properties))


def main(path: str) -> int:
    """Run the tests of this file and write a report."""
    if importlib.util.find_spec("cupy") is None:
        raise SystemExit('test_gpu.py needs CuPy and a GPU: pip install "arrayopt[cupy]"')
    report, found = Report(), adapter("cupy")
    status = pytest.main([__file__, "-m", "gpu", "-q"], plugins=[report])
    about = {"device": found.about(), "python": sys.version, "machine": platform.platform()}
    about |= {"numpy": np.__version__, "arrayopt": ao.__version__, "tests": report.rows}
    with open(path, "w") as file:
        json.dump(about, file, indent=1)
    return int(status)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("python tests/test_gpu.py REPORT.json")
    sys.exit(main(sys.argv[1]))
