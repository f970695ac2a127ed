r"""MADA on the counter-example to Adam of Reddi et al.

One number :math:`x \in [-1, 1]`, started at 0 and projected after each step, and the losses

.. math::

    f_t(x) = \begin{cases} 1010\, x & t \bmod 101 = 1 \\ -10\, x & \text{else} \end{cases}
    \qquad R_T / T = \frac1T \sum_{t=1}^T \left( f_t(x_t) - f_t(-1) \right)

for :math:`t = 1, \dots, T` in float64, with lr 1e-3, ``b1 = 0.9`` and ``b2 = 0.99``. The sum of the
losses has its least value at -1 for any T, so that this is the average regret. T = 1 999 800, whole
cycles of 101: within one the average jumps. Nothing is random: the seed has no effect.

Reddi et al., *On the Convergence of Adam and Beyond*, 2018, section 3 and figure 1,
https://arxiv.org/abs/1904.09237, as it is used in Ozkara et al., *MADA*, 2024,
https://arxiv.org/abs/2401.08893. Read off the latter's ``amsgrad_toy.py``, in
https://github.com/amazon-science/mada_optimizer_search: the start, ``b2`` and what "script" is (b3,
rho and c learn at 0.1 with momentum 0.9, over the mean). Beside it: the rule's defaults, the
maximum, and runs that learn fewer coefficients or none.
"""

from typing import Any

import numpy as np

import arrayopt as ao

from . import Row, Tell
from ._record import short

NAMES = ("b1", "b2", "b3", "rho", "c")
SCRIPT = {"b3": 0.1, "rho": 0.1, "c": 0.1}
DEFAULTS = {"b1": 5e-4, "b2": 5e-4} | SCRIPT
FEWER = [["b3", "rho"], ["rho"]]
SETTINGS: dict[str, Any] = {
    "lr": 1e-3,
    "b2": 0.99,
    "window": 10_100,  # steps, whole cycles
    "windows": 198,
    "plain": {"Adam": "adam", "AMSGrad": "amsgrad", "AVGrad": "avgrad"},
    "accumulate": ["mean", "max"],  # each of what follows is done with both
    "groups": {  # runs that are one sweep; the first of each learns all that has a rate
        "script": {
            "rates": SCRIPT,
            "learned": [[*SCRIPT], *FEWER],
            "options": {"hyper_momentum": 0.9, "yogi_reference": "ema"},
        },
        "defaults": {
            "rates": DEFAULTS,
            "learned": [[*DEFAULTS], [*SCRIPT], *FEWER],
            "options": {},
        },
    },
    "fixed": [0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0],  # values of a rho that is not learned
}
QUICK = {"window": 505, "windows": 4}


def sweep(settings: dict[str, Any], group: str, accumulate: str) -> ao.Sweep:
    """The optimizer of a group, one entry for each set of learned coefficients."""
    of = settings["groups"][group]
    rates = {
        f"hlr_{x}": np.array([of["rates"].get(x, 0.0) * (x in some) for some in of["learned"]])
        for x in NAMES
    }
    options = of["options"] | {"lr": settings["lr"], "b2": settings["b2"]}
    return ao.Sweep("mada", accumulate=accumulate, **rates, **options)


def fixed(settings: dict[str, Any], accumulate: str) -> ao.Sweep:
    """MADA that learns nothing, one entry for each rho."""
    options = {f"hlr_{x}": 0.0 for x in NAMES} | {"lr": settings["lr"], "b2": settings["b2"]}
    return ao.Sweep("mada", rho=np.array(settings["fixed"]), accumulate=accumulate, **options)


def slope(t: Any, xp: Any) -> Any:
    """The derivative of f_t."""
    return xp.where(t % 101 == 1, 1010.0, -10.0)


def follow(opt: Any, n: int, steps: int, window: int) -> dict[str, Any]:
    """``n`` runs: their last x, and for each window the regret at its end and the means in it."""
    import jax
    from jax import numpy as jnp

    from ..backends import jax as backend

    def step(carry: Any, t: Any) -> Any:
        x, state, regret = carry
        g = slope(t, jnp)
        regret = regret + g * (x + 1)
        x, state = opt.step(x, jnp.full_like(x, g), state)
        x = jnp.clip(x, -1.0, 1.0)
        return (x, state, regret), (x, state.shared)

    def steps_of(carry: Any, before: Any) -> Any:
        carry, path = jax.lax.scan(step, carry, before + jnp.arange(1, window + 1))
        return carry, jax.tree.map(lambda values: values.mean(axis=0), path)

    advance = backend.compiled(steps_of)
    with backend.session("float64"):
        x = jnp.zeros(n)
        carry, rows = (x, opt.init(x), jnp.zeros(n)), []
        for before in range(0, steps, window):
            carry, (mean, shared) = advance(carry, before)
            learned = {} if shared == () else shared.value._asdict()
            rows.append({"x": mean, "regret": carry[2] / (before + window), **learned})
        rows = [{k: np.asarray(v) for k, v in row.items()} for row in rows]
        return {k: np.stack([row[k] for row in rows]) for k in rows[0]} | {
            "last": np.asarray(carry[0])
        }


def run(settings: dict[str, Any], tell: Tell, *, seed: int) -> dict[str, Any]:
    """Curves of the named runs, and the ends of those beside them."""
    window, runs, ends = settings["window"], {}, []
    todo = optimizers(settings)
    for i, (title, which, entries, opt) in enumerate(todo):
        tell(i / len(todo), title)
        seen = follow(opt, len(entries), window * settings["windows"], window)
        last = seen.pop("last")
        if which == "learned":
            runs[title] = {k: short(column[:, 0]) for k, column in seen.items()}
        for j, entry in enumerate(entries):
            what = {k: short(column[-1, j]) for k, column in seen.items()}
            ends.append({"run": title, **what, "x": short(last[j]), which: entry})
    return {"runs": runs, "ends": ends}


def optimizers(settings: dict[str, Any]) -> list[tuple[str, str, list[Any], Any]]:
    """Titles, in what the runs of each differ, which these are, and the optimizer of all."""
    usual = {"lr": settings["lr"], "b2": settings["b2"]}
    found: list[tuple[str, str, list[Any], Any]] = [
        (title, "learned", [""], ao.Optimizer(rule, **usual))
        for title, rule in settings["plain"].items()
    ]
    for group, of in settings["groups"].items():
        learned = [" ".join(some) for some in of["learned"]]
        for how in settings["accumulate"]:
            found.append((f"MADA {group}, {how}", "learned", learned, sweep(settings, group, how)))
    for how in settings["accumulate"]:
        found.append((f"fixed, {how}", "rho", settings["fixed"], fixed(settings, how)))
    return found


def end(numbers: dict[str, Any], title: str, **which: float) -> dict[str, Any]:
    """How a run ended: the first of that title with such entries."""
    mine = {"run": title, **which}
    return next(e for e in numbers["ends"] if mine.items() <= e.items())


def table(numbers: dict[str, Any]) -> list[Row]:
    """Last x and average regret of the named runs."""
    paper = {"Adam": "+1, 0.227", "AMSGrad": "near -1, 0.065", "MADA script, mean": "between"}
    rows = []
    for title in numbers["runs"]:
        e = end(numbers, title)
        here = f"{e['x']:+.4f}, {e['regret']:.4f}"
        if "rho" in e:
            here += "; " + ", ".join(f"{k} {e[k]:.2g}" for k in NAMES)
        rows.append(Row(f"{title}: last x, average regret", paper.get(title, "-"), here))
    return rows


def draw(numbers: dict[str, Any], figure: Any) -> None:
    """x and regret of every run, the end over a fixed rho, and what three of them learned."""
    figure.set_size_inches(12, 7.5)
    (a, b, c), below = figure.subplots(2, 3)
    window, rhos = numbers["settings"]["window"], numbers["settings"]["fixed"]
    steps = window * np.arange(1, len(numbers["runs"]["Adam"]["x"]) + 1) / 1e6
    colors = dict(zip(numbers["runs"], ("C3", "C0", "C9", "C2", "C1", "C4", "C5"), strict=True))
    for title, run in numbers["runs"].items():
        style = {"color": colors[title], "ls": "-" if "MADA" in title else "--", "label": title}
        a.plot(steps, run["x"], **style)
        b.plot(steps, run["regret"], **style)
    a.set(ylabel="x (mean over a window)", title="the iterate; the best is -1", ylim=(-1.05, 1.05))
    b.set(ylabel="average regret", title="average regret", ylim=(0, 0.26))
    handles, labels = a.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    for how, mark in (("mean", "o-"), ("max", "s--")):
        last = [end(numbers, f"fixed, {how}", rho=rho)["x"] for rho in rhos]
        c.plot(range(len(rhos)), last, mark, color="0.3" if how == "max" else "C6", label=how)
    c.set(xlabel="ρ, held fixed", ylabel="x at the end", title="nothing learned", ylim=(-1.1, 1.1))
    c.set_xticks(range(len(rhos)), [f"{rho:g}" for rho in rhos])
    c.legend()
    shown = ("MADA script, mean", "MADA defaults, max", "MADA defaults, mean")
    for axes, title in zip(below, shown, strict=True):
        for k, label in zip(NAMES, ("β1", "β2", "β3", "ρ", "c"), strict=True):
            axes.plot(steps, numbers["runs"][title][k], label=label)
        axes.set_title(title, color=colors[title])
        axes.set(ylim=(-0.03, 1.03), ylabel="coefficient")
    below[0].legend(ncols=2, loc="center right", bbox_to_anchor=(1.0, 0.63))
    for axes in (a, b, *below):
        axes.set_xlabel("steps (millions)")
    for axes in (a, b, c, *below):
        axes.grid(alpha=0.3)
