"""MaxVA's experiments: what was recorded bears the claims, and the problems are the paper's."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from arrayopt.reproduce import maxva_quadratic as quadratic
from arrayopt.reproduce import maxva_stochastic as stochastic

PAGES = Path(__file__).parent.parent / "docs" / "reproduce"


@pytest.fixture(scope="module")
def walk():
    return json.loads((PAGES / "maxva_stochastic.json").read_text())


def test_adam_diverges_and_madam_arrives(walk):
    curves, at = walk["curves"], np.asarray(walk["at"])
    assert walk["settings"]["runs"] == 100
    assert at[-1] == 100_000
    assert curves["Adam"]["near"][-1] == 0
    f = np.asarray(curves["Adam"]["f"])
    assert np.all(np.diff(f[at > 100]) > 0)
    assert f[-1] > 1e4
    assert curves["MAdam"]["near"][-1] == curves["AMSGrad"]["near"][-1] == 100
    assert stochastic.reached(walk, "MAdam", 1.0) < stochastic.reached(walk, "AMSGrad", 1.0)
    late = np.searchsorted(at, 50_000)
    for name in ("S1", "S2"):
        assert curves["Adam"][name][-1] > 1.5 * curves["Adam"][name][late]
        assert curves["MAdam"][name][-1] < 1.01 * curves["MAdam"][name][late]


def test_adam_walks_as_the_mean_of_its_update_says(walk):
    rng = np.random.default_rng(5)
    v, mean = np.full(2000, 12.0), []
    for _ in range(600):
        g = np.where(rng.random(2000) < 1 / 11, 11.0, -1.0)
        v = 0.9 * v + 0.1 * g**2
        mean.append((g / np.sqrt(v)).mean())
    drift = -0.8 * np.mean(mean[100:])
    seen = (walk["curves"]["Adam"]["f"][-1] + 0.5 - 2.0) / walk["at"][-1]
    assert seen == pytest.approx(drift, rel=0.03)


def test_zero_attracts_below_the_critical_step(walk):
    rng = np.random.default_rng(6)
    for factor, attracts in ((0.95, True), (1.05, False)):
        a = factor * walk["critical"]
        f = np.where(rng.random(400_000) < 1 / 11, abs(1 - 11 * a), 1 + a)
        assert (np.log(f).mean() < 0) == attracts
    end = {k: c["d"][-1] for k, c in walk["curves"].items()}
    assert 0.8 / end["AMSGrad"] < walk["critical"] < 1.2 / end["AMSGrad, lr 1.2"]
    assert 1.2 / end["MAdam"] < walk["critical"]


def test_eq_12_and_its_sums_in_plain_floats():
    first = np.random.default_rng(2).integers(0, 11, (60, 1)) == 0
    of = stochastic.SETTINGS["sweeps"][2]
    opt, at = stochastic.sweep(of), np.array([60])
    seen = stochastic.follow(opt, first, at, stochastic.SETTINGS)[of["names"].index("MAdam")][0]

    def piece(x, i):
        inside = abs(x) <= 1
        if i:
            return 5.5 * x * x if inside else 11 * abs(x) - 5.5
        return -0.5 * x * x if inside else -abs(x) + 0.5

    x, u, v, w, s1, s2, before = 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in first[:, 0]:
        h = 1e-7
        g = (piece(x + h, i) - piece(x - h, i)) / (2 * h)
        beta = 0.9
        if w > 0:
            mean, var = u / w, v / w - (u / w) ** 2
            d2 = (g - mean) ** 2
            beta = min(max((d2 + var) / (w * (d2 - var) + d2 + var + 1e-20), 0.5), 1.0)
        u, v, w = (beta * a + (1 - beta) * b for a, b in ((u, g), (v, g * g), (w, 1.0)))
        step = 1.2 / (math.sqrt(v / w) + 1e-8)
        s1, s2, before = s1 + abs(step * g), s2 + abs(step - before), step
        x -= step * g
    f = piece(x, 1) + 10 * piece(x, 0)
    assert seen["S1"] == pytest.approx(s1, rel=1e-4)
    assert seen["S2"] == pytest.approx(s2, rel=1e-4)
    assert seen["f"] == pytest.approx(f, rel=1e-4)
    assert stochastic.objective(np.array([0.5, -3.0])).tolist() == [0.125, 2.5]


def test_the_walk_begins_as_recorded(walk):
    at = np.array([t for t in walk["at"] if t <= 100])
    settings = stochastic.SETTINGS | {"steps": 100}
    first = stochastic.draws(settings, walk["seed"])
    for of in settings["sweeps"]:
        seen = stochastic.follow(stochastic.sweep(of), first, at, settings)
        for name, rows in zip(of["names"], seen, strict=True):
            for k, recorded in walk["curves"][name].items():
                now = [row[k] for row in rows]
                np.testing.assert_allclose(now, recorded[: len(at)], rtol=1e-4, atol=1e-8)


@pytest.fixture(scope="module")
def noisy():
    return json.loads((PAGES / "maxva_quadratic.json").read_text())


@pytest.mark.parametrize("which", quadratic.LISTS)
def test_madam_is_lower_in_all_settings(noisy, which):
    assert [[s["h"], s["sigma"]] for s in noisy[which]] == quadratic.SETTINGS["problems"]
    for s in noisy[which]:
        low, high = (5, 15) if s["sigma"] == 1 else (38, 48)
        assert low < s["MAdam"]["lower"] < high
        assert s["MAdam"]["lower"] > 5 * s["MAdam"]["lower_se"]
        assert 5 < s["MAdam, script"]["lower"] < s["MAdam"]["lower"]
        assert min(s["MAdam"]["lower_each"]) > 0


def test_shorter_steps_in_the_end_and_as_fast_before(noisy):
    for s in noisy["authors"]:
        adam, madam = s["Adam"], s["MAdam"]
        assert madam["pull"] / adam["pull"] == pytest.approx(0.53, abs=0.02)
        slower = madam["speed"] / adam["speed"]
        assert slower == pytest.approx(0.79 if s["sigma"] == 1 else 1.0, abs=0.03)
        same = next(o for o in noisy["authors"] if o["sigma"] == s["sigma"])
        for rule in (adam, madam):  # whatever the curvature
            name = "Adam" if rule is adam else "MAdam"
            assert rule["pull"] == pytest.approx(same[name]["pull"], rel=1e-3)
            assert rule["best"] == same[name]["best"]


@pytest.mark.parametrize("name", quadratic.SETTINGS["rules"])
def test_eq_13_in_plain_numpy(name):
    rng = np.random.default_rng(3)
    start, noise = rng.standard_normal((3, 2)), rng.standard_normal((130, 3, 2))
    lr, b2 = 0.02, 0.8
    opt = quadratic.sweep(quadratic.SETTINGS["rules"][name], [lr], [b2])
    seen = quadratic.descend(opt, start[None], noise[None], quadratic.SETTINGS)
    for j, (h2, sigma) in enumerate(quadratic.SETTINGS["problems"]):
        h = np.array([1.0, h2])
        x, early, m, u, v, w = start, start, 0.0, 0.0, 0.0, 0.0
        for t in range(1, 131):
            g = h * x - h * sigma * noise[t - 1]
            m = 0.9 * m + 0.1 * g
            beta = b2 if name == "Adam" else 0.99
            if name != "Adam" and t > 1:
                mean = (u if name == "MAdam" else m) / w
                var, dev = v / w - mean**2, (g - mean) ** 2
                beta = np.clip((dev + var) / (w * (dev - var) + dev + var + 1e-16), 0.5, 0.99)
            u, v, w = (beta * a + (1 - beta) * b for a, b in ((u, g), (v, g * g), (w, 1.0)))
            d = np.sqrt(v / w)
            x = x - lr * m / (1 - 0.9**t) / (d + 1e-10)
            early = x if t <= 100 else early
        np.testing.assert_allclose(seen.loss[0, j], 0.5 * (h * x**2).sum(-1), rtol=1e-8)
        assert seen.pull[0, j] == pytest.approx((h * sigma / d).mean(), rel=1e-8)
        far = np.abs(start) > 1
        speed = ((np.abs(start) - np.abs(early)) / (100 * lr))[far].mean()
        assert seen.speed[0, j] == pytest.approx(speed, rel=1e-8)


@pytest.mark.parametrize("name", quadratic.SETTINGS["rules"])
def test_a_learning_rate_as_recorded(noisy, name):
    """The loss of the first 100 runs, on one problem."""
    settings, j, k = quadratic.SETTINGS, 4, 3
    recorded = noisy["authors"][j][name]
    starts, noise = quadratic.draws(settings, noisy["seed"])
    rate, b2 = settings["authors"]["lr"][k], recorded.get("b2", [0.0] * 9)[k]
    opt = quadratic.sweep(settings["rules"][name], [rate], [b2])
    loss = quadratic.descend(opt, starts[:1], noise[:1], settings).loss[0, j]
    assert loss.mean() == pytest.approx(recorded["loss"][k], rel=1e-4)
    assert loss.std() / 10 == pytest.approx(recorded["se"][k], rel=1e-4)
