"""Schedules made of schedules."""

# ruff: noqa: N801 (classes with the names of functions: repr shows what one writes)

import itertools
from dataclasses import dataclass
from typing import Any

from .._types import Scalar
from ._base import Inner, Inside, Positive, Schedule, Shift, Steps, Value, Wait, legal
from ._shapes import Shape, half_life, interpolate, linear


@dataclass(frozen=True)
class delay(Schedule):
    """The first value of ``then`` for ``steps`` steps, then ``then`` from its start.

    With negative ``steps``, ``then`` begins that many steps after its start.
    """

    steps: Shift
    then: Inner

    def at(self, t: Scalar, xp: Any) -> Scalar:
        return xp.real(self.then(xp.maximum(t - self.steps, 0)))


@dataclass(frozen=True)
class warmup(Schedule):
    """On a line from ``start`` to the first value of ``then`` in ``steps`` steps, then ``then``."""

    steps: Wait
    then: Inner
    start: Value = 0.0

    def at(self, t: Scalar, xp: Any) -> Scalar:
        u = xp.minimum(xp.real(t) / max(self.steps, 1), 1.0)
        rise = (1 - u) * self.start + u * xp.real(self.then(0))
        return xp.where(t < self.steps, rise, self.then(xp.maximum(t - self.steps, 0)))


@dataclass(frozen=True)
class join(Schedule):
    """One schedule after the other, each from its start; the next one begins at each boundary."""

    schedules: Any
    boundaries: Any

    def __post_init__(self) -> None:
        parts = tuple(legal("join: a schedule", Inner, s) for s in self.schedules)
        bounds = tuple(legal("join: a boundary", Steps, b) for b in self.boundaries)
        if len(parts) != len(bounds) + 1 or any(a >= b for a, b in itertools.pairwise(bounds)):
            raise ValueError(
                "join: boundaries must rise and be one fewer than the schedules, "
                f"got {bounds} for {len(parts)}"
            )
        object.__setattr__(self, "schedules", parts)
        object.__setattr__(self, "boundaries", bounds)

    def at(self, t: Scalar, xp: Any) -> Scalar:
        value = xp.real(self.schedules[0](t))
        for boundary, then in zip(self.boundaries, self.schedules[1:], strict=True):
            value = xp.where(t >= boundary, then(xp.maximum(t - boundary, 0)), value)
        return value


@dataclass(frozen=True)
class restart(Schedule):
    """``then`` from its start again every ``every`` steps; each round takes ``stretch`` times as
    many steps as the one before, in which ``then`` runs that much more slowly.

    Loshchilov & Hutter, *SGDR*, ICLR 2017, https://arxiv.org/abs/1608.03983, with a cosine.
    """

    every: Steps
    then: Inner
    stretch: Steps = 1

    def at(self, t: Scalar, xp: Any) -> Scalar:
        if self.stretch == 1:
            return xp.real(self.then(t % self.every))
        now, begin, slower = xp.real(t), 0, 1
        inner = now
        while begin + self.every * slower < 2**31:  # a traced count is an int32
            begin, slower = begin + self.every * slower, slower * self.stretch
            inner = xp.where(now >= begin, (now - begin) / slower, inner)
        return xp.real(self.then(inner))


def one_cycle(
    peak: float,
    steps: int,
    *,
    rise: float = 0.3,
    div: float = 25.0,
    final_div: float = 1e4,
    shape: Shape = "cosine",
    three_phase: bool = False,
) -> interpolate:
    """Up from ``peak / div`` in the part ``rise`` of the steps, down to ``peak / div / final_div``.

    ``steps`` counts the values, as in torch: the last one is that of step ``steps - 1``. With
    ``three_phase`` it goes down to ``peak / div`` first, as fast as it went up.
    Smith & Topin, *Super-Convergence*, 2018, https://arxiv.org/abs/1708.07120.
    """
    peak, steps = legal("one_cycle: peak", Value, peak), legal("one_cycle: steps", Steps, steps)
    div = legal("one_cycle: div", Positive, div)
    final_div = legal("one_cycle: final_div", Positive, final_div)
    top, last = rise * steps - 1, steps - 1  # where the peak is, and the last value
    if not 0 < top < (last / 2 if three_phase else last):
        legal_rise = f"({1 / steps:.4g}, {(0.5 + 0.5 / steps) if three_phase else 1:.4g})"
        raise ValueError(f"one_cycle: rise must be in {legal_rise}, got {rise!r}")
    low = peak / div
    middle = {2 * top: low} if three_phase else {}
    return interpolate({0: low, top: peak} | middle | {last: low / final_div}, shape)


def wsd(
    peak: float,
    *,
    rise: int,
    hold: int,
    fall: int,
    start: float = 0.0,
    end: float = 0.0,
    shape: Shape = "linear",
) -> warmup:
    """Warm-up, stable, decay: ``rise`` steps from ``start`` to ``peak``, ``hold`` steps there, and
    ``fall`` steps to ``end``, in the shape that :class:`interpolate` gives it.

    Hu et al., *MiniCPM*, 2024, https://arxiv.org/abs/2404.06395; ``"sqrt"``: Hägele et al., 2024,
    https://arxiv.org/abs/2405.18392.
    """
    peak, start = legal("wsd: peak", Value, peak), legal("wsd: start", Value, start)
    rise, hold = legal("wsd: rise", Wait, rise), legal("wsd: hold", Wait, hold)
    fall, end = legal("wsd: fall", Steps, fall), legal("wsd: end", Value, end)
    decay = interpolate({0: peak, fall: end}, shape)
    return warmup(rise, then=delay(hold, then=decay), start=start)


def ademamix_alpha(alpha: float, steps: int) -> delay:
    """AdEMAMix's alpha, from 0 on a line to ``alpha``; its steps count from 1."""
    alpha = legal("ademamix_alpha: alpha", Value, alpha)
    steps = legal("ademamix_alpha: steps", Steps, steps)
    return delay(-1, then=linear(0.0, steps, end=alpha))


def ademamix_beta3(beta3: float, steps: int, start: float = 0.9) -> delay:
    """AdEMAMix's beta3 from ``start``, its beta1; and Simplified AdEMAMix's beta1 from 0.9."""
    beta3 = legal("ademamix_beta3: beta3", Inside, beta3)
    steps = legal("ademamix_beta3: steps", Steps, steps)
    start = legal("ademamix_beta3: start", Inside, start)
    return delay(-1, then=half_life(start, steps, end=beta3))
