"""Rosenbrock: what the page claims is what was recorded, and the runs are the papers' updates."""

import json
from pathlib import Path

import numpy as np
import pytest

from arrayopt.reproduce import _rosenbrock as runs
from arrayopt.reproduce import rosenbrock

FILE = Path(__file__).parent.parent / "docs" / "reproduce" / "rosenbrock.json"
RECORDED = json.loads(FILE.read_text())
GRID = rosenbrock.SETTINGS["grid"]


def gradient(x, y):
    return np.array([-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)])


def test_the_sweep_is_the_update_of_the_paper():
    """Simplified AdEMAMix and Adamax written out, with noise, for one choice of the grid each."""
    noise = 3.0 * np.random.default_rng(1).standard_normal((20, 1, 2))
    grid = runs.grid_of("simplified_ademamix", GRID | {"rate": [0.01, 0.1]})
    for i in (0, 77, len(grid["lr"]) - 1):
        b1, b2, lr, alpha = (grid[k][i] for k in ("b1", "b2", "lr", "alpha"))
        p, m, v, longest, last = np.array([-1.2, 1.0]), 0.0, 0.0, 0.0, []
        for t, e in enumerate(noise[:, 0], start=1):
            g = gradient(*p) + e
            m, v = b1 * m + g, b2 * v + (1 - b2) * g**2
            move = lr * (m + alpha * g) / (np.sqrt(v / (1 - b2**t)) + 1e-8)
            p, longest = p - move, max(longest, np.abs(move).max() / lr)
            last.append((1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2)
        score, most = (x[i] for x in runs.sweep("simplified_ademamix", grid, noise))
        assert score == pytest.approx(np.mean(last[-2:]), rel=1e-9)
        assert most == pytest.approx(longest, rel=1e-9)
    p, m, u = np.array([-1.2, 1.0]), 0.0, 0.0
    found = runs.path("adamax", {"lr": 0.1}, 30)
    for t in range(1, 31):
        g = gradient(*p)
        m, u = 0.9 * m + 0.1 * g, np.maximum(0.999 * u, abs(g))
        p = p - 0.1 / (1 - 0.9**t) * m / (u + 1e-8)
        np.testing.assert_allclose(found[t], p, rtol=1e-9)


def test_steps_of_adamax():
    """They pass lr, also at the paper's defaults, and keep what can be reached instead."""
    of = RECORDED["longest_step"]
    defaults = GRID["b1"].index(0.9), GRID["b2"].index(0.999)
    longest, most = np.array(of["adamax"]), np.array(of["adamax_reachable"])
    assert 1.009 < longest[defaults] <= most[defaults] < 1.0091
    assert np.all(longest < most * (1 + 1e-6))
    assert np.argmax(longest) == np.argmax(most)
    for b1, b2 in ((0.9, 0.999), (0.9, 0.95)):  # a sum written out
        g = b2 ** np.arange(200)
        m, u = 0.0, 0.0
        for x in g:
            m, u = b1 * m + (1 - b1) * x, max(b2 * u, x)
        assert runs.reachable(b1, b2, 200) == pytest.approx(m / (1 - b1**200) / u, rel=1e-12)


def test_alpha_0_is_adam():
    for of in RECORDED["alpha_0"].values():
        assert of["uncorrected"]["distance"] < 1e-10
        assert of["corrected"]["distance"] > 0.01
    highest = {k: x["highest"] for k, x in RECORDED["alpha_0"]["0.464"].items()}
    assert highest["corrected"] > 3 * highest["uncorrected"]


def test_noise_asks_for_alpha_and_long_momentum():
    best = {s: of["simplified_ademamix"]["best"] for s, of in RECORDED["noise"].items()}
    assert best["0"]["alpha"] <= 0.1 < 10 <= best["1"]["alpha"] < best["10"]["alpha"]
    assert best["0"]["b1"] < best["1"]["b1"] < best["10"]["b1"]
    for sigma, gain in (("1", 2.5), ("10", 5.0)):
        of = RECORDED["noise"][sigma]
        assert of["simplified_ademamix"]["score"] * gain < of["adam"]["score"]
        without = min(of["simplified_ademamix"]["scores"][0])  # alpha = 0
        assert without == pytest.approx(of["adam"]["score"], rel=0.15)


@pytest.mark.parametrize("rule", rosenbrock.SETTINGS["rules"])
def test_the_best_choices_as_recorded(rule):
    """The way without noise, while rounding is small; and the score of a whole run with noise 1."""
    kept = RECORDED["paths"][rule]
    soon = [k for k in kept["step"] if k <= 100]
    way = runs.path(rule, RECORDED["noise"]["0"][rule]["best"], 100)[soon]
    np.testing.assert_allclose(way, kept["point"][: len(soon)], rtol=1e-4, atol=1e-6)
    of = RECORDED["noise"]["1"][rule]
    grid = {k: np.array([x]) for k, x in of["best"].items()}
    noise = rosenbrock.drawn(rosenbrock.SETTINGS, 1.0, RECORDED["seed"])
    (score,), _ = runs.sweep(rule, grid, noise)
    assert score == pytest.approx(of["score"], rel=1e-3)
    lists = runs.grid_of(rule, GRID)
    assert np.any(np.all([lists[k] == x for k, x in of["best"].items()], axis=0))
