"""Every elementwise rule's loop beside its roof: ``python benchmarks/roofs.py [RULE ...]``.

The roof of a rule is a loop that reads what the rule reads and writes what it writes, in as many
passes, and only adds (see arrayopt.bench). One parameter of ten million float32, NumPy, all cores;
medians of turns that alternate. With rules' names it prints, without it writes docs/roofs.md.
"""

import os
import statistics
import sys
from pathlib import Path

import numpy as np

import arrayopt as ao
from arrayopt._schema import rounds
from arrayopt._step import is_elementwise
from arrayopt.backends import numpy as backend
from arrayopt.bench import measure, peers
from arrayopt.bench.problem import Problem

SIZE = 10_000_000
DOCUMENT = Path(__file__).parent.parent / "docs" / "roofs.md"
HEAD = """# Every rule beside its roof

The compiled loop of every elementwise rule beside a loop that reads what the rule reads and writes
what it writes, in as many passes, and only adds. One parameter of ten million float32 on NumPy,
{threads} threads, milliseconds a step, medians of turns that alternate; written by
`python benchmarks/roofs.py`. Passes: one that moves the parameter, and one more for each round of
sums that it needs first.

All are within 1.3 of their roofs but three, which are bound by arithmetic and not by memory:
`madam` takes an exponential of each element, `madgrad` (a cube root) and `padam` (any power) a
logarithm and an exponential.

| rule | passes | rule | roof | ratio |
|---|---|---|---|---|
"""


def row(name: str, params: list[np.ndarray], grads: list[np.ndarray], threads: int) -> tuple:
    problem = Problem(name, "float32", threads, params, grads)
    entries = {k: peers.CONTESTANTS[k](problem) for k in ("arrayopt numpy fused", "roof numpy")}
    runners = {k: measure.Runner(e, fresh=False) for k, e in entries.items()}
    measure.race(runners, 9, [])
    problem.close()
    ours, roof = (1e3 * statistics.median(r.times) for r in runners.values())
    return name, 1 + len(rounds(ao.rules.find(name))), ours, roof, ours / roof


def main() -> None:
    threads = len(os.sched_getaffinity(0))
    rng = np.random.default_rng(0)
    params, grads = ([rng.standard_normal(SIZE, np.float32)] for _ in range(2))
    every = [r for r in ao.rules.names() if is_elementwise(ao.rules.find(r))]
    lines = []
    for name in sys.argv[1:] or every:
        if backend.engines(ao.Optimizer(name))["fused"]:
            continue
        found = row(name, params, grads, threads)
        lines.append("| `{}` | {} | {:.1f} | {:.1f} | {:.2f} |".format(*found))
        print(lines[-1], flush=True)
    if not sys.argv[1:]:
        DOCUMENT.write_text(HEAD.format(threads=threads) + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
