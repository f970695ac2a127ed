"""Races: the problems are what they say, and every rule's way is what its optimizer makes.

``python tests/test_race.py`` writes arrayopt/race/_rates.py, which takes some minutes.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import package
from typer.testing import CliRunner

import arrayopt as ao
from arrayopt import cli
from arrayopt.race import _rates, draw, problems, run

PROBLEMS = pytest.mark.parametrize("problem", problems.PROBLEMS.values(), ids=problems.PROBLEMS)
RULES = ao.rules.names()


def points(problem, n=40):
    rng = np.random.default_rng(0)
    return (rng.uniform(*ends, n) for ends in problem.box)


def race(*args):
    return CliRunner().invoke(cli.app, ["race", *map(str, args)])


@PROBLEMS
def test_gradients(problem):
    x, y = points(problem)
    found, h = problem.gradient(x, y), 1e-30  # a complex step: no difference is taken
    steps = problem.value(x + h * 1j, y + 0j), problem.value(x + 0j, y + h * 1j)
    for mine, value in zip(found, steps, strict=True):
        np.testing.assert_allclose(mine, value.imag / h, rtol=1e-11, atol=1e-11)
    for k in range(3):  # and they take floats as well as arrays
        one = problem.gradient(float(x[k]), float(y[k]))
        np.testing.assert_allclose(one, (found[0][k], found[1][k]), rtol=1e-14, atol=1e-12)


def test_gradients_are_those_of_jax():
    jax = package("jax")
    with jax.enable_x64(True):
        for problem in problems.PROBLEMS.values():
            x, y = points(problem)
            theirs = jax.vmap(jax.grad(problem.value, (0, 1)))(jax.numpy.array(x), y)
            for a, b in zip(problem.gradient(x, y), theirs, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-11)


@PROBLEMS
def test_minima(problem):
    x, y = problem.minimum
    assert problem.value(x, y) == 0
    assert np.allclose(problem.gradient(x, y), 0, atol=1e-14)
    h = 1e-6
    columns = [
        np.subtract(problem.gradient(x + a, y + b), problem.gradient(x - a, y - b)) / (2 * h)
        for a, b in ((h, 0), (0, h))
    ]
    curvatures = np.linalg.eigvalsh(columns)
    assert curvatures[0] > 0
    assert problem.rate == pytest.approx(1 / curvatures[1], rel=1e-4)
    assert np.min(problem.value(*points(problem, 10_000))) > 0
    for point in (problem.start, problem.minimum):
        assert all(low < z < high for z, (low, high) in zip(point, problem.box, strict=True))


def test_a_trajectory_is_what_the_formula_says():
    """Adam on Rosenbrock's function, both written out."""
    (x, y), m, v, path = (-1.2, 1.0), np.zeros(2), np.zeros(2), []
    for t in range(1, 31):
        g = np.array([-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)])
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        x, y = (x, y) - 0.1 * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
        path.append((x, y))
    found = run.trajectory("adam", "rosenbrock", 30, lr=0.1, b2=0.99)
    assert found[0].tolist() == [-1.2, 1.0]
    np.testing.assert_allclose(found[1:], path, rtol=1e-9)


def test_rules_are_given_what_they_need():
    """The loss (SPS: the step is f / g^2), and the parameters to evaluate at."""
    x, y = problems.PROBLEMS["beale"].start
    f, g = problems.beale(x, y), np.array(problems.beale_gradient(x, y))
    found = run.trajectory("polyak_sgd", "beale", 1, lr=1.0)
    np.testing.assert_allclose(found[1], (x, y) - f / (g @ g) * g, rtol=1e-12)
    free, plain = (run.trajectory(r, "beale", 2, lr=0.01) for r in ("sgd+ema", "sgd"))
    assert not np.allclose(free[2], plain[2])


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_runs(rule):
    """And comes down, at the rate that is kept for it: on two problems, other ones for the next."""
    if rule not in _rates.RATES:
        pytest.skip("a rule that is newer than the table is swept")
    todo, k = [*problems.PROBLEMS.values()], RULES.index(rule)
    for problem in (todo[k % 5], todo[(k + 2) % 5]):
        path = run.trajectory(rule, problem)
        assert path.shape == (run.STEPS + 1, 2)
        assert np.all(np.isfinite(path))
        assert problem.value(*path[-1]) < 0.9 * problem.value(*problem.start)


@pytest.mark.parametrize("rule", ["lion", "polyak_sgd", "schedule_free_sgd"])
def test_the_rates_are_those_of_the_sweep(rule):
    """One by one, and as the table has it."""
    problem = problems.PROBLEMS["saddle"]
    rates, last = run.GRID[::6], []
    for lr in rates:
        path = run.trajectory(rule, problem, 40, lr)
        inside = all(low <= z.min() <= z.max() <= high
                     for z, (low, high) in zip(path.T, problem.box, strict=True))  # fmt: skip
        last.append(problem.value(*path[-1]) if inside else np.inf)
    best = run.swept(rule, problem, 40)
    assert problem.value(*run.trajectory(rule, problem, 40, best)[-1]) <= min(last)
    assert _rates.RATES[rule][4] == run.swept(rule, problem)
    assert run.tuned(rule, problem) == _rates.RATES[rule][4]


def test_a_run_that_blows_up_is_nan_from_there():
    path = run.trajectory("soap", "beale", 50, lr=1e80)
    assert np.all(np.isfinite(path[0]))
    assert np.all(np.isnan(path[-1]))


def test_the_command(tmp_path):
    image = package("PIL.Image")
    args = ("--rules", "adam, polyak_sgd", "--problem", "saddle", "--steps", 20, "--lr", 0.1)
    files = [tmp_path / name for name in ("a.png", "a.gif", "a.webp")]
    assert race(*args, "--output", files[0], "--animate", files[1]).exit_code == 0
    assert race(*args, "--animate", files[2]).exit_code == 0
    for file, kind, frames in zip(files, ("PNG", "GIF", "WEBP"), (1, 21, 21), strict=True):
        with image.open(file) as found:
            assert (found.format, getattr(found, "n_frames", 1)) == (kind, frames)
    done = race(*args, "--json")
    found = json.loads(done.stdout)
    adam = found["rules"]["adam"]
    assert adam["path"] == run.trajectory("adam", "saddle", 20, 0.1).tolist()
    assert adam["value"] == problems.saddle(*adam["path"][-1])
    text = race("--rules", "adam", "--problem", "saddle", "--set", "b1=0.8", "--steps", 20).output
    assert f"{run.swept('adam', problems.PROBLEMS['saddle'], 20, b1=0.8):g}" in text


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("--problem", "rosenbrok"), "did you mean rosenbrock?"),
        (("--rules", "adma"), "did you mean"),
        (("--set", "b3=1"), "has no hyperparameter 'b3'"),
        (
            ("--set", "b1=0.8"),
            "--set is for all rules, and sgd and madam have no b1; choose with --rules",
        ),
        (("--set", "lr=1"), "--lr"),
        (("--output", "/no/a.png"), "--output"),
        (("--animate", "a.mp4"), ".gif, .webp"),
        (("--rules", ",".join(RULES[:9]), "--output", "a.png"), "at most 8"),
    ],
)
def test_mistakes_are_told(args, word):
    assert word in str(race(*args).exception)


def test_one_picture_per_rule():
    figure = package("matplotlib.figure").Figure()
    path = draw.one("adam", problems.PROBLEMS["beale"], figure)
    assert np.array_equal(path, run.trajectory("adam", "beale"))
    (axes,) = figure.axes
    assert any(np.array_equal(line.get_xydata(), path) for line in axes.lines)


if __name__ == "__main__":
    head = Path(_rates.__file__).read_text().split("RATES")[0]
    rows = []
    for each in sorted((*RULES, *_rates.WRAPPED)):
        found = ", ".join(str(run.swept(each, problems.find(p))) for p in _rates.COLUMNS)
        rows.append(f'    "{each}": ({found}),\n')
        print(rows[-1], end="", flush=True)
    table = "RATES: dict[str, tuple[float, ...]] = {\n" + "".join(rows) + "}\n"
    Path(_rates.__file__).write_text(head + table)
