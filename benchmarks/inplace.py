"""In-place blocks beside the pure step over whole arrays, on NumPy: time and extra memory.

    python benchmarks/inplace.py [RULE ...]

Alternating runs in one process; medians, in ms, of 10 million float32 elements.
"""

import statistics
import sys
import time
import tracemalloc

import numpy as np

import arrayopt as ao
from arrayopt.backends.numpy import InPlace

SIZE, RUNS = 10_000_000, 7


def clock(function):
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def main(names):
    rng = np.random.default_rng(0)
    params, grads = (rng.standard_normal(SIZE, dtype=np.float32) for _ in range(2))
    print(f"{'rule':20s} {'whole':>8s} {'blocks':>8s} {'ratio':>6s} {'extra MB':>9s}")
    for name in names:
        inplace = InPlace(params.copy(), name)
        pure = ao.Optimizer(name)
        kept = [params, pure.init(params)]

        def whole(pure=pure, kept=kept):
            kept[:] = pure.step(kept[0], grads, kept[1])

        def blocks(inplace=inplace):
            inplace.step(grads)

        whole(), blocks()
        times = [(clock(whole), clock(blocks)) for _ in range(RUNS)]
        a, b = (statistics.median(t) for t in zip(*times, strict=True))
        tracemalloc.start()
        blocks()
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        print(f"{name:20s} {a:8.1f} {b:8.1f} {a / b:6.2f} {peak:9.1f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ao.rules.names())
