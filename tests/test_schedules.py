"""Schedules: equal to torch's, optax's, transformers' and the papers', eager and traced."""

import itertools
import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import package

import arrayopt as ao
from arrayopt._transfer import to_numpy

S = ao.schedules
TABLES = Path(__file__).parent.parent / "docs" / "schedules.md"
LR = 0.1
STEPS = 300
OURS = {name: getattr(S, name) for name in S.__all__} | {"lr": LR}


def table(framework: str) -> list[tuple[str, str, int]]:
    """The rows of the document's table: theirs, ours, and how many steps are equal."""
    text = TABLES.read_text().split(f"| {framework} | here | steps |\n", 1)[1].split("\n\n", 1)[0]
    found, last = [], ""
    for theirs, ours, steps in re.findall(r"^\| (.*?) \| `(.*?)` \| ?(.*?) ?\|$", text, re.M):
        last = theirs.strip("`") if theirs.startswith("`") else last
        found.append((last, ours, int(steps.removeprefix("t <= ") or STEPS) + 1))
    assert len(found) == len(text.splitlines()) - 1
    return found


def metrics(seed: int = 0) -> list[float]:
    """What improves, stops, and improves again; with rounding's ties."""
    noise = np.random.default_rng(seed).normal(size=STEPS + 1)
    t = np.arange(STEPS + 1)
    return (np.round(3 - 0.02 * np.minimum(t % 120, 60) - t / 200, 3) + 0.02 * noise).tolist()


def close(got: Any, want: Any, bound: float = 1e-12) -> None:
    want = np.asarray(want)
    np.testing.assert_allclose(got, want, rtol=0, atol=bound * np.abs(want).max())


def torch_values(expression: str, key: str, steps: int, names: Any) -> list[float]:
    torch = package("torch")
    opt = torch.optim.SGD([torch.zeros(1)], lr=LR, momentum=0.9)
    schedule = eval(expression, {**vars(names), "opt": opt})
    values = []
    for _, metric in zip(range(steps), metrics(), strict=False):
        values.append(float(opt.param_groups[0][key]))
        opt.step()
        plateau = isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau)
        schedule.step(*[metric] * plateau)
    return values


def our_values(schedule: Any, steps: int) -> list[float]:
    values = []
    for t, metric in zip(range(steps), metrics(), strict=False):
        values.append(schedule(t))
        if isinstance(schedule, S.reduce_on_plateau):
            schedule.step(metric)
    return values


def evaluated(ours: str) -> tuple[str, Any]:
    """``lr=linear(...)`` as a keyword and its value."""
    key, _, expression = ours.partition("=")
    return key, eval(expression, {**OURS})


@pytest.mark.parametrize("row", table("torch.optim.lr_scheduler"), ids=lambda r: r[1])
def test_row_for_torch(row):
    theirs, ours, steps = row
    key, schedule = evaluated(ours)
    names = package("torch.optim.lr_scheduler")
    close(our_values(schedule, steps), torch_values(theirs, key, steps, names))


@pytest.mark.parametrize("row", table("transformers"), ids=lambda r: r[1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_row_for_transformers(row):
    theirs, ours, steps = row
    key, schedule = evaluated(ours)
    names = package("transformers.optimization")
    close(our_values(schedule, steps), torch_values(theirs, key, steps, names))


@pytest.mark.parametrize("row", table("optax"), ids=lambda r: r[1])
def test_row_for_optax(row):
    theirs, ours, steps = row
    jax, optax = package("jax"), package("optax")
    with jax.enable_x64(True):
        schedule = eval(theirs, {**vars(optax), "lr": LR})
        if isinstance(schedule, optax.GradientTransformationExtraArgs):
            update, one = jax.jit(schedule.update), jax.numpy.ones(())
            state, want = schedule.init(one), [LR]
            for metric in metrics()[:steps]:
                scale, state = update(one, state, value=metric)
                want.append(LR * float(scale))
        else:
            count = jax.numpy.arange(steps)
            want = np.broadcast_to(jax.vmap(schedule)(count), (steps,))
        close(our_values(eval(ours, {**OURS}), steps), want[:steps])


# What is in no framework, as its paper writes it; n = t + 1 where steps count from 1.


def papers_beta3(n: int, first: float, last: float, steps: int) -> float:
    """AdEMAMix's appendix: the scheduler of beta3."""
    a, b = math.log(first), math.log(last)
    return min(math.exp(a * b / ((1 - n / steps) * b + n / steps * a)), last) if n < steps else last


ROUNDS = [(0, 10), (10, 30), (40, 90), (130, 270)]  # first step, how many
PAPERS = {
    "Vaswani": (
        S.delay(-1, S.warmup(40, S.inverse_sqrt((64 * 40) ** -0.5, 40))),
        lambda t: 64**-0.5 * min((t + 1) ** -0.5, (t + 1) * 40**-1.5),
    ),
    "alpha": (S.ademamix_alpha(5.0, 90), lambda t: min((t + 1) * 5.0 / 90, 5.0)),
    "beta3": (S.ademamix_beta3(0.9999, 90), lambda t: papers_beta3(t + 1, 0.9, 0.9999, 90)),
    "beta1": (
        S.ademamix_beta3(0.99, 130, start=0.8),
        lambda t: papers_beta3(t + 1, 0.8, 0.99, 130),
    ),
    "MiniCPM": (
        S.wsd(LR, rise=10, hold=50, fall=40),
        lambda t: LR * max(min(t / 10, 1, (100 - t) / 40), 0),
    ),
    "linear restarts": (
        S.restart(10, S.linear(1.0, 10), stretch=3),
        lambda t: (
            1 - next((t - a) / n for a, n in [(130, 270), (40, 90), (10, 30), (0, 10)] if t >= a)
        ),
    ),
    "functions": (
        S.warmup(10, lambda t: 1 / (1 + t)) * 3,
        lambda t: 0.3 * t if t < 10 else 3 / (t - 9),
    ),
    "delayed": (S.delay(7, S.linear(1.0, 20)), lambda t: 1 - min(max(t - 7, 0), 20) / 20),
    "no warm-up": (S.warmup(0, S.linear(1.0, 20)), lambda t: 1 - min(t, 20) / 20),
    "halved": (S.step(1.0, {0: 0.5, 3: 0.5}), lambda t: 0.5 if t < 3 else 0.25),
    "late points": (S.interpolate({5: 1.0, 9: 3.0}), lambda t: 1 + min(max(t - 5, 0), 4) / 2),
}


@pytest.mark.parametrize("name", PAPERS)
def test_as_the_paper_has_it(name):
    schedule, formula = PAPERS[name]
    close([schedule(t) for t in range(STEPS)], [formula(t) for t in range(STEPS)])


@pytest.mark.parametrize("steps", [90, None])
def test_the_schedules_of_ademamix_as_in_pytorch_optimizer(steps):
    rule = package("pytorch_optimizer").AdEMAMix
    alpha = S.ademamix_alpha(5.0, steps) if steps else S.constant(5.0)
    beta3 = S.ademamix_beta3(0.9999, steps) if steps else S.constant(0.9999)
    for t in range(steps or 5):
        assert alpha(t) == pytest.approx(rule.schedule_alpha(steps, t + 1, 5.0), rel=1e-14)
        assert beta3(t) == pytest.approx(rule.schedule_beta3(steps, t + 1, 0.9, 0.9999), rel=1e-14)


def test_half_life_of_beta_grows_evenly():
    found = [math.log(0.5) / math.log(S.half_life(0.5, 100, 0.999)(t)) for t in range(101)]
    np.testing.assert_allclose(np.diff(found), (found[-1] - found[0]) / 100, rtol=1e-10)


PURE = {
    "constant": S.constant(0.1),
    "linear": S.linear(0.1, 50, end=0.3),
    "polynomial": S.polynomial(0.1, 50, end=0.01, power=1.7),
    "cosine": S.cosine(0.1, 50, end=0.01, power=1.3),
    "exponential": S.exponential(0.1, 0.97, end=0.01),
    "growing": S.exponential(0.1, 1.03, steps=2, end=0.5),
    "staircase": S.exponential(0.1, 0.5, steps=7, staircase=True),
    "step": S.step(0.1, {0: 2.0, 10: 0.1, 30: 0.5}),
    "inverse_sqrt": S.inverse_sqrt(0.1, 20),
    "points": S.interpolate({0: 0.1, 7.5: 0.3, 40: 0.02}),
    "curves": S.interpolate({0: 0.1, 7.5: 0.3, 40: 0.02}, "cosine"),
    "roots": S.interpolate({3: 0.1, 40: 0.02}, "sqrt"),
    "cyclic": S.cyclic(0.1, 0.3, 7, 11, decay=0.5),
    "exp_range": S.cyclic(0.1, 0.3, 7, decay=0.99, per="step"),
    "half_life": S.half_life(0.5, 60, 0.95),
    "delay": S.delay(-3, S.linear(0.1, 30)),
    "warmup": S.warmup(10, S.exponential(0.2, 0.9), start=0.01),
    "join": S.join([S.linear(0.1, 10), 0.3, S.cosine(0.2, 20)], [10, 25]),
    "restart": S.restart(10, S.cosine(0.1, 10, end=0.01)),
    "stretch": S.restart(5, S.warmup(2, S.linear(0.1, 3)), stretch=2),
    "product": 0.5 * S.linear(0.1, 10, end=0.2) * S.cosine(1.0, 60, end=0.1),
    "one_cycle": S.one_cycle(0.2, 60),
    "three_phase": S.one_cycle(0.2, 60, three_phase=True, rise=0.25, shape="linear"),
    "wsd": S.wsd(0.1, rise=10, hold=20, fall=25, shape="sqrt"),
    "alpha": S.ademamix_alpha(0.9, 40),
    "beta3": S.ademamix_beta3(0.99, 40),
}
COUNTS = range(80)


@pytest.fixture(params=PURE)
def schedule(request):
    return PURE[request.param]


def test_every_schedule_is_among_them():
    used = {name for s in PURE.values() for name in re.findall(r"\b[a-z_]+(?=\()", repr(s))}
    recipes = {"one_cycle", "wsd", "ademamix_alpha", "ademamix_beta3"}
    assert used | recipes | {"Schedule", "reduce_on_plateau"} == {*S.__all__}


def test_compares_prints_and_pickles(schedule):
    again = eval(repr(schedule), {**OURS})
    copy = pickle.loads(pickle.dumps(schedule))
    assert schedule == again == copy
    assert hash(schedule) == hash(again) == hash(copy)
    assert repr(again) == repr(copy) == repr(schedule)
    assert [schedule(t) for t in COUNTS] == [copy(t) for t in COUNTS]


def test_no_two_are_equal():
    assert [a for a, b in itertools.combinations(PURE, 2) if PURE[a] == PURE[b]] == []
    assert S.linear(0.1, 10) != S.linear(0.1, 11)
    assert S.linear(0.1, 10) != S.polynomial(0.1, 10)


def test_python_and_numpy_numbers_give_floats(schedule):
    for count in (3, np.int32(3), np.int64(3), 3.0, np.float32(3)):
        assert type(schedule(count)) is float
        assert schedule(count) == schedule(3)


def test_far_past_the_end(schedule):
    for count in (10**6, 10**9, 10**12):
        assert 0 <= schedule(count) < 1


def test_growth_overflows_as_arrays_do():
    assert S.exponential(1.0, 2.0)(10**6) == math.inf
    assert S.exponential(1.0, 2.0, end=3.0)(10**6) == 3.0


def test_first_and_last_values_are_exact():
    for start, end in itertools.permutations([0.1, 0.3, 0.7, 1e-5, 1 / 3], 2):
        for make in (S.linear, S.polynomial, S.cosine):
            assert make(start, 7, end=end)(0) == start
            assert [make(start, 7, end=end)(t) for t in (7, 8, 100)] == [end] * 3
        assert S.warmup(7, end, start=start)(0) == start
        assert S.warmup(7, end, start=start)(7) == end


@pytest.mark.parametrize("library", ["numpy", "strict", "torch", "jax", "dask", "mlx"])
def test_an_array_of_counts(library, schedule):
    from conftest import adapter

    module = adapter(library)
    exact = library not in ("jax", "mlx")  # MLX's exp and cos of a float64 are a float32's
    with module.session("float64" if exact else "float32"):
        got = schedule(module.asarray(np.arange(80)))
        assert str(got.dtype).endswith("float32" if library == "jax" else "float64")
        close(to_numpy(got), [schedule(t) for t in COUNTS], 1e-15 if exact else 1e-6)


@pytest.mark.parametrize("x64", [False, True])
def test_under_jit(schedule, x64):
    jax = package("jax")
    with jax.enable_x64(x64):
        compiled = jax.jit(lambda t: schedule(t))
        got = [compiled(jax.numpy.int32(t)) for t in COUNTS]
        assert {str(x.dtype) for x in got} == {"float64" if x64 else "float32"}
        close(np.asarray(got), [schedule(t) for t in COUNTS], 1e-12 if x64 else 1e-6)
        assert compiled._cache_size() == 1


def test_under_torch_compile(schedule):
    torch = package("torch")
    torch._dynamo.reset()
    compiled = torch.compile(schedule, backend="eager", fullgraph=True)
    got = [compiled(torch.tensor(t)) for t in range(0, 80, 5)]
    assert {x.dtype for x in got} == {torch.float64}
    close(torch.stack(got).numpy(), [schedule(t) for t in range(0, 80, 5)], 1e-15)


def run(opt: Any, step: Any, params: Any, steps: int = 12) -> Any:
    state = opt.init(params)
    for _ in range(steps):
        params, state = step(params, 2 * params, state)
    return params


def test_an_optimizer_under_jit_steps_as_an_eager_one(schedule):
    jax = package("jax")
    start = np.array([1.0, -2.0, 3.0])
    opt = ao.Optimizer("adam", lr=schedule)
    want = run(opt, opt.step, start)
    with jax.enable_x64(True):
        got = run(opt, jax.jit(opt.step), jax.numpy.asarray(start))
        np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("hyper", ["lr", "b1", "b2", "eps", "weight_decay"])
@pytest.mark.parametrize("name", ["warmup", "half_life", "product"])
def test_any_hyperparameter_in_float32(name, hyper):
    jax = package("jax")
    start = np.array([1.0, -2.0, 3.0])
    opt = ao.Optimizer("adam", **{hyper: PURE[name]})
    want, state, numbers = start, opt.init(start), [PURE[name](t) for t in range(12)]
    for number in numbers:  # given to each step by hand
        want, state = ao.Optimizer("adam").step(want, 2 * want, state, **{hyper: number})
    np.testing.assert_array_equal(run(opt, opt.step, start), want)
    got = run(opt, jax.jit(opt.step), jax.numpy.asarray(start, "float32"))
    np.testing.assert_allclose(got, want, rtol=2e-5)


@pytest.mark.parametrize("name", ["warmup", "stretch", "step"])
def test_an_optimizer_under_torch_compile(name):
    torch = package("torch")
    torch._dynamo.reset()
    opt = ao.Optimizer("adam", lr=PURE[name])
    start = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    got = run(opt, torch.compile(opt.step, backend="eager", fullgraph=True), start)
    np.testing.assert_allclose(got, run(opt, opt.step, start.numpy()), rtol=1e-12)


def test_an_optimizer_with_schedules_pickles():
    opt = ao.Optimizer("adam", lr=PURE["warmup"], b2=PURE["beta3"])
    again = pickle.loads(pickle.dumps(opt))
    assert again.options() == opt.options()
    start = np.ones(3)
    np.testing.assert_array_equal(run(again, again.step, start), run(opt, opt.step, start))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: S.constant("x"), "constant: value must be a number in (-inf, inf), got 'x'"),
        (lambda: S.constant(math.nan), "constant: value must be a number in (-inf, inf), got nan"),
        (lambda: S.constant(True), "constant: value must be a number in (-inf, inf), got True"),
        (lambda: S.linear(0.1, 0), "linear: steps must be an integer in [1, inf), got 0"),
        (lambda: S.cosine(0.1, 2.5), "cosine: steps must be an integer in [1, inf), got 2.5"),
        (lambda: S.cosine(0.1, 5, power=0), "cosine: power must be a number in (0, inf), got 0"),
        (lambda: S.exponential(0.1, 0), "exponential: rate must be a number in (0, inf), got 0"),
        (lambda: S.exponential(0.1, 1, staircase=1), "exponential: staircase must be False or"),
        (lambda: S.step(0.1, {-1: 2}), "step: factors: a step must be an integer in [0, inf), got"),
        (lambda: S.step(0.1, {5: -2}), "step: factors: at step 5 must be a number in [0, inf)"),
        (lambda: S.step(0.1, 5), "step: factors must be a dict from steps to numbers, got 5"),
        (lambda: S.interpolate({}), "interpolate: points must hold at least one step, got {}"),
        (lambda: S.interpolate({0: 1}, "cubic"), "interpolate: shape must be 'linear' or 'cosine'"),
        (lambda: S.cyclic(0, 1, 5, per="x"), "cyclic: per must be 'cycle' or 'step', got 'x'"),
        (lambda: S.cyclic(0, 1, 5, 0), "cyclic: down must be an integer in [1, inf), got 0"),
        (lambda: S.half_life(0.0, 5, 0.9), "half_life: start must be a number in (0, 1), got 0.0"),
        (lambda: S.warmup(-1, 0.1), "warmup: steps must be an integer in [0, inf), got -1"),
        (lambda: S.warmup(5, "x"), "warmup: then must be a function of the number of steps, or a"),
        (lambda: S.delay(5, None), "delay: then must be a function of the number of steps, or a"),
        (lambda: S.join([1, 2], [5, 9]), "join: boundaries must rise and be one fewer than the"),
        (lambda: S.join([1, 2, 3], [9, 9]), "join: boundaries must rise and be one fewer than the"),
        (lambda: S.join([1, 2], [0]), "join: a boundary must be an integer in [1, inf), got 0"),
        (lambda: S.join([1, "x"], [5]), "join: a schedule must be a function of the number of"),
        (lambda: S.restart(0, 0.1), "restart: every must be an integer in [1, inf), got 0"),
        (lambda: S.restart(5, 0.1, 1.5), "restart: stretch must be an integer in [1, inf), got"),
        (lambda: "x" * S.constant(1), "product: a factor must be a function of the"),
        (lambda: S.one_cycle(0.1, 10, rise=0.1), "one_cycle: rise must be in (0.1, 1), got 0.1"),
        (lambda: S.one_cycle(0.1, 10, rise=1.0), "one_cycle: rise must be in (0.1, 1), got 1.0"),
        (
            lambda: S.one_cycle(0.1, 10, rise=0.55, three_phase=True),
            "one_cycle: rise must be in (0.1, 0.55), got 0.55",
        ),
        (lambda: S.one_cycle(0.1, 10, div=0), "one_cycle: div must be a number in (0, inf), got 0"),
        (lambda: S.wsd(0.1, rise=1, hold=2, fall=0), "wsd: fall must be an integer in [1, inf)"),
        (lambda: S.ademamix_beta3(1.0, 5), "ademamix_beta3: beta3 must be a number in (0, 1)"),
        (lambda: S.ademamix_alpha(1.0, 0), "ademamix_alpha: steps must be an integer in [1, inf)"),
        (lambda: S.reduce_on_plateau(1, factor=1), "reduce_on_plateau: factor must be a number"),
        (lambda: S.reduce_on_plateau(1, mode="x"), "reduce_on_plateau: mode must be 'min' or"),
    ],
)  # fmt: skip
def test_errors_name_schedule_argument_range_and_value(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_a_value_out_of_the_hyperparameters_range_is_named_by_the_step():
    opt = ao.Optimizer("adam", b1=S.linear(0.5, 2, end=1.5))
    with pytest.raises(ValueError, match=r"adam: b1 must be in \[0, 1\), got 1.0"):
        run(opt, opt.step, np.ones(3))


PLATEAUS = [
    {"mode": mode, "patience": patience, "threshold": threshold, "threshold_mode": how,
     "cooldown": cooldown, "factor": factor, "min_lr": least, "eps": eps}
    for mode, how in itertools.product(["min", "max"], ["rel", "abs"])
    for patience, threshold, cooldown, factor, least, eps in [
        (0, 0.0, 0, 0.9, 0.0, 1e-8), (3, 0.01, 0, 0.5, 0.02, 0.0), (2, 0.05, 4, 0.7, 0.0, 1e-2),
    ]
]  # fmt: skip


@pytest.mark.parametrize("options", PLATEAUS, ids=str)
def test_plateau_as_in_torch(options):
    torch = package("torch")
    for series in (metrics(1), metrics(2), [-x for x in metrics(3)], [math.nan] * 9, [1.0] * 50):
        opt = torch.optim.SGD([torch.zeros(1)], lr=LR)
        theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, **options)
        keep = {k: options[k] for k in ("mode", "patience", "cooldown", "factor", "eps")}
        relative = options["threshold_mode"] == "rel"
        ours = S.reduce_on_plateau(
            LR, **keep, end=options["min_lr"], rtol=options["threshold"] * relative,
            atol=options["threshold"] * (not relative),
        )  # fmt: skip
        for metric in series:
            opt.step()
            theirs.step(metric)
            assert ours.step(metric) == ours(0) == ours.value
            assert ours.value == pytest.approx(opt.param_groups[0]["lr"], rel=1e-14)
            assert (ours.best, ours.bad) == (theirs.best, theirs.num_bad_epochs)
            assert ours.cooling == theirs.cooldown_counter


def test_plateau_goes_on_where_it_was():
    whole, first = (S.reduce_on_plateau(LR, patience=2, cooldown=1, average=2) for _ in range(2))
    second = S.reduce_on_plateau(LR, patience=2, cooldown=1, average=2)
    want = [whole.step(x) for x in metrics()]
    got = [first.step(x) for x in metrics()[:77]]
    second.load_state_dict(first.state_dict())
    third = pickle.loads(pickle.dumps(first))
    assert first == second == third != S.reduce_on_plateau(LR, patience=2, cooldown=1, average=2)
    assert got + [second.step(x) for x in metrics()[77:]] == want
    assert got + [third.step(x) for x in metrics()[77:]] == want
    assert len(set(want)) > 3
    assert repr(third).startswith("reduce_on_plateau(start=0.1, factor=0.1, patience=2, ")
    with pytest.raises(ValueError, match=r"reduce_on_plateau: the state must have .*'value'"):
        second.load_state_dict({"value": 1.0})


@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
def test_plateau_as_a_hyperparameter(library):
    from conftest import adapter

    module = adapter(library)
    with module.session("float32"):
        plateau = S.reduce_on_plateau(0.5, factor=0.5, patience=0)
        opt = ao.Optimizer("sgd", lr=S.warmup(1, plateau, start=0.5))
        params = module.asarray(np.ones(2, np.float32))
        state = opt.init(params)
        for want in (0.5, 0.5, 0.25):  # the first metric is better than none
            new, state = opt.step(params, params, state)
            np.testing.assert_allclose(to_numpy(params - new), want)
            plateau.step(module.asarray(np.ones((), np.float32)))


def test_plateau_is_not_frozen_by_jit():
    jax = package("jax")
    plateau = S.reduce_on_plateau(0.5)
    start = jax.numpy.ones(2)
    for lr in (plateau, S.warmup(3, plateau), 0.5 * plateau, S.join([1.0, plateau], [5])):
        opt = ao.Optimizer("sgd", lr=lr)
        with pytest.raises(TypeError, match=r"reduce_on_plateau: .*step\(..., lr=plateau.value\)"):
            jax.jit(opt.step)(start, start, opt.init(start))
    opt = ao.Optimizer("sgd")
    step = jax.jit(opt.step)
    first, state = step(start, start, opt.init(start), lr=plateau.value)
    plateau.value = 0.25
    second, _ = step(start, start, state, lr=plateau.value)
    assert (float(first[0]), float(second[0])) == (0.5, 0.75)
    assert step._cache_size() <= 2
