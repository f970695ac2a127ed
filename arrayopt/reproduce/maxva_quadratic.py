r"""MAdam and Adam on a noisy quadratic (MaxVA, Figures 2 and 6, Eq. 13).

The loss :math:`f(x) = \tfrac12 \sum_i h_i x_i^2` of two variables, whose gradient is seen through
noise, :math:`g_i = h_i (x_i - \sigma \xi_i)`, with :math:`\xi` standard normal and new in each
step, from a standard normal :math:`x_0`. What counts is f after 1000 steps, the mean over runs, for
each learning rate of the authors' list: of Adam with the best b of 0.5, 0.6, 0.7, 0.8, 0.9, 0.99,
and of MAdam with b in [0.5, 0.99]; b1 = 0.9, eps = 1e-10. Start and noise of a run are the same
for every optimizer, learning rate and setting.

The paper has 100 runs. Here that is done 20 times, with other starts and noise: the first time is
drawn, the 20 show how far such a result is one of chance, and all 2000 runs together are the
result; also with a finer list of learning rates and b, because it is the best ones that are
compared. Measured besides, at each rule's best learning rate: how fast a coordinate that starts
beyond 1 travels, :math:`(|x_0| - |x_{100}|) / (100\, \eta)`, and how large steps are in the end,
where noise is all there is, as :math:`h \sigma / d` with d the denominator.

Zhu et al., *MaxVA*, 2020, Figure 2, https://arxiv.org/abs/2006.11918. Learning rates, b, start
and the setting h = (1, 20), sigma = 0.2 are those of the authors' script,
https://github.com/zhuchen03/MaxVA; the other settings are ours. That script's MAdam takes another
mean in its weight than the paper's, and is here too (see ``_maxva_script.py``).
"""

from typing import Any, NamedTuple

import numpy as np

import arrayopt as ao

from . import Row, Tell
from ._record import rule, short

LISTS = ("authors", "finer")
EMA = {"b1": 0.9, "eps": 1e-10}
WEIGHTED = EMA | {"b_lo": 0.5, "b_hi": 0.99, "b_first": 0.99}
SETTINGS: dict[str, Any] = {
    "rules": {  # the rule, and what all of its runs have
        "Adam": ["adam", EMA],
        "MAdam": ["maxva_madam", WEIGHTED],
        "MAdam, script": ["_maxva_script", WEIGHTED],
    },
    "authors": {  # learning rates, and b of Adam
        "lr": [*(short(a * s) for s in (1e-3, 1e-2) for a in range(1, 10)), 0.1, 0.2],
        "b2": [0.5, 0.6, 0.7, 0.8, 0.9, 0.99],
    },
    "finer": {
        "lr": short(np.geomspace(2e-3, 12e-3, 19)),
        "b2": [0.7, 0.8, 0.9, 0.95, 0.97, 0.99],
    },
    "problems": [[h, sigma] for sigma in (0.05, 0.2, 1.0) for h in (5.0, 20.0, 100.0)],
    "experiments": 20,
    "runs": 100,  # of each experiment
    "steps": 1000,
    "early": 100,  # after so many the speed is measured
}
QUICK = {"experiments": 2, "runs": 10, "steps": 120}


class Seen(NamedTuple):
    """What is measured, for each optimizer and problem."""

    loss: np.ndarray  # at the end, of each run
    speed: np.ndarray  # mean, in units of lr a step, over coordinates that start beyond 1
    pull: np.ndarray  # mean of h sigma / d at the end


def sweep(of: list[Any], lr: Any, b2: Any) -> ao.Sweep:
    """A rule with one entry for each learning rate, and with Adam for each b of each of them."""
    name, every = of
    if name == "adam":
        return ao.Sweep(name, lr=np.repeat(lr, len(b2)), b2=np.tile(b2, len(lr)), **every)
    return ao.Sweep(rule(name), lr=np.asarray(lr), **every)


def descend(opt: ao.Sweep, starts: np.ndarray, noise: np.ndarray, settings: dict[str, Any]) -> Seen:
    """Eq. 13: every optimizer on every problem.

    Args:
        opt: the optimizers, the first axis of all arrays inside; problems are the second.
        starts: (experiments, runs, 2).
        noise: (experiments, steps, runs, 2).
        settings: of these the problems, and when the speed is measured.
    """
    import jax
    from jax import numpy as xp

    from ..backends import jax as backend

    problems = settings["problems"]

    def experiment(start: Any, xi: Any) -> Seen:
        def one(t: Any, carry: Any) -> Any:
            x, state = carry
            return opt.step(x, h * (x - sigma * xi[t]), state)

        soon, steps = min(settings["early"], len(xi)), len(xi)
        x0 = xp.broadcast_to(start, (opt.n, len(problems), *start.shape))
        early = jax.lax.fori_loop(0, soon, one, (x0, opt.init(x0)))
        x, state = jax.lax.fori_loop(soon, steps, one, early)
        weights = 1.0 - b2**steps if opt.name == "adam" else state.slots.w
        pull = h * sigma / xp.sqrt(state.slots.v / weights)
        speed = (xp.abs(x0) - xp.abs(early[0])) / (soon * lr)
        speed = xp.mean(speed, axis=(-2, -1), where=xp.abs(x0) > 1)
        return Seen(0.5 * xp.sum(h * x * x, axis=-1), speed, xp.mean(pull, axis=(-2, -1)))

    with backend.session("float64"):
        h = xp.asarray([(1.0, h) for h, _ in problems])[:, None, :]
        sigma = xp.asarray([sigma for _, sigma in problems])[:, None, None]
        given = (opt.options["lr"], opt.options.get("b2", 0.0))
        lr, b2 = (xp.reshape(xp.asarray(a), (-1, 1, 1, 1)) for a in given)
        compiled = jax.jit(experiment)
        seen = [compiled(*each) for each in zip(starts, noise, strict=True)]
        loss, speed, pull = (np.stack(a) for a in zip(*seen, strict=True))
    return Seen(np.concatenate(loss, axis=-1), speed.mean(0), pull.mean(0))


def run(settings: dict[str, Any], tell: Tell, *, seed: int) -> dict[str, Any]:
    """Losses over learning rates, and each rule at its best one, with both lists."""
    starts, noise = draws(settings, seed)
    found: dict[str, Any] = {}
    for i, which in enumerate(LISTS):
        seen = {}
        for j, (name, of) in enumerate(settings["rules"].items()):
            tell((i + j / len(settings["rules"])) / len(LISTS), f"{name}, {which} list")
            opt = sweep(of, **settings[which])
            seen[name] = opt, descend(opt, starts, noise, settings)
        found[which] = [
            {"h": h, "sigma": sigma} | compare(seen, j, settings["experiments"])
            for j, (h, sigma) in enumerate(settings["problems"])
        ]
    return found


def draws(settings: dict[str, Any], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts and noise, as for :func:`descend`."""
    rng = np.random.default_rng(seed)
    experiments, runs = settings["experiments"], settings["runs"]
    starts = rng.standard_normal((experiments, runs, 2))
    return starts, rng.standard_normal((experiments, settings["steps"], runs, 2))


def compare(seen: dict[str, tuple[ao.Sweep, Seen]], j: int, experiments: int) -> dict[str, Any]:
    """The rules on problem ``j``: over learning rates, at their best ones, and beside Adam."""
    found: dict[str, Any] = {}
    for name, (opt, (losses, speed, pull)) in seen.items():
        loss = losses[:, j].reshape(opt.n, experiments, -1)
        k = int(loss.mean((1, 2)).argmin())
        best, least = loss[k].ravel(), loss.mean(2).min(0)  # of all runs; of each experiment
        if name == "Adam":
            adam, adam_least = best, least
        ratio = best.mean() / adam.mean()
        error = (best - ratio * adam).std() / adam.mean() / np.sqrt(best.size)
        found[name] = over_rates(opt, loss[:, 0]) | {
            "best": {key: short(opt.options[key][k]) for key in ("lr", "b2") if key in opt.options},
            "best_loss": short(best.mean()),
            "lower": short(100 * (1 - ratio)),
            "lower_se": short(100 * error),
            "lower_each": short(100 * (1 - least / adam_least)),
            "speed": short(speed[k, j]),
            "pull": short(pull[k, j]),
        }
    return found


def over_rates(opt: ao.Sweep, loss: np.ndarray) -> dict[str, list[float]]:
    """Mean and standard error at each learning rate, with the b that is best there."""
    rates = np.unique(opt.options["lr"])
    mean = loss.mean(1).reshape(len(rates), -1)
    at = np.arange(len(rates)), mean.argmin(1)
    error = loss.std(1).reshape(mean.shape) / np.sqrt(loss.shape[1])
    b2 = {"b2": short(opt.options["b2"][at[1]])} if opt.name == "adam" else {}
    return {"loss": short(mean[at]), "se": short(error[at])} | b2


def table(numbers: dict[str, Any]) -> list[Row]:
    """By how much the loss is lower than Adam's, each rule at its best learning rate."""
    rows = []
    for s, finer in zip(*(numbers[which] for which in LISTS), strict=True):
        each = s["MAdam"]["lower_each"]
        here = (
            f"{percent(s['MAdam'])} (100 runs at a time: {min(each):.0f} to {max(each):.0f}); "
            f"finer list {percent(finer['MAdam'])}; script's MAdam {percent(s['MAdam, script'])}, "
            f"finer {percent(finer['MAdam, script'])}"
        )
        rows.append(Row(f"h = 1, {s['h']:g}; noise {s['sigma']:g}", "30 to 40 % lower", here))
    return rows


def percent(of: dict[str, Any]) -> str:
    """By how much lower, with its standard error."""
    return f"{of['lower']:.1f} ± {of['lower_se']:.1f} %"


def draw(numbers: dict[str, Any], figure: Any) -> None:
    """Mean and standard error of the loss over learning rates, one panel for each problem."""
    figure.set_size_inches(8.5, 7.5)
    axes = figure.subplots(3, 3, sharex=True)
    lr = numbers["settings"]["authors"]["lr"]
    for ax, s in zip(axes.flat, numbers["authors"], strict=True):
        styles = zip(numbers["settings"]["rules"], ("o-", "s-", "--"), strict=True)
        for (name, line), color in zip(styles, ("C0", "C2", "C7"), strict=True):
            y, error = np.asarray(s[name]["loss"]), np.asarray(s[name]["se"])
            label = "Adam, best b" if name == "Adam" else name
            ax.plot(lr, y, line, color=color, lw=1.8, ms=4, label=label)
            ax.fill_between(lr, y - error, y + error, color=color, alpha=0.25, lw=0)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_title(f"h = 1, {s['h']:g};  noise {s['sigma']:g}", fontsize=12)
        ax.tick_params(labelsize=12)
    for ax in axes[2]:
        ax.set_xlabel("learning rate", fontsize=12)
    for ax in axes[:, 0]:
        ax.set_ylabel(f"loss after {numbers['settings']['steps']} steps", fontsize=12)
    axes[0, 0].legend(fontsize=11)
