"""Measuring for :mod:`arrayopt.bench`: turns and their times, memory, compilation, a start."""

import ctypes
import math
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._schema import rounds
from ..fuse import cpu, engine
from ..fuse.trace import signature, trace
from ..optimizer import Optimizer
from .problem import Entry

LEAST = 3  # turns of a contestant that has used up its seconds
SECONDS = 1.0  # for the turns of a contestant in a case
SLOW = 0.1  # seconds; a step slower than this needs no other one before


class Pace(NamedTuple):
    """How long it is measured."""

    rounds: int
    turn: float  # seconds that a turn's steps take at least
    pause: float  # seconds


FULL, QUICK = Pace(15, 2e-3, 5e-3), Pace(2, 0.0, 0.0)


class Runner:
    """A contestant with its times."""

    def __init__(self, entry: Entry, fresh: bool, pace: Pace = FULL) -> None:
        self.entry, self.fresh, self.pace = entry, fresh, pace
        self.times: list[float] = []
        self.first = _clock(entry.step)
        self.usual = min(_clock(entry.step) for _ in range(2))
        self.number = max(1, min(1000, math.ceil(pace.turn / self.usual)))
        self.spent = 0.0

    def turn(self) -> None:
        start = time.perf_counter()
        time.sleep(self.pace.pause)
        if self.usual < SLOW:
            self.entry.step()
        fed = self.fresh
        total = sum(self._fed() for _ in range(self.number)) if fed else _clock(self._many)
        self.times.append(total / self.number)
        self.spent += time.perf_counter() - start

    def _many(self) -> None:
        step = self.entry.step
        for _ in range(self.number):
            step()

    def _fed(self) -> float:
        self.entry.feed()
        return _clock(self.entry.step)


def race(runners: dict[str, Runner], rounds: int, turns: list[str]) -> None:
    """Round after round, each begun by another contestant; ``turns`` records whose turn it was."""
    names = list(runners)
    for i in range(rounds):
        first = i % max(1, len(names))
        for name in names[first:] + names[:first]:
            one = runners[name]
            if one.spent < SECONDS or len(one.times) < LEAST:
                turns.append(name)
                one.turn()


def _clock(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compile_seconds(rule: str) -> float:
    """All programs of a rule's step, traced and compiled."""
    optimizer, params = Optimizer(rule), np.ones(8, np.float32)
    state = optimizer.init(params)
    sig = signature(optimizer.around, optimizer.plan(params, params, state, {}).parts[0])
    columns = engine.columns(optimizer.rule, sig)

    def work() -> None:
        for what in (*rounds(optimizer.rule), "move"):
            cpu.Kernel(trace(what, optimizer.around, sig, state.shared), columns)

    return _clock(work)


START = """
import numpy, time
start = time.perf_counter()
from arrayopt.backends.numpy import InPlace
w = numpy.ones(1000, "float32")
InPlace(w, "adam", engine="fused").step(w.copy())
print(time.perf_counter() - start)
"""


def start_seconds() -> float:
    """A new process, from after NumPy's import to the end of the first step."""
    command = [sys.executable, "-c", START]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def traced(step: Callable[[], None]) -> float:
    """What NumPy and Python allocate in a step, at the peak, in MB."""
    tracemalloc.start()
    step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def resident(step: Callable[[], None]) -> float | None:
    """By how much a step raises the process's memory, in MB; None where Linux does not tell."""
    found = []
    try:
        for _ in range(2):
            if hasattr(ctypes.CDLL(None), "malloc_trim"):  # else freed memory may be taken again
                ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
            before = _kibibytes("/proc/self/status", "VmHWM:")
            step()
            found.append((_kibibytes("/proc/self/status", "VmHWM:") - before) * 1024 / 1e6)
    except (OSError, ValueError):
        return None
    return min(found)


def _kibibytes(file: str, key: str) -> int:
    words = Path(file).read_text().split()
    return int(words[words.index(key) + 1])


def available() -> float:
    """Bytes that may be taken, with a tenth left over; no limit where Linux does not tell."""
    try:
        return 0.9 * 1024 * _kibibytes("/proc/meminfo", "MemAvailable:")
    except (OSError, ValueError):
        return math.inf
