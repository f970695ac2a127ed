r"""MAdam on the stochastic problem where Adam walks away (MaxVA, Figure 1, Eq. 12).

The mean of 11 functions, of which each step draws one:

.. math::

    f_1(x) = \begin{cases} 5.5\, x^2 & |x| \le 1 \\ 11 |x| - 5.5 & |x| > 1 \end{cases} \qquad
    f_2 = \dots = f_{11} =
        \begin{cases} -0.5\, x^2 & |x| \le 1 \\ -|x| + 0.5 & |x| > 1 \end{cases}

What is shown is their sum, :math:`f(x) = 0.5\, x^2` in the middle and :math:`|x| - 0.5` outside:
the least value is at 0. From :math:`x_0 = 2`, 100 runs of 100000 steps; every optimizer is given
the same draws. No momentum (``b1 = 0``). Adam and AMSGrad have lr 0.8 and b = 0.9; MAdam has lr
1.2, b in [0.5, 1] and b = 0.9 in the first step. With :math:`d` a rule's denominator,

.. math::

    S_1 = \sum_t \left| \eta\, g_t / d_t \right|, \qquad
    S_2 = \sum_t \left| \eta / d_t - \eta / d_{t-1} \right|, \quad 1 / d_0 := 0.

Zhu et al., *MaxVA*, 2020, Figure 1, https://arxiv.org/abs/2006.11918. The start, the number of
steps, b of the first step and what is summed in S1 (the axis of the authors' figure says its
square) were read off the authors' script, https://github.com/zhuchen03/MaxVA.

Beside the paper's: Adam with larger b and smaller lr, AMSGrad with MAdam's lr, and MAdam as that
script has it, which divides 1 and not lr by d, and takes another mean (see ``_maxva_script.py``).
"""

import math
from typing import Any

import numpy as np

import arrayopt as ao

from . import Row, Tell
from ._record import rule, short

EMA = {"b1": 0.0, "eps": 1e-8}
WEIGHTED = EMA | {"b_lo": 0.5, "b_hi": 1.0, "b_first": 0.9, "delta": 1e-20}
SETTINGS: dict[str, Any] = {
    "start": 2.0,
    "near": 0.1,  # what counts as arrived
    "steps": 100_000,
    "points": 71,  # of a curve: steps evenly spaced on a log axis
    "runs": 100,
    "sweeps": [  # each one batched run: the optimizers' names, and hyperparameters
        {
            "rule": "adam",
            "names": ["Adam", "Adam, b 0.999", "Adam, lr 0.1", "Adam, lr 0.1, b 0.999"],
            "options": EMA | {"lr": [0.8, 0.8, 0.1, 0.1], "b2": [0.9, 0.999, 0.9, 0.999]},
        },
        {
            "rule": "amsgrad",
            "names": ["AMSGrad", "AMSGrad, lr 1.2"],
            "options": EMA | {"lr": [0.8, 1.2], "b2": [0.9, 0.9]},
        },
        {
            "rule": "maxva_madam",
            "names": ["MAdam", "MAdam, lr 1"],
            "options": WEIGHTED | {"lr": [1.2, 1.0]},
        },
        {
            "rule": "_maxva_script",
            "names": ["MAdam, script"],
            "options": WEIGHTED | {"lr": [1.0], "mean": "u"},
        },
    ],
}
QUICK = {"steps": 300, "points": 12, "runs": 10}
SHOWN = ("Adam", "AMSGrad", "MAdam")  # as in the paper's figure
PANELS = {
    "f": "f(x)",
    "S1": "S1: update sizes so far",
    "S2": "S2: changes of the adaptive step so far",
    "near": "runs near 0, of all",
}


def sweep(of: dict[str, Any]) -> ao.Sweep:
    """One entry per name."""
    options = {k: np.array(v) if isinstance(v, list) else v for k, v in of["options"].items()}
    return ao.Sweep(rule(of["rule"]), **options)


def gradient(x: Any, first: Any, *, xp: Any) -> Any:
    """Of f_1 where ``first``, else of one of the other ten."""
    inside = xp.clip(x, -1.0, 1.0)
    return xp.where(first, 11.0 * inside, -inside)


def objective(x: Any) -> Any:
    """The sum of the 11."""
    return np.where(np.abs(x) <= 1, 0.5 * x**2, np.abs(x) - 0.5)


def denominator(opt: ao.Sweep, state: Any, xp: Any) -> Any:
    """What the rule divided the last gradient by, without eps: (optimizers, runs)."""
    slots = state.slots
    if opt.name == "adam" or opt.name == "amsgrad":
        b2 = xp.reshape(xp.asarray(opt.options["b2"]), (-1, 1))
        square = slots.v if opt.name == "adam" else slots.w
        return xp.sqrt(square / (1.0 - b2**state.step))
    return xp.sqrt(slots.v / slots.w)


def critical() -> float:
    """The step a = lr / d above which 0 repels: the mean of log |1 - a f_i''(0)| is 0 there."""
    low, high = 0.1, 0.2
    for _ in range(60):
        a = (low + high) / 2
        grows = math.log(abs(1 - 11 * a)) + 10 * math.log(1 + a) > 0
        low, high = (low, a) if grows else (a, high)
    return low


def run(settings: dict[str, Any], tell: Tell, *, seed: int) -> dict[str, Any]:
    """Median and standard error over the runs, at steps that are evenly spaced on a log axis."""
    first = draws(settings, seed)
    at = np.geomspace(1, settings["steps"], settings["points"])
    at = np.unique(at.round().astype(int))
    curves: dict[str, Any] = {}
    for i, of in enumerate(settings["sweeps"]):
        tell(i / len(settings["sweeps"]), of["names"][0])
        seen = follow(sweep(of), first, at, settings)
        for name, rows in zip(of["names"], seen, strict=True):
            curves[name] = {k: [row[k] for row in rows] for k in rows[0]}
    return {"at": at.tolist(), "critical": short(critical()), "curves": curves}


def draws(settings: dict[str, Any], seed: int) -> np.ndarray:
    """Whether it is f_1 that a step of a run draws: (steps, runs)."""
    shape = settings["steps"], settings["runs"]
    return np.random.default_rng(seed).integers(0, 11, shape) == 0


def follow(
    opt: ao.Sweep, first: np.ndarray, at: np.ndarray, settings: dict[str, Any]
) -> list[list[dict[str, float]]]:
    """For each of the optimizers, what is seen of it at the steps ``at``."""
    import jax
    from jax import numpy as xp

    from ..backends import jax as backend

    rates = np.broadcast_to(opt.options["lr"], opt.n).reshape(-1, 1)

    def one(t: Any, carry: Any) -> Any:
        x, state, s1, s2, before = carry
        g = gradient(x, drawn[t], xp=xp)
        new, state = opt.step(x, g, state)
        now = rates / (denominator(opt, state, xp) + opt.options["eps"])
        return new, state, s1 + xp.abs(new - x), s2 + xp.abs(now - before), now

    advance = jax.jit(lambda start, stop, carry: jax.lax.fori_loop(start, stop, one, carry))
    with backend.session("float64"):
        drawn = xp.asarray(first)
        x = xp.full((opt.n, first.shape[1]), settings["start"])
        none = xp.zeros_like(x)
        carry = x, opt.init(x), none, none, none
        seen = []
        for start, stop in zip([0, *at[:-1]], at, strict=True):
            carry = advance(int(start), int(stop), carry)
            x, _, s1, s2, now = map(np.asarray, (carry[0], 0, *carry[2:]))
            near = (np.abs(x) < settings["near"]).sum(axis=1)
            seen.append([row(near[i], x[i], s1[i], s2[i], rates[i] / now[i]) for i in range(opt.n)])
    return [list(rows) for rows in zip(*seen, strict=True)]


def row(near: int, x: np.ndarray, *sums: np.ndarray) -> dict[str, float]:
    """Median and standard error over the runs, of S1, S2 and d too; and how many are near 0."""
    found: dict[str, float] = {"near": int(near)}
    for name, values in zip(("f", "S1", "S2", "d"), (objective(x), *sums), strict=True):
        found[name] = short(np.median(values))
        found[f"{name}_se"] = short(values.std() / math.sqrt(len(values)))
    return found


def reached(numbers: dict[str, Any], name: str, share: float) -> int | None:
    """The first recorded step from which on that share of the runs is near 0."""
    near = np.asarray(numbers["curves"][name]["near"])
    ever = np.minimum.accumulate(near[::-1])[::-1] >= share * numbers["settings"]["runs"]
    return numbers["at"][int(ever.argmax())] if ever.any() else None


def table(numbers: dict[str, Any]) -> list[Row]:
    """The paper's three, and what is beside them."""
    runs = numbers["settings"]["runs"]
    rows, said = [], {"Adam": "diverges", "AMSGrad": "", "MAdam": "100 of 100 near 0"}
    for name, curve in numbers["curves"].items():
        end = {k: v[-1] for k, v in curve.items()}
        here = f"{end['near']} of {runs} near 0"
        half, every = (reached(numbers, name, share) for share in (0.5, 1.0))
        here += f" (half from step {half}, all from step {every})" if every else ""
        here += "".join(f"; {k} {end[k]:.3g}" for k in ("f", "S1", "S2", "d"))
        rows.append(Row(name, said.get(name, "(not there)"), here))
    return rows


def draw(numbers: dict[str, Any], figure: Any) -> None:
    """f, S1 and S2 as in the paper, median and standard error; and how many have arrived."""
    figure.set_size_inches(10, 7.5)
    at = np.asarray(numbers["at"])
    axes = figure.subplots(2, 2, sharex=True)
    for ax, (key, label) in zip(axes.flat, PANELS.items(), strict=True):
        for i, name in enumerate(SHOWN):
            y = np.asarray(numbers["curves"][name][key])
            ax.plot(at, y, color=f"C{i}", lw=2, label=name)
            if key != "near":
                error = np.asarray(numbers["curves"][name][f"{key}_se"])
                ax.fill_between(at, y - error, y + error, color=f"C{i}", alpha=0.2, lw=0)
        ax.set_xscale("log")
        ax.set_yscale("linear" if key == "near" else "log")
        ax.set_title(label, fontsize=14)
        ax.tick_params(labelsize=12)
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylim(1e-6, 1e5)
    for ax in axes[1]:
        ax.set_xlabel("steps", fontsize=13)
    axes[0, 0].legend(fontsize=13)
