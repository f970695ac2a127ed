"""A rule's way over a problem, and the learning rate that suits it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._schema import each_step
from ..optimizer import Optimizer
from ..sweep import Sweep
from . import problems
from ._rates import COLUMNS, RATES
from .problems import Problem

STEPS = 200
GRID = tuple(float(f"{10 ** (k / 6):.3g}") for k in range(-24, 19))  # 0.0001 to 1000


def trajectory(
    rule: str, problem: str | Problem, steps: int = STEPS, lr: Any = None, **hyper: Any
) -> NDArray[np.float64]:
    """The points of a run in float64, shape (steps + 1, 2), the start first.

    They are those that the rule would evaluate at (``Optimizer.eval_params``). From where it is
    not finite any more, a run is NaN.

    Args:
        rule: its name; ``adam+ema`` is one too.
        problem: one of ``problems.PROBLEMS``, or its name.
        lr: the learning rate, a number or a schedule; :func:`tuned` if it is None.
        hyper: any other options of :class:`arrayopt.Optimizer`.
    """
    problem = problems.find(problem) if isinstance(problem, str) else problem
    check_steps(steps)
    lr = tuned(rule, problem, steps, **hyper) if lr is None else lr
    opt = Optimizer(rule, lr=lr, **hyper)
    needs_value = each_step(opt.rule)
    params = {"p": np.array(problem.start)}
    state, path = opt.init(params), np.full((steps + 1, 2), np.nan)
    path[0] = problem.start
    with np.errstate(all="ignore"):
        for k in range(1, steps + 1):
            x, y = params["p"]
            each = {"value": problem.value(x, y)} if needs_value else {}
            grads = {"p": np.stack(problem.gradient(x, y))}
            if not np.all(np.isfinite(grads["p"])):
                break  # some rules' decompositions raise for such
            params, state = opt.step(params, grads, state, **each)
            path[k] = opt.eval_params(params, state)["p"]
    return path


def tuned(rule: str, problem: str | Problem, steps: int = STEPS, **hyper: Any) -> float:
    """The learning rate of ``GRID`` with the lowest value after ``steps`` steps, of those whose
    run stays in the problem's box: all of the grid in one sweep.

    That of every rule's defaults on every problem after ``STEPS`` steps is kept in ``_rates.py``.
    """
    problem = problems.find(problem) if isinstance(problem, str) else problem
    usual = steps == STEPS and not hyper and problem == problems.PROBLEMS.get(problem.name)
    if usual and rule in RATES:
        return RATES[rule][COLUMNS.index(problem.name)]
    return swept(rule, problem, steps, **hyper)


def swept(rule: str, problem: Problem, steps: int = STEPS, **hyper: Any) -> float:
    """As :func:`tuned`, by the sweep itself."""
    check_steps(steps)
    opt = Sweep(rule, lr=np.array(GRID), **hyper)
    needs_value = each_step(opt.rule)
    start = np.array(problem.start)
    params = opt.tile({"p": start})
    state, inside = opt.init(params), np.ones(len(GRID), bool)
    (left, right), (low, high) = problem.box
    with np.errstate(all="ignore"):
        for _ in range(steps):
            x, y = params["p"].T
            each = {"value": problem.value(x, y)} if needs_value else {}
            grads = {"p": np.stack(problem.gradient(x, y), axis=1)}
            params, state = opt.step(params, grads, state, **each)
            x, y = params["p"].T
            inside &= (left <= x) & (x <= right) & (low <= y) & (y <= high)
            # a run that has left goes on from the start, so that all its numbers stay finite
            params = {"p": np.where(inside[:, None], params["p"], start)}
        x, y = opt.eval_params(params, state)["p"].T
        last = np.where(inside, problem.value(x, y), np.inf)
    return GRID[int(np.nanargmin(last))]


def check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"race: steps must be in [1, inf), got {steps}")
