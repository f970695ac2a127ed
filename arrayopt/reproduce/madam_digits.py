r"""Madam on digits: rates across depths, signs that stay, weights of few bits.

Perceptrons (``arrayopt.mlp``) of 2 to 10 layers, 64 units each, on the digits of scikit-learn: 30
epochs in batches of 64, float32; the learning rate :math:`\eta\,(1 - n / N)` falls to 0. Three
seeds draw the weights and the batches; accuracies are those on the test set, in the mean.

1. A grid of :math:`\eta` at each depth, for SGD (momentum 0.9), Adam and Madam. "Tuned" is the rate
   of the best accuracy at 2 layers, the smaller of equals. Madam's rate without tuning is 0.01.
2. At 4 layers and these rates: which signs change, and log10 of the magnitudes in the matrices.
3. Madam in B bits (``_madam_log.py``) at 4 layers: :math:`2^B` levels and the base step
   :math:`4.096 / 2^B`, so that all have the range of magnitudes of the authors' 12 bits with 0.001.
   "Floor" is a rate that never falls below one base step.

Bernstein et al., *Learning compositional functions via multiplicative weight updates*, 2020, figure
1 for the grid of rates, and B-bit Madam, https://arxiv.org/abs/2006.14560. There the tasks are
image classification, language modelling and GANs.
"""

from typing import Any

import numpy as np

import arrayopt as ao

from .. import mlp
from . import Row, Tell
from ._digits import Runs, few_bits, length, train
from ._record import short

SETTINGS: dict[str, Any] = {
    "rules": {"SGD": {"momentum": 0.9}, "Adam": {}, "Madam": {}},
    "layers": [2, 4, 6, 8, 10],
    "deep": 4,  # layers for signs and bits
    "width": 64,
    "rates": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0],
    "untuned": 0.01,  # Madam's rate
    "epochs": 30,
    "batch": 64,
    "seeds": 3,
    "bits": [12, 10, 8, 7, 6, 5, 4],
    "range": 4.096,  # of the logarithm of a magnitude in few bits
    "edges": [-4.0, 1.0, 51],  # of the bins of log10 of a magnitude: first, last, number
}
QUICK = {
    "layers": [2],
    "deep": 2,
    "rates": [0.01, 0.1],
    "epochs": 1,
    "seeds": 1,
    "bits": [12, 10],
}


def run(settings: dict[str, Any], tell: Tell, *, seed: int) -> dict[str, Any]:
    """The three experiments."""
    data, rates = mlp.load(seed), settings["rates"]
    seeds = list(range(seed, seed + settings["seeds"]))
    total = length(data, settings)
    eta = np.repeat(rates, len(seeds))

    def mean(values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, len(seeds)).mean(axis=1)

    grid: dict[str, Any] = {}
    signs: dict[str, Any] = {}
    rules, layers = settings["rules"], settings["layers"]
    for i, (name, options) in enumerate(rules.items()):
        grid[name] = {"accuracy": []}
        for j, depth in enumerate(layers):
            tell((i + j / len(layers)) / (len(rules) + 1), f"{name}, {depth} layers")
            opt = ao.Sweep(name.lower(), lr=lambda n: eta * (1 - n / total), **options)
            runs = train(opt, data, depth, seeds, settings)
            grid[name]["accuracy"].append(short(mean(runs.accuracy)))
            if j == 0:
                grid[name]["tuned"] = rates[int(np.argmax(mean(runs.accuracy)))]
            if depth == settings["deep"]:
                which = {grid[name]["tuned"]} | (
                    {settings["untuned"]} if name == "Madam" else set()
                )
                for rate in sorted(which):
                    of = weights(runs, eta == rate, np.linspace(*settings["edges"]))
                    signs[f"{name}, lr {rate:g}"] = of
    tell(len(rules) / (len(rules) + 1), "B bits")
    return {"grid": grid, "signs": signs, "bits": few_bits(data, seeds, settings)}


def weights(runs: Runs, mine: np.ndarray, edges: np.ndarray) -> dict[str, Any]:
    """Of some runs: changes of a sign, and log10 of the magnitudes in the matrices."""
    old, new = (
        np.concatenate([np.ravel(p[k][mine]) for k in p if k[0] == "w"])
        for p in (runs.first, runs.last)
    )
    found: dict[str, Any] = {
        "flips": int(runs.flips[mine].sum()),
        "turned": short(np.mean(np.sign(old) != np.sign(new))),
    }
    for name, x in (("first", old), ("last", new)):
        log = np.clip(np.log10(np.abs(x)), edges[0], edges[-1])
        found[name] = {
            "std": short(log.std()),
            "share": short(np.histogram(log, edges)[0] / x.size),
        }
    return found


def table(numbers: dict[str, Any]) -> list[Row]:
    """Best rates and accuracies by depth, changes of a sign, accuracies by bits."""
    settings = numbers["settings"]
    depths = ", ".join(map(str, settings["layers"]))
    rows = []
    for name, found in numbers["grid"].items():
        best = [settings["rates"][int(np.argmax(a))] for a in found["accuracy"]]
        paper = "0.01 in every task" if name == "Madam" else "varies with the task"
        rows.append(Row(f"{name}: best lr at {depths} layers", paper, listed(best, "g")))
        most = [
            max(lr for lr, x in zip(settings["rates"], row, strict=True) if x >= min(0.9, max(row)))
            for row in found["accuracy"]
        ]
        rows.append(Row(f"{name}: largest lr above 0.9 at {depths}", "", listed(most, "g")))
    for name, lr in carried(numbers):
        here = listed(curve(numbers, name, lr), ".3f")
        rows.append(Row(f"{name}, lr {lr:g}: accuracy at {depths}", "", here))
    for title, found in numbers["signs"].items():
        here = f"{found['flips']}; {100 * found['turned']:.3g} % of the weights in the end"
        paper = "none" if "Madam" in title else ""
        rows.append(Row(f"{title}: changes of a sign", paper, here))
    for floor, title in ((False, "rate to 0"), (True, "rate with floor")):
        mine = [b for b in numbers["bits"] if b["floor"] == floor]
        name = ", ".join(str(b["bits"]) for b in mine)
        here = listed([np.mean(b["accuracy"]) for b in mine], ".3f")
        rows.append(Row(f"Madam in {name} bits, {title}: accuracy", "8 to 12 bits suffice", here))
    off = max(b["off"] for b in numbers["bits"])
    rows.append(Row("Largest distance from the grid, in base steps", "0", f"{off:.2g}"))
    return rows


def carried(numbers: dict[str, Any]) -> list[tuple[str, float]]:
    """Rules with the rates that are taken to all depths."""
    tuned = [(name, found["tuned"]) for name, found in numbers["grid"].items()]
    untuned = ("Madam", numbers["settings"]["untuned"])
    return [*tuned, *([untuned] if untuned not in tuned else [])]


def curve(numbers: dict[str, Any], name: str, lr: float) -> list[float]:
    """Accuracies of a rule with one rate, at each depth."""
    i = numbers["settings"]["rates"].index(lr)
    return [row[i] for row in numbers["grid"][name]["accuracy"]]


def listed(values: list[float], form: str) -> str:
    return ", ".join(format(v, form) for v in values)


def draw(numbers: dict[str, Any], figure: Any) -> None:
    """Accuracy over rates by depth, over depths, magnitudes before and after, accuracy by bits."""
    from matplotlib import colormaps

    colors, settings = colormaps["viridis"], numbers["settings"]
    layers = settings["layers"]
    figure.set_size_inches(12, 7.5)
    above, (a, b, c) = figure.subplots(2, 3)
    for axes, (name, found) in zip(above, numbers["grid"].items(), strict=True):
        for i, (depth, row) in enumerate(zip(layers, found["accuracy"], strict=True)):
            shade = 0.8 * i / len(layers)
            axes.semilogx(
                settings["rates"], row, ".-", color=colors(shade), label=f"{depth} layers"
            )
        axes.axvline(found["tuned"], ls="--", color="0.5")
        axes.set(xlabel="learning rate (dashed: tuned)", ylabel="test accuracy", ylim=(0, 1.02))
        axes.set_title(f"{name}: rates and depths")
    above[0].legend(loc="lower center")
    for i, (name, lr) in enumerate(carried(numbers)):
        accuracy, label = curve(numbers, name, lr), f"{name}, {lr:g}"
        a.plot(layers, accuracy, "o-", color=f"C{i}", label=label)
    a.set(xlabel="layers", ylabel="test accuracy", title="one rate at all depths", ylim=(0, 1.02))
    edges = np.linspace(*settings["edges"])
    middle = (edges[1:] + edges[:-1]) / 2
    for i, (title, found) in enumerate(numbers["signs"].items()):
        b.plot(middle, found["last"]["share"], color=f"C{i}", label=title)
    b.plot(middle, found["first"]["share"], "k:", label="before")
    b.set(xlabel="log10 |w|", ylabel="share of the weights", title="magnitudes after training")
    for floor, mark in ((False, "o-"), (True, "s--")):
        mine = [e for e in numbers["bits"] if e["floor"] == floor]
        label = f"rate {'not below a base step' if floor else 'falls to 0'}"
        bits, accuracy = [e["bits"] for e in mine], [np.mean(e["accuracy"]) for e in mine]
        c.plot(bits, accuracy, mark, color=f"C{4 + floor}", label=label)
    i = layers.index(settings["deep"])
    c.axhline(curve(numbers, "Madam", settings["untuned"])[i], ls=":", color="0.4", label="32 bits")
    c.set(
        xlabel="bits of a magnitude",
        ylabel="test accuracy",
        title=f"Madam in B bits, {settings['deep']} layers",
    )
    for axes in (a, b, c):
        axes.legend()
    for axes in (*above, a, b, c):
        axes.grid(alpha=0.3)
