"""The schedule that follows a metric instead of the count."""

# ruff: noqa: N801 (classes with the names of functions: repr shows what one writes)

import math
import sys
from dataclasses import dataclass, field
from typing import Any, Literal

from ._base import Inside, Schedule, Share, Size, Steps, Wait


@dataclass
class reduce_on_plateau(Schedule):
    """``start``, multiplied by ``factor`` whenever a metric has stopped to improve.

    Call :meth:`step` with the metric, after each epoch for example. As a hyperparameter it has
    the value at that time, whatever the count; ``jax.jit`` would freeze it into the compiled step,
    so a traced count is refused: pass ``lr=plateau.value`` to the step there.

    Better (``mode="min"``) is below ``best * (1 - rtol) - atol``, where the metric is the mean of
    ``average`` calls. More than ``patience`` worse ones in a row reduce the value, but not below
    ``end`` nor by ``eps`` or less, and ``cooldown`` of them thereafter do not count.
    """

    start: Size
    factor: Inside = 0.1
    patience: Wait = 10
    rtol: Share = 1e-4
    atol: Size = 0.0
    cooldown: Wait = 0
    end: Size = 0.0
    eps: Size = 0.0
    average: Steps = 1
    mode: Literal["min", "max"] = "min"
    value: float = field(init=False)
    best: float = field(init=False)
    bad: int = field(init=False, default=0)
    cooling: int = field(init=False, default=0)
    seen: int = field(init=False, default=0)
    total: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.value, self.best = self.start, math.inf if self.mode == "min" else -math.inf
        super().__post_init__()

    def __call__(self, count: Any) -> float:
        jax = sys.modules.get("jax")
        if jax is not None and isinstance(count, jax.core.Tracer):
            raise TypeError(
                "reduce_on_plateau: a compiled step would keep the value it has now; "
                "give its value to each step instead, as in step(..., lr=plateau.value)"
            )
        return self.value

    def step(self, metric: Any) -> float:
        """Take note of a metric; the value from now on."""
        self.total, self.seen = self.total + float(metric), self.seen + 1
        if self.seen < self.average:
            return self.value
        metric, self.total, self.seen = self.total / self.seen, 0.0, 0
        sign = 1 if self.mode == "min" else -1
        if sign * metric < sign * self.best * (1 - sign * self.rtol) - self.atol:
            self.best, self.bad = metric, 0
        else:
            self.bad += 1
        if self.cooling > 0:
            self.cooling, self.bad = self.cooling - 1, 0
        if self.bad > self.patience:
            lower = max(self.value * self.factor, self.end)
            if self.value - lower > self.eps:
                self.value = lower
            self.bad, self.cooling = 0, self.cooldown
        return self.value

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`step` changes."""
        return {k: getattr(self, k) for k in _PLATEAU}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`; the arguments are not part of it."""
        if {*state} != {*_PLATEAU}:
            raise ValueError(f"reduce_on_plateau: the state must have {_PLATEAU}, got {[*state]}")
        for name in _PLATEAU:
            setattr(self, name, state[name])


_PLATEAU = ("value", "best", "bad", "cooling", "seen", "total")
