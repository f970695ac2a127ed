"""Runs of a rule over Rosenbrock's function, alone and by the hundred."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import Optimizer, Sweep
from ..race.problems import PROBLEMS
from ._record import short

ROSENBROCK = PROBLEMS["rosenbrock"]
Numbers = NDArray[np.float64]


def grid_of(rule: str, lists: dict[str, list[float]]) -> dict[str, Numbers]:
    """Every choice of the rule's hyperparameters: arrays of one axis, for a sweep."""
    alphas = lists["alpha"] if rule == "simplified_ademamix" else [0.0]
    axes = np.meshgrid(alphas, lists["b1"], lists["b2"], lists["rate"], indexing="ij")
    alpha, b1, b2, lr = (x.ravel() for x in axes)
    grid = {"b1": b1, "b2": b2, "lr": lr}
    if rule == "simplified_ademamix":
        grid |= {"alpha": alpha, "lr": lr / (1 / (1 - b1) + alpha)}
    return grid


def sweep(rule: str, grid: dict[str, Numbers], noise: Numbers) -> tuple[Numbers, Numbers]:
    """Every choice's score, and the longest step of an element of it in units of lr.

    ``noise``, of shape (steps, seeds, 2), is what is added to the gradients.
    """
    opt, (steps, seeds, _) = Sweep(rule, **grid), noise.shape
    params = opt.tile({"p": np.tile(ROSENBROCK.start, (seeds, 1))})
    state, total, longest = opt.init(params), np.zeros((opt.n, seeds)), np.zeros(opt.n)
    last = max(steps // 10, 1)
    for k in range(steps):
        p = params["p"]
        grads = {"p": np.stack(ROSENBROCK.gradient(p[..., 0], p[..., 1]), axis=-1) + noise[k]}
        params, state = opt.step(params, grads, state)
        moved = np.abs(params["p"] - p).max(axis=(1, 2)) / grid["lr"]
        longest = np.maximum(longest, moved)
        if k >= steps - last:
            total += ROSENBROCK.value(params["p"][..., 0], params["p"][..., 1])
    return np.median(total / last, axis=1), longest


def path(rule: str, hyper: dict[str, Any], steps: int) -> Numbers:
    """The points of one run without noise, shape (steps + 1, 2)."""
    opt = Optimizer(rule, **hyper)
    params = {"p": np.array(ROSENBROCK.start)}
    state, points = opt.init(params), [params["p"]]
    for _ in range(steps):
        grads = {"p": np.stack(ROSENBROCK.gradient(*params["p"]))}
        params, state = opt.step(params, grads, state)
        points.append(params["p"])
    return np.array(points)


def lowest(grid: dict[str, Numbers], scores: Numbers, **fixed: float) -> dict[str, float]:
    """The choice with the lowest score, of those with these values."""
    fits = np.all([grid[k] == v for k, v in fixed.items()], axis=0) if fixed else True
    i = int(np.argmin(np.where(fits, scores, np.inf)))
    return {k: float(x[i]) for k, x in grid.items()}


def swing(points: Numbers) -> dict[str, float]:
    """What a run does in its last third: the ends of f, and how often it crosses the valley."""
    x, y = points[-len(points) // 3 :].T
    f = ROSENBROCK.value(x, y)
    crossings = int(np.sum(np.diff(np.sign(y - x * x)) != 0))
    return {"lowest": float(f.min()), "highest": float(f.max()), "crossings": crossings}


def denominators(points: Numbers, b2: float, after: list[int]) -> dict[str, list[float]]:
    """What Adamax divides by over what Adam would, along a run: after these steps, of x and y."""
    u, v, found = np.zeros(2), np.zeros(2), {}
    for t, p in enumerate(points, start=1):
        g = np.array(ROSENBROCK.gradient(*p))
        u, v = np.maximum(b2 * u, np.abs(g)), b2 * v + (1 - b2) * g * g
        if t in after:
            found[str(t)] = short(u / np.sqrt(v / (1 - b2**t)))
    return found


def thinned(points: Numbers) -> dict[str, list]:
    """The points at about 200 steps, dense at first, and f there."""
    kept = np.unique(np.round(np.geomspace(1, len(points), 200)).astype(int)) - 1
    f = ROSENBROCK.value(*points[kept].T)
    return {"step": kept.tolist(), "point": short(points[kept]), "f": short(f)}


def ramp(lr: float, b1: float, count: int) -> float:
    return lr * (1 - b1 ** (count + 1))


def reachable(b1: float, b2: float, t: int) -> float:
    """What a step of Adamax can reach in units of lr: with gradients that fall as b2 ** t."""
    return (1 - b1) * float(np.sum((b1 / b2) ** np.arange(t))) / (1 - b1**t)
