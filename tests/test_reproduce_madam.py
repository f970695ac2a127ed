"""Madam on the digits: the record bears the claims, and what is trained is what the page says."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import package

import arrayopt as ao
from arrayopt import mlp
from arrayopt.reproduce import _digits, _madam_log, madam_digits

RECORDED = Path(__file__).parent.parent / "docs" / "reproduce" / "madam_digits.json"


@pytest.fixture(scope="module")
def numbers():
    return json.loads(RECORDED.read_text())


def test_one_rate_of_madam_does_for_all_depths_and_one_of_sgd_does_not(numbers):
    curves = {x: madam_digits.curve(numbers, *x) for x in madam_digits.carried(numbers)}
    assert numbers["settings"]["layers"] == [2, 4, 6, 8, 10]
    assert min(curves["Madam", 0.01]) > 0.94
    assert min(curves["Madam", numbers["grid"]["Madam"]["tuned"]]) > 0.94
    assert min(curves["Adam", numbers["grid"]["Adam"]["tuned"]]) > 0.9  # nor does Adam's fail
    sgd = curves["SGD", numbers["grid"]["SGD"]["tuned"]]
    assert sgd[0] > 0.97
    assert max(sgd[2:]) < 0.11
    for i, row in enumerate(numbers["grid"]["Madam"]["accuracy"]):  # 0.01 is not the best anywhere
        assert max(row) > madam_digits.curve(numbers, "Madam", 0.01)[i]


def test_no_sign_of_madam_flips_and_magnitudes_spread(numbers):
    for title, found in numbers["signs"].items():
        assert (found["flips"] == 0) == (found["turned"] == 0) == ("Madam" in title)
        assert found["last"]["std"] > found["first"]["std"]
        assert sum(found["last"]["share"]) == pytest.approx(1, abs=1e-3)
    assert numbers["signs"]["SGD, lr 0.3"]["turned"] > 0.2


def test_weights_of_b_bits_are_on_the_grid_and_few_bits_do(numbers):
    ends = {(e["bits"], e["floor"]): e for e in numbers["bits"]}
    assert len(ends) == 14
    for (bits, floor), e in ends.items():
        assert e["off"] < 1e-3
        assert e["levels"] <= 2**bits
        assert 0 <= e["range"][0] < e["range"][1] < 2**bits
        assert e["flips"] == 0
        enough = bits >= (6 if floor else 8)
        assert (np.mean(e["accuracy"]) > 0.96) == enough
        assert (e["moved"] == 0) == (bits <= 5 and not floor)  # half a base step is too much


def test_b_bit_madam_in_plain_floats():
    rng = np.random.default_rng(3)
    p = rng.standard_normal(50) * 10 ** rng.uniform(-3, 0, 50)
    opt = ao.Optimizer(_madam_log, lr=0.05, step=0.016, levels=256.0, g_bound=1.5, b2=0.9)
    got, state = p, opt.init(p)
    s, top, v = np.sign(p), 3 * np.sqrt(np.mean(p**2)), np.zeros(50)
    k = np.array([min(max(round(np.log(top / abs(x)) / 0.016), 0), 255) for x in p])
    assert 255 in k
    for t in range(1, 31):
        g = rng.standard_normal(50) * (np.arange(50) > 0)  # the first has no gradient
        v = 0.9 * v + 0.1 * g**2
        q = np.array(
            [x / np.sqrt(y / (1 - 0.9**t)) if y else 0.0 for x, y in zip(g, v, strict=True)]
        )
        k = np.clip(k + np.round(0.05 * np.clip(q, -1.5, 1.5) * s / 0.016), 0, 255)
        got, state = opt.step(got, g, state)
        np.testing.assert_array_equal(state.slots.k, k)
        np.testing.assert_allclose(got, s * top * np.exp(-0.016 * k), rtol=1e-12)


def test_with_many_levels_it_is_madam():
    rng = np.random.default_rng(4)
    p = rng.standard_normal((5, 8))
    shared = {"lr": 0.3, "p_scale": 1.5, "g_bound": 1.2, "b2": 0.9}
    fine = ao.Optimizer(_madam_log, step=1e-10, levels=1e12, **shared)
    madam = ao.Optimizer("madam", **shared)
    a, b = np.clip(p, *(np.sqrt(np.mean(p**2)) * np.array([-1.5, 1.5]))), p
    one, two = fine.init(p), madam.init(p)
    for _ in range(20):
        g = rng.standard_normal(p.shape)
        (a, one), (b, two) = fine.step(a, g, one), madam.step(b, g, two)
    np.testing.assert_allclose(a, b, rtol=1e-7)


def test_a_run_of_a_sweep_is_sgd_on_its_own_weights_and_batches():
    package("jax")
    data = mlp.Data(*(a[:200] for a in mlp.load(5)))
    opt = ao.Sweep("sgd", lr=np.array([0.1, 0.1, 0.3, 0.3]), momentum=0.9)
    runs = _digits.train(opt, data, 3, [5, 6], madam_digits.SETTINGS | {"epochs": 2})
    p = {k: x.astype(np.float64) for k, x in mlp.init(6, (64, 64, 64, 10)).items()}
    m = dict.fromkeys(p, 0.0)
    flips = 0
    for epoch in range(2):
        for index in mlp.batches(200, 64, epoch, 6):
            _, g = mlp.loss_and_grad(p, data.x_train[index], data.y_train[index], xp=np)
            for k in p:
                m[k] = 0.9 * m[k] + g[k]
                new = p[k] - 0.3 * m[k]
                flips += int(np.sum(new * p[k] < 0))
                p[k] = new
    for k in p:
        np.testing.assert_allclose(runs.last[k][3], p[k], rtol=1e-3, atol=1e-5)
    assert 0 < flips == pytest.approx(int(runs.flips[3]), abs=2)
    right = mlp.accuracy(p, data.x_test, data.y_test, xp=np)
    assert runs.accuracy[3] == pytest.approx(float(right), abs=0.011)


def test_accuracies_as_recorded(numbers):
    """Of 2 layers and small rates, where rounding costs hardly an image."""
    package("jax")
    rules, rates = madam_digits.SETTINGS["rules"], [1e-3, 1e-2]
    few = {"rules": {k: rules[k] for k in ("SGD", "Madam")}, "rates": rates, "bits": [4]}
    settings = madam_digits.SETTINGS | few | {"layers": [2], "deep": 2}
    seen = madam_digits.run(settings, lambda *_: None, seed=numbers["seed"])
    for name, of in seen["grid"].items():
        recorded = [madam_digits.curve(numbers, name, rate)[0] for rate in rates]
        np.testing.assert_allclose(of["accuracy"][0], recorded, rtol=0, atol=3 / 1080)


def test_first_weights_as_recorded(numbers):
    """Those that 4 bits do not move, and the magnitudes."""
    settings, seed = madam_digits.SETTINGS, numbers["seed"]
    data = mlp.load(seed)
    seeds = range(seed, seed + settings["seeds"])
    levels = 2 ** settings["bits"][-1]
    opt = ao.Optimizer(_madam_log, step=settings["range"] / levels, levels=levels)
    accuracy, magnitudes = [], []
    for each in seeds:
        p = mlp.init(each, (64, *[settings["width"]] * (settings["deep"] - 1), 10))
        magnitudes += [np.log10(np.abs(p[k]).ravel()) for k in p if k[0] == "w"]
        on_grid, _ = opt.step(p, {k: np.zeros_like(x) for k, x in p.items()}, opt.init(p))
        accuracy.append(mlp.accuracy(on_grid, data.x_test, data.y_test, xp=np))
    still = next(e for e in numbers["bits"] if e["bits"] == 4 and not e["floor"])
    np.testing.assert_allclose(accuracy, still["accuracy"], rtol=0, atol=1.5 / 360)
    whole = np.clip(np.concatenate(magnitudes), -4, 1)
    for found in numbers["signs"].values():
        assert found["first"]["std"] == pytest.approx(whole.std(), rel=1e-3)
