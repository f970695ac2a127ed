"""Schedules by formula."""

# ruff: noqa: N801 (classes with the names of functions: repr shows what one writes)

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from .._types import Scalar
from ._base import Inside, Positive, Schedule, Size, Steps, Value, Wait, by_step

Shape: TypeAlias = Literal["linear", "cosine", "sqrt"]


def _left(u: Scalar, shape: Shape, xp: Any) -> Scalar:
    """The weight of the old value, the part ``u`` of the way to the new one."""
    if shape == "cosine":
        return (1 + xp.cos(math.pi * u)) / 2
    return 1 - (u if shape == "linear" else xp.sqrt(u))


@dataclass(frozen=True)
class linear(Schedule):
    r""":math:`w\,\mathrm{start} + (1 - w)\,\mathrm{end}` with :math:`w = 1 - t/\mathrm{steps}`;
    ``end`` from :math:`t = \mathrm{steps}` on."""

    start: Value
    steps: Steps
    end: Value = 0.0

    def weight(self, u: Scalar, xp: Any) -> Scalar:
        return _left(u, "linear", xp)

    def at(self, t: Scalar, xp: Any) -> Scalar:
        w = self.weight(xp.minimum(xp.real(t) / self.steps, 1.0), xp)
        return w * self.start + (1 - w) * self.end


@dataclass(frozen=True)
class polynomial(linear):
    r"""As :class:`linear`, with :math:`w = (1 - t/\mathrm{steps})^\mathrm{power}`."""

    power: Positive = 1.0

    def weight(self, u: Scalar, xp: Any) -> Scalar:
        return (1 - u) ** self.power


@dataclass(frozen=True)
class cosine(linear):
    r"""As :class:`linear`, with
    :math:`w = [(1 + \cos(\pi t/\mathrm{steps})) / 2]^\mathrm{power}`."""

    power: Positive = 1.0

    def weight(self, u: Scalar, xp: Any) -> Scalar:
        return _left(u, "cosine", xp) ** self.power


@dataclass(frozen=True)
class exponential(Schedule):
    r""":math:`\mathrm{start} \cdot \mathrm{rate}^{t/\mathrm{steps}}`, where a ``staircase`` rounds
    the exponent down; no further than ``end``."""

    start: Positive
    rate: Positive
    steps: Steps = 1
    staircase: bool = False
    end: Size | None = None

    def at(self, t: Scalar, xp: Any) -> Scalar:
        n = xp.real(t // self.steps) if self.staircase else xp.real(t) / self.steps
        value = self.start * xp.power(self.rate, n)
        if self.end is None:
            return value
        return (xp.maximum if self.rate < 1 else xp.minimum)(value, self.end)


@dataclass(frozen=True)
class step(Schedule):
    """``start``, multiplied from each step in ``factors`` on by the factor that stands there."""

    start: Value
    factors: Any  # a dict, kept as pairs

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "factors", by_step("step: factors", self.factors, Wait, Size))

    def at(self, t: Scalar, xp: Any) -> Scalar:
        value = xp.real(self.start)
        for boundary, factor in self.factors:
            value = xp.where(t >= boundary, value * factor, value)
        return value


@dataclass(frozen=True)
class inverse_sqrt(Schedule):
    r""":math:`\mathrm{start} \sqrt{\mathrm{steps} / (\mathrm{steps} + t)}`."""

    start: Value
    steps: Steps

    def at(self, t: Scalar, xp: Any) -> Scalar:
        return self.start * xp.sqrt(self.steps / (self.steps + xp.real(t)))


@dataclass(frozen=True)
class interpolate(Schedule):
    """From each of the ``points``, a dict from steps to values, to the next; constant outside.

    The weight of the old value falls on a line, on half a period of a cosine, or, with ``"sqrt"``,
    as one minus the square root of the part of the way.
    """

    points: Any  # a dict, kept as pairs; the steps need not be whole
    shape: Shape = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "points", by_step("interpolate: points", self.points, Size, Value))
        if not self.points:
            raise ValueError("interpolate: points must hold at least one step, got {}")

    def at(self, t: Scalar, xp: Any) -> Scalar:
        t = xp.real(t)
        value = xp.real(self.points[0][1])
        for (a, old), (b, new) in itertools.pairwise(self.points):
            u = xp.minimum(xp.maximum((t - a) / (b - a), 0.0), 1.0)
            w = _left(u, self.shape, xp)
            value = xp.where(t > a, w * old + (1 - w) * new, value)
        return value


@dataclass(frozen=True)
class cyclic(Schedule):
    """Up from ``low`` to ``high`` in ``up`` steps, down again in ``down`` (``up`` if None), and so
    on. The height is multiplied by ``decay`` once per ``"cycle"`` or per ``"step"``."""

    low: Value
    high: Value
    up: Steps
    down: Steps | None = None
    decay: Positive = 1.0
    per: Literal["cycle", "step"] = "cycle"

    def at(self, t: Scalar, xp: Any) -> Scalar:
        down = self.up if self.down is None else self.down
        period = self.up + down
        now = xp.real(t % period)
        height = xp.where(now <= self.up, now / self.up, (period - now) / down)
        n = xp.real(t // period if self.per == "cycle" else t)
        return self.low + (self.high - self.low) * height * xp.power(self.decay, n)


@dataclass(frozen=True)
class half_life(Schedule):
    r"""The weight of the past in a running mean, such that its half-life grows evenly:
    :math:`1 / \ln\beta` goes on a line from ``start``'s to ``end``'s in ``steps`` steps.

    Pagliardini et al., *The AdEMAMix Optimizer*, 2024, https://arxiv.org/abs/2409.03137 (the
    schedule of :math:`\beta_3`). Its steps count from 1: :func:`ademamix_beta3`.
    """

    start: Inside
    steps: Steps
    end: Inside

    def at(self, t: Scalar, xp: Any) -> Scalar:
        u = xp.minimum(xp.real(t) / self.steps, 1.0)
        beta = xp.exp(1 / ((1 - u) / math.log(self.start) + u / math.log(self.end)))
        return xp.where(t >= self.steps, self.end, beta)
