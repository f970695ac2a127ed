r"""Adamax and Simplified AdEMAMix against Adam on Rosenbrock's function.

:math:`f = (1 - x)^2 + 100 (y - x^2)^2` from (-1.2, 1), with normal noise of deviation
:math:`\sigma` added to both elements of each gradient. Every rule takes the same number of steps
with every hyperparameter of a grid, all in one batched run; the same noise for all of them, anew
for each seed. The score of a choice is the median over the seeds of the mean of f over the last
tenth of the steps.

Three claims are looked at.

1. An element of a step of Adamax is not longer than lr (Kingma & Ba, 2015, section 7.1,
   https://arxiv.org/abs/1412.6980), one of Adam's not longer than lr or
   :math:`(1 - \beta_1) / \sqrt{1 - \beta_2}` times it, whichever is more (section 2.1).
2. Simplified AdEMAMix with alpha = 0 and the rate :math:`(1 - \beta_1) \eta` is Adam with the rate
   :math:`\eta`, but for the bias correction of the momentum.
3. Where noise dominates, the best alpha is large and the best b1 nearer to 1; where curvature does,
   alpha is to be a small multiple of :math:`1 - \beta_1` (Morwani et al., 2025,
   https://arxiv.org/abs/2502.02431; in these words in the README of the authors' code).

Neither paper has Rosenbrock's function: theirs are trained models. Simplified AdEMAMix has
a grid over its rate times :math:`1 / (1 - \beta_1) + \alpha`, which is its step for a gradient that
does not change; so all three rules have the same grid of such steps.
"""

from functools import partial
from typing import Any

import numpy as np

from ..race import draw as races
from . import Row, Tell
from ._record import short
from ._rosenbrock import (
    ROSENBROCK,
    Numbers,
    denominators,
    grid_of,
    lowest,
    path,
    ramp,
    reachable,
    sweep,
    swing,
    thinned,
)

GRID = {
    "alpha": [0.0, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0],
    "b1": [0.5, 0.8, 0.9, 0.95, 0.99, 0.999],
    "b2": [0.95, 0.999],
    "rate": [float(f"{10 ** (k / 3):.3g}") for k in range(-12, 2)],  # 0.0001 to 2.15
}
SETTINGS: dict[str, Any] = {
    "rules": ["adam", "adamax", "simplified_ademamix"],
    "noise": [0.0, 1.0, 10.0],
    "grid": GRID,
    "steps": 3000,
    "seeds": 16,
    "long_momentum": [0, 1],  # these alphas, with the longest momentum and no noise
    "denominators": [50, 200, 500, 1000, 2000],  # after these steps
    "alpha_0": {"b1": 0.95, "b2": 0.999, "rates": [0.0215, 0.215, 0.464]},
}
QUICK = {"grid": GRID | {"rate": GRID["rate"][::4]}, "steps": 100, "seeds": 2}


def run(settings: dict[str, Any], tell: Tell, *, seed: int) -> dict[str, Any]:
    steps, rules, noises = settings["steps"], settings["rules"], settings["noise"]
    alphas, b1s, b2s = (settings["grid"][k] for k in ("alpha", "b1", "b2"))
    found: dict[str, Any] = {"noise": {}, "longest_step": {}, "paths": {}}
    for i, sigma in enumerate(noises):
        rows = found["noise"][f"{sigma:g}"] = {}
        for k, rule in enumerate(rules):
            tell((i + k / len(rules)) / len(noises), f"{rule}, noise {sigma:g}")
            grid = grid_of(rule, settings["grid"])
            scores, longest = sweep(rule, grid, drawn(settings, sigma, seed))
            best = lowest(grid, scores)
            rows[rule] = {"best": best, "score": short(scores.min())}
            if rule == "simplified_ademamix":
                whole = scores.reshape(len(alphas), len(b1s), -1).min(axis=-1)
                rows[rule]["scores"] = short(whole)  # of each alpha and b1
                if not sigma:
                    long = {a: lowest(grid, scores, alpha=a, b1=b1s[-1])
                            for a in settings["long_momentum"]}  # fmt: skip
                    ways = {f"{a:g}": swing(path(rule, h, steps)) for a, h in long.items()}
                    found["long_momentum"] = ways
            elif not sigma:
                of = longest.reshape(len(b1s), len(b2s), -1).max(axis=-1)
                found["longest_step"][rule] = of.tolist()  # of each b1 and b2
                if rule == "adamax":
                    most = [[reachable(b1, b2, steps) for b2 in b2s] for b1 in b1s]
                    found["longest_step"]["adamax_reachable"] = most
                    way = path(rule, best, steps)
                    of = denominators(way, best["b2"], settings["denominators"])
                    found["denominators"] = of
            if not sigma:
                found["paths"][rule] = thinned(path(rule, best, steps))
    found["alpha_0"] = alpha_0(steps, **settings["alpha_0"])
    return found


def drawn(settings: dict[str, Any], sigma: float, seed: int) -> Numbers:
    """The noise of each step and seed, (steps, seeds, 2); without any, one seed is enough."""
    shape = settings["steps"], settings["seeds"] if sigma else 1, 2
    return sigma * np.random.default_rng(seed).standard_normal(shape)


def alpha_0(steps: int, b1: float, b2: float, rates: list[float]) -> dict[str, Any]:
    """How far alpha = 0 is from Adam: the largest distance of the parameters in any step; and how
    Adam does with and without its correction of the momentum, which a schedule of its rate undoes.
    """
    found: dict[str, Any] = {}
    for lr in rates:
        ours = path("simplified_ademamix", {"b1": b1, "b2": b2, "lr": lr * (1 - b1)}, steps)
        ways = {"corrected": lr, "uncorrected": partial(ramp, lr, b1)}
        row = found[f"{lr:g}"] = {}
        for name, rate in ways.items():
            adams = path("adam", {"b1": b1, "b2": b2, "lr": rate}, steps)
            f = ROSENBROCK.value(*adams.T)
            row[name] = {
                "distance": short(np.abs(adams - ours).max()),
                "highest": short(f.max()),
                "end": short(f[-1]),
            }
    return found


def claimed(rule: str, b1: float, b2: float) -> float:
    """The longest step in units of lr, as the paper has it."""
    return max(1.0, (1 - b1) / (1 - b2) ** 0.5) if rule == "adam" else 1.0


def table(numbers: dict[str, Any]) -> list[Row]:
    rows, b1s, b2s = [], *(numbers["settings"]["grid"][k] for k in ("b1", "b2"))
    for rule in ("adam", "adamax"):
        longest = numbers["longest_step"][rule]
        ratios = [
            (step / claimed(rule, b1, b2), step, b1, b2)
            for b1, of in zip(b1s, longest, strict=True)
            for b2, step in zip(b2s, of, strict=True)
        ]
        usual = next(row for row in ratios if row[2:] == (0.9, 0.999))
        for ratio, step, b1, b2 in (usual, max(ratios)):
            what = f"longest step of {rule} / lr, b1 = {b1}, b2 = {b2}"
            rows.append(Row(what, f"{step / ratio:.3g} at most", f"{step:.3f}"))
    for name, paper in (("corrected", "not 0"), ("uncorrected", "0")):
        far = max(of[name]["distance"] for of in numbers["alpha_0"].values())
        what = f"alpha = 0 beside Adam with {name} momentum: largest distance"
        rows.append(Row(what, paper, f"{far:.2g}"))
    for sigma, of in numbers["noise"].items():
        for rule in numbers["settings"]["rules"]:
            best = of[rule]["best"]
            words = ", ".join(f"{k} {v:.3g}" for k, v in best.items())
            rows.append(
                Row(f"{rule}, noise {sigma}", "-", f"f = {of[rule]['score']:.2g} ({words})")
            )
    return rows


def draw(numbers: dict[str, Any], figure: Any) -> None:
    from matplotlib.colors import LogNorm

    alphas, b1s = (numbers["settings"]["grid"][k] for k in ("alpha", "b1"))
    figure.set_size_inches(9, 6.8)
    panels = figure.subplots(2, 2)
    ground, values = panels[0]
    races.contour(ROSENBROCK, ground)
    for (rule, kept), color in zip(numbers["paths"].items(), races.COLORS, strict=False):
        points = np.array(kept["point"])
        style = {"color": color, "label": rule, "linewidth": 1.4}
        ground.plot(*points.T, ".-", markersize=3, **style)
        values.semilogy(kept["step"], kept["f"], **style)
    ground.set_title("without noise: each rule's best choice")
    ground.plot(*ROSENBROCK.start, "o", color="white", markeredgecolor="#111111", zorder=5)
    values.set(xlabel="step", ylabel="f", title="the same, step by step", ylim=(1e-33, 1e3))
    values.grid(alpha=0.3)
    values.legend(loc="upper right", fontsize=8)
    noisy = (next(iter(numbers["noise"])), list(numbers["noise"])[-1])
    for axes, sigma in zip(panels[1], noisy, strict=True):
        scores = np.array(numbers["noise"][sigma]["simplified_ademamix"]["scores"])
        image = axes.imshow(np.maximum(scores, 1e-30), norm=LogNorm(), cmap="viridis_r", aspect=0.7)
        for i, j in np.ndindex(scores.shape):
            shade = image.norm(max(scores[i, j], 1e-30))
            color = "white" if shade > 0.5 else "black"
            axes.text(j, i, f"{scores[i, j]:.2g}", ha="center", va="center", color=color, size=7)
        axes.set_xticks(range(len(b1s)), map(str, b1s))
        axes.set_yticks(range(len(alphas)), [f"{a:g}" for a in alphas])
        adam = numbers["noise"][sigma]["adam"]["score"]
        title = f"Simplified AdEMAMix, noise {sigma}: f at the end\n(Adam's best is {adam:.1g})"
        axes.set(xlabel="b1", ylabel="alpha")
        axes.set_title(title, fontsize=10)
