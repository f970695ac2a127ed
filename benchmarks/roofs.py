"""Every elementwise rule's loop beside its roof: ``python benchmarks/roofs.py [RULE ...]``.

A rule has two roofs. The memory's is a loop that reads what the rule reads and writes what it
writes, in as many passes, and only adds (see arrayopt.bench). The arithmetic's is the rule's own
loop over numbers that are in the cache, scaled up. One parameter of ten million float32, NumPy, all
cores; medians of turns that alternate. With rules' names it prints their rows; without, it measures
all and writes docs/roofs.md anew.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np

import arrayopt as ao
from arrayopt._schema import rounds
from arrayopt._step import is_elementwise
from arrayopt.backends import numpy as backend
from arrayopt.bench import measure, peers
from arrayopt.bench.problem import Problem
from arrayopt.bench.report import machine

SIZE = 10_000_000
DOCUMENT = Path(__file__).parent.parent / "docs" / "roofs.md"
HEAD = """# Every rule beside its roof

The compiled loop of every elementwise rule beside its two roofs, with one parameter of ten million
float32 on NumPy and {threads} threads ({cpu}); milliseconds a step, medians of turns that
alternate. Written by `python benchmarks/roofs.py`.

- memory: a loop that reads what the rule reads and writes what it writes, in as many passes, and
  only adds;
- arithmetic: the rule's own loop over numbers that are in the cache, scaled to as many elements and
  threads: what it would take if memory were free;
- ratio: the time beside the larger of the two, and beside the memory's alone.

Passes: one that moves the parameter, and one more for each round of sums that it needs first.

Within 1.3 of the larger roof are all but: {over}. Where memory and arithmetic take about as long
as each other, as with series of exponentials and logarithms, not all of the one is hidden behind
the other.

| rule | passes | time | memory | arithmetic | ratio | to memory |
|---|---|---|---|---|---|---|
"""


def row(name: str, params: list[np.ndarray], grads: list[np.ndarray], threads: int) -> tuple:
    problem = Problem(name, "float32", threads, params, grads)
    entries = {k: peers.CONTESTANTS[k](problem) for k in ("arrayopt numpy fused", "roof numpy")}
    runners = {k: measure.Runner(e, fresh=False) for k, e in entries.items()}
    measure.race(runners, 21, [])
    problem.close()
    ours, memory = (1e3 * statistics.median(r.times) for r in runners.values())
    alone = arithmetic(name, threads)
    passes = 1 + len(rounds(ao.rules.find(name)))
    return name, passes, ours, memory, alone, ours / max(memory, alone), ours / memory


def arithmetic(name: str, threads: int) -> float:
    """The rule's loop in the cache: the slope between a short and a longer array."""
    rng = np.random.default_rng(0)
    short, long = 1 << 11, 1 << 15
    steps, times = {}, {}
    for size in (short, long):
        arrays = [[rng.standard_normal(size, np.float32)] for _ in range(2)]
        entry = peers.CONTESTANTS["arrayopt numpy fused"](Problem(name, "float32", 1, *arrays))
        steps[size], times[size] = entry.step, []
    for _ in range(500):
        for size, step in steps.items():
            start = time.perf_counter()
            step()
            times[size].append(time.perf_counter() - start)
    found = {size: statistics.median(each) for size, each in times.items()}
    return 1e3 * (found[long] - found[short]) / (long - short) * SIZE / threads


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "rules", nargs="*", metavar="RULE", help="print these; without, write the page"
    )
    chosen = parser.parse_args().rules
    for name in chosen:
        ao.rules.find(name)
    threads = len(os.sched_getaffinity(0))
    rng = np.random.default_rng(0)
    params, grads = ([rng.standard_normal(SIZE, np.float32)] for _ in range(2))
    every = [r for r in ao.rules.names() if is_elementwise(ao.rules.find(r))]
    lines, over = [], []
    for name in chosen or every:
        if backend.engines(ao.Optimizer(name))["fused"]:
            continue
        found = row(name, params, grads, threads)
        lines.append("| `{}` | {} | {:.1f} | {:.1f} | {:.1f} | {:.2f} | {:.2f} |".format(*found))
        print(lines[-1], flush=True)
        over += [f"`{name}` ({found[-2]:.2f})"] * (round(found[-2], 2) > 1.3)
    if not chosen:
        above = ", ".join(over) or "none"
        head = HEAD.format(threads=threads, cpu=machine()["cpu"], over=above)
        DOCUMENT.write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
