"""The rules against the frameworks' own optimizers, and the facts that hold over many steps.

Ours run in NumPy. On the other side stand torch.optim and optax as they are installed, in float64,
from the same start and over the same gradients; nothing of ours runs there.
"""

import math

import numpy as np
import pytest
from oracle import STEPS, TOLERANCE, deviation, frozen, leaves, problem, run, run_optax, run_torch

from arrayopt import Optimizer

DTYPES = ["float32", "float64"]


def same(**options):
    """Options that both sides spell alike."""
    return options, options


TORCH = {
    "sgd-plain": ("sgd", "SGD", *same(lr=0.1)),
    "sgd-momentum": ("sgd", "SGD", *same(lr=0.1, momentum=0.9)),
    "sgd-dampening": ("sgd", "SGD", *same(lr=0.1, momentum=0.9, dampening=0.3)),
    "sgd-nesterov": ("sgd", "SGD", *same(lr=0.1, momentum=0.8, nesterov=True)),
    "sgd-decay": ("sgd", "SGD", *same(lr=0.1, momentum=0.9, weight_decay=0.05)),
    "sgd-maximize": ("sgd", "SGD", *same(lr=0.1, momentum=0.9, weight_decay=0.05, maximize=True)),
    "adam-plain": ("adam", "Adam", *same(lr=0.1)),
    "adam-hyper": (
        "adam",
        "Adam",
        {"lr": 0.1, "b1": 0.7, "b2": 0.95, "eps": 1e-4},
        {"lr": 0.1, "betas": (0.7, 0.95), "eps": 1e-4},
    ),
    "adam-coupled": ("adam", "Adam", *same(lr=0.1, weight_decay=0.05)),
    "adam-maximize": ("adam", "Adam", *same(lr=0.1, weight_decay=0.05, maximize=True)),
    "adam-adamw": (
        "adam",
        "AdamW",
        {"lr": 0.1, "weight_decay": 0.05, "decay": "decoupled"},
        {"lr": 0.1, "weight_decay": 0.05},
    ),
    "amsgrad-plain": ("amsgrad", "Adam", {"lr": 0.1, "b2": 0.9},
                      {"lr": 0.1, "betas": (0.9, 0.9), "amsgrad": True}),
    "amsgrad-coupled": ("amsgrad", "Adam", {"lr": 0.1, "b2": 0.9, "weight_decay": 0.05},
                        {"lr": 0.1, "betas": (0.9, 0.9), "weight_decay": 0.05, "amsgrad": True}),
    "adamax-plain": ("adamax", "Adamax", {"lr": 0.1, "eps_in_max": True}, {"lr": 0.1}),
    "adamax-hyper": (
        "adamax",
        "Adamax",
        {"lr": 0.1, "b1": 0.7, "b2": 0.8, "eps": 1e-4, "eps_in_max": True},
        {"lr": 0.1, "betas": (0.7, 0.8), "eps": 1e-4},
    ),
    "adamax-coupled": (
        "adamax",
        "Adamax",
        {"lr": 0.1, "weight_decay": 0.05, "eps_in_max": True, "maximize": True},
        {"lr": 0.1, "weight_decay": 0.05, "maximize": True},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TORCH)
def test_torch(case):
    rule, name, ours, theirs = TORCH[case]
    params, grads = problem()
    expected = run_torch(name, theirs, params, grads)
    assert deviation(run(rule, ours, params, grads), expected) < TOLERANCE


SCHEDULES = {
    "sgd-exponential": ("sgd", "SGD", "ExponentialLR", {"gamma": 0.9}, lambda k: 0.1 * 0.9**k),
    "adam-cosine": ("adam", "Adam", "CosineAnnealingLR", {"T_max": STEPS},
                    lambda k: 0.05 * (1 + math.cos(math.pi * k / STEPS))),
    "adam-steps": ("adam", "Adam", "StepLR", {"step_size": 7, "gamma": 0.3},
                   lambda k: 0.1 * 0.3 ** (k // 7)),
}  # fmt: skip


@pytest.mark.parametrize("case", SCHEDULES)
def test_torch_schedule(case):
    torch = pytest.importorskip("torch")
    rule, name, scheduler, options, lr = SCHEDULES[case]
    params, grads = problem()

    def make(opt):
        return getattr(torch.optim.lr_scheduler, scheduler)(opt, **options)

    expected = run_torch(name, {"lr": 0.1}, params, grads, make)
    assert deviation(run(rule, {"lr": lr}, params, grads), expected) < TOLERANCE
    assert deviation(run(rule, {"lr": 0.1}, params, grads), expected) > 0.01


MASK = {"w": True, "b": False, "s": False}
OPTAX = {
    "sgd-plain": ("sgd", {"lr": 0.1}, lambda o: o.sgd(0.1)),
    "sgd-nesterov": (
        "sgd",
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        lambda o: o.sgd(0.1, momentum=0.9, nesterov=True),
    ),
    "adam-plain": ("adam", {"lr": 0.1}, lambda o: o.adam(0.1)),
    "adam-eps_root": (
        "adam",
        {"lr": 0.1, "b1": 0.7, "eps": 1e-5, "eps_root": 1e-6},
        lambda o: o.adam(0.1, b1=0.7, eps=1e-5, eps_root=1e-6),
    ),
    "adam-adamw": (
        "adam",
        {"lr": 0.1, "weight_decay": 0.05, "decay": "decoupled", "decay_mask": MASK},
        lambda o: o.adamw(0.1, weight_decay=0.05, mask=MASK),
    ),
    "adam-adamw-mask-function": (
        "adam",
        {"lr": 0.1, "weight_decay": 0.05, "decay": "decoupled",
         "decay_mask": lambda tree: {k: p.ndim > 0 for k, p in tree.items()}},
        lambda o: o.adamw(
            0.1, weight_decay=0.05, mask=lambda tree: {k: p.ndim > 0 for k, p in tree.items()}
        ),
    ),
    "adamax-plain": ("adamax", {"lr": 0.1, "eps_in_max": True}, lambda o: o.adamax(0.1)),
    "adamax-adamaxw": (
        "adamax",
        {"lr": 0.1, "b2": 0.8, "eps_in_max": True, "weight_decay": 0.05, "decay": "decoupled",
         "decay_mask": MASK},
        lambda o: o.adamaxw(0.1, b2=0.8, weight_decay=0.05, mask=MASK),
    ),
    "yogi-plain": ("yogi", {}, lambda o: o.yogi(0.01)),
    "yogi-hyper": (
        "yogi",
        {"lr": 0.1, "b1": 0.7, "b2": 0.9, "eps": 1e-5},
        lambda o: o.yogi(0.1, b1=0.7, b2=0.9, eps=1e-5),
    ),
    "yogi-start": (
        "yogi",
        {"lr": 0.1, "b2": 0.9, "eps": 1e-3, "initial_accumulator": 0.1},
        lambda o: o.chain(
            o.scale_by_yogi(b2=0.9, eps=1e-3, initial_accumulator_value=0.1), o.scale(-0.1)
        ),
    ),
    "adan-plain": ("adan", {"lr": 0.1, "difference_weight": 1 - 0.92}, lambda o: o.adan(0.1)),
    "adan-hyper": (
        "adan",
        {"lr": 0.1, "b1": 0.9, "b2": 0.7, "b3": 0.95, "difference_weight": 1 - 0.7, "eps": 1e-5,
         "eps_root": 0.0, "weight_decay": 0.05, "decay_mask": MASK},
        lambda o: o.adan(
            0.1, b1=0.9, b2=0.7, b3=0.95, eps=1e-5, eps_root=0.0, weight_decay=0.05, mask=MASK
        ),
    ),
    "simplified_ademamix-plain": (
        "simplified_ademamix",
        {"lr": 0.01},
        lambda o: o.contrib.simplified_ademamix(0.01),
    ),
    "simplified_ademamix-alpha": (
        "simplified_ademamix",
        {"lr": 0.01, "b1": 0.9, "b2": 0.99, "alpha": 3.0, "eps": 1e-5, "eps_root": 1e-6},
        lambda o: o.contrib.simplified_ademamix(
            0.01, b1=0.9, b2=0.99, alpha=3.0, eps=1e-5, eps_root=1e-6
        ),
    ),
    "simplified_ademamix-decay": (
        "simplified_ademamix",
        {"lr": 0.01, "weight_decay": 0.5},
        lambda o: o.contrib.simplified_ademamix(0.01, weight_decay=0.5),
    ),
    "simplified_ademamix-mask": (
        "simplified_ademamix",
        {"lr": 0.01, "alpha": 2.0, "weight_decay": 0.5, "decay_mask": MASK},
        lambda o: o.contrib.simplified_ademamix(0.01, alpha=2.0, weight_decay=0.5, mask=MASK),
    ),
    "simplified_ademamix-alpha-schedule": (
        "simplified_ademamix",
        {"lr": 0.01, "alpha": lambda k: 3.0 * 0.8**k},
        lambda o: o.contrib.simplified_ademamix(0.01, alpha=lambda k: 3.0 * 0.8**k),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OPTAX)
def test_optax(case):
    rule, options, make = OPTAX[case]
    params, grads = problem()
    expected = run_optax(make, params, grads)
    assert deviation(run(rule, options, params, grads), expected) < TOLERANCE


OPTAX_SCHEDULES = {
    "sgd-warmup_cosine": (
        "sgd", lambda o: o.warmup_cosine_decay_schedule(0.0, 0.1, 5, STEPS), lambda o, lr: o.sgd(lr)
    ),
    "adam-piecewise": (
        "adam", lambda o: o.piecewise_constant_schedule(0.1, {3: 0.5, 20: 0.1}),
        lambda o, lr: o.adam(lr),
    ),
    "simplified_ademamix-linear": (
        "simplified_ademamix", lambda o: o.linear_schedule(0.01, 0.001, 20),
        lambda o, lr: o.contrib.simplified_ademamix(lr),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OPTAX_SCHEDULES)
def test_optax_schedule_as_lr(case):
    """The very schedule is our ``lr``: it gets 0 in the first step on both sides.

    optax hands it an int32 array and gets a float32 rate even in 64-bit mode; from our Python int
    the same schedule makes a float64. Given the same count, the two sides agree to the last digits.
    """
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
    rule, schedule, make = OPTAX_SCHEDULES[case]
    params, grads = problem()
    with jax.enable_x64(True):
        lr = schedule(optax)
        ours = run(rule, {"lr": lr}, params, grads)
        expected = run_optax(lambda o: make(o, lr), params, grads)
        typed = run(rule, {"lr": lambda k: lr(jax.numpy.int32(k))}, params, grads)
        late = run(rule, {"lr": lambda k: lr(k + 1)}, params, grads)
    assert deviation(typed, expected) < TOLERANCE
    assert deviation(ours, expected) < 1e-6  # seen: 7e-8
    assert deviation(late, expected) > 1e-3


# What the docstrings say is different is different, and by far more than rounding.
DIFFERENT = {
    "adam-coupled-is-not-adamw": (
        "adam", {"lr": 0.1, "weight_decay": 0.05}, lambda o: o.adamw(0.1, weight_decay=0.05), 0.1
    ),
    "adamax-eps-outside": ("adamax", {"lr": 0.1, "eps": 1e-3},
                           lambda o: o.adamax(0.1, eps=1e-3), 1e-3),
    "adan-default-weight": ("adan", {"lr": 0.1}, lambda o: o.adan(0.1), 0.1),
    "amsgrad-plain": ("amsgrad", {"lr": 0.1, "b2": 0.999}, lambda o: o.amsgrad(0.1), 0.1),
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFERENT)
def test_documented_deviation_from_optax(case):
    rule, options, make, least = DIFFERENT[case]
    params, grads = problem()
    expected = run_optax(make, params, grads)
    assert deviation(run(rule, options, params, grads), expected) > least


def test_yogi_at_a_tie():
    """Where g**2 is v, which random data never meet, the sign is 0 and v stays: as in optax."""
    params, grads = {"w": np.array([1.0, 1.0])}, [{"w": np.array([2.0, -2.0])}] * 2
    options = {"lr": 0.1, "b2": 0.5, "eps": 1e-3, "initial_accumulator": 4.0}

    def make(o):
        yogi = o.scale_by_yogi(b2=0.5, eps=1e-3, initial_accumulator_value=4.0)
        return o.chain(yogi, o.scale(-0.1))

    expected = run_optax(make, params, grads)
    assert deviation(run("yogi", options, params, grads), expected) < TOLERANCE


def test_amsgrad_of_optax_in_our_words():
    """The deviation is the one documented: optax takes the maximum of the corrected moment."""
    params, grads = problem()
    b1, b2 = 0.9, 0.999
    p, g = leaves(params), np.stack([leaves(x) for x in grads])
    m = v = top = np.zeros_like(p)
    path = []
    for t in range(1, STEPS + 1):
        m, v = b1 * m + (1 - b1) * g[t - 1], b2 * v + (1 - b2) * g[t - 1] ** 2
        top = np.maximum(top, v / (1 - b2**t))
        p = p - 0.1 * m / (1 - b1**t) / (np.sqrt(top) + 1e-8)
        path.append(p)
    assert deviation(np.stack(path), run_optax(lambda o: o.amsgrad(0.1), params, grads)) < TOLERANCE


@pytest.mark.parametrize("dtype", DTYPES)
def test_simplified_ademamix_documented_example(dtype):
    """The example in the docstring of optax.contrib.simplified_ademamix: defaults but for lr."""
    opt = Optimizer("simplified_ademamix", lr=0.01)
    p = np.array([1.0, 2.0, 3.0], dtype=dtype)
    state, printed = opt.init(p), []
    for _ in range(5):
        p, state = opt.step(p, 2 * p, state)
        printed.append(f"{np.sum(p * p):.2E}")
    assert printed == ["1.39E+01", "1.36E+01", "1.33E+01", "1.28E+01", "1.23E+01"]


def test_simplified_ademamix_first_step():
    g = frozen(np.array([3.0, -1e3, 1e-6, 1e-8, 0.0]))
    path = run("simplified_ademamix", {"lr": 0.01, "alpha": 2.0}, {"w": 0 * g}, [{"w": g}])
    np.testing.assert_allclose(path[0], -(1 + 2) * 0.01 * g / (np.abs(g) + 1e-8), rtol=1e-15)


@pytest.mark.parametrize("alpha", [0.0, 2.0])
def test_simplified_ademamix_constant_gradient_grows_the_step(alpha):
    """From (1 + alpha) lr in the first step to lr (1 / (1 - b1) + alpha)."""
    g, lr, b1 = frozen(np.array([3.0, -1e3])), 0.01, 0.9
    options = {"lr": lr, "b1": b1, "alpha": alpha, "eps": 0.0}
    path = run("simplified_ademamix", options, {"w": 0 * g}, [{"w": g}] * 400)
    steps = np.abs(np.diff(path, axis=0, prepend=0))
    expected = lr * ((1 - b1 ** np.arange(1, 401)) / (1 - b1) + alpha)
    np.testing.assert_allclose(steps, np.stack([expected, expected], axis=1), rtol=1e-11)
    np.testing.assert_allclose(steps[-1], lr * (1 / (1 - b1) + alpha), rtol=1e-11)


@pytest.mark.parametrize("eps_in_max", [False, True])
def test_adamax_without_eps_and_without_gradient(eps_in_max):
    """0 / 0 is the step 0, and the element lives: it moves by lr once a gradient comes."""
    p, zero, g = np.ones(2), np.array([0.0, 2.0]), np.array([-5.0, 2.0])
    options = {"lr": 0.1, "b1": 0.0, "eps": 0.0, "eps_in_max": eps_in_max}
    path = run("adamax", options, {"w": p}, [{"w": zero}, {"w": zero}, {"w": g}])
    np.testing.assert_allclose(path, [[1.0, 0.9], [1.0, 0.8], [1.1, 0.7]], rtol=1e-15)
    assert path[1, 0] == 1.0


# Madam, the multiplicative rule


@pytest.mark.parametrize("lr", [1e-3, 0.01, 0.3])
@pytest.mark.parametrize(
    ("dtype", "largest"), [("float32", 1e18), ("float64", 1e150)], ids=["float32", "float64"]
)
def test_madam_first_step_is_a_factor(dtype, largest, lr):
    """|p| changes by exactly exp(-+lr), whatever p and g are."""
    rng = np.random.default_rng(3)
    p = rng.choice([-1.0, 1.0], 400) * 10 ** rng.uniform(-20, 0, 400)
    g = rng.choice([-1.0, 1.0], 400) * largest ** rng.uniform(-1, 1, 400)
    p, g = p.astype(dtype), g.astype(dtype)
    options = {"lr": lr, "p_scale": 100.0}
    path = run("madam", options, {"w": p}, [{"w": g}])
    expected = p * np.exp(-lr * np.sign(g) * np.sign(p), dtype=dtype)
    np.testing.assert_allclose(path[0], expected, rtol=4 * np.finfo(dtype).eps)  # seen: 2 eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_madam_keeps_zeros_and_signs(dtype):
    params, grads = problem(200)
    p = {k: np.where(np.arange(x.size).reshape(x.shape) % 4 == 2, 0, x) for k, x in params.items()}
    p = {k: x.astype(dtype) for k, x in p.items()}
    grads = [{k: x.astype(dtype) for k, x in g.items()} for g in grads]
    path = run("madam", {"lr": 0.1}, p, grads)
    assert np.count_nonzero(leaves(p) == 0) >= 9
    assert np.array_equal(np.sign(path), np.broadcast_to(np.sign(leaves(p)), path.shape))
    assert np.max(np.abs(path[-1] - leaves(p))) > 0.1


def spike(step, steps):
    """A gradient of 0 but for one step: the largest q that this step can see."""
    grads = [{"w": np.zeros(2)} for _ in range(steps)]
    grads[step - 1] = {"w": np.array([1e3, -1e-3])}
    return grads


@pytest.mark.parametrize("step", [1, 50, 105])
def test_madam_g_bound_cannot_act_before_step_106(step):
    p, grads = {"w": np.array([1.0, -1.0])}, spike(step, 105)
    bound, free = (run("madam", {"g_bound": b}, p, grads) for b in (10.0, np.inf))
    assert np.array_equal(bound, free)
    assert np.all(np.abs(free[step - 1]) != 1)


@pytest.mark.parametrize("step", [106, 150, 3000])
def test_madam_g_bound_acts_from_step_106(step):
    """Both elements shrink or grow by exp(-+10 lr), where free they would take q itself."""
    p, grads = {"w": np.array([1.0, 1.0])}, spike(step, step)
    options = {"lr": 0.01, "p_scale": 1e3}
    bound = run("madam", options, p, grads)[-1]
    free = run("madam", options | {"g_bound": np.inf}, p, grads)[-1]
    q = math.sqrt((1 - 0.999**step) / (1 - 0.999))
    assert q > 10
    np.testing.assert_allclose(bound, np.exp([-0.1, 0.1]), rtol=1e-14)
    np.testing.assert_allclose(free, np.exp([-0.01 * q, 0.01 * q]), rtol=1e-13)


def test_madam_g_bound_is_silent_on_ordinary_data_before_step_106():
    params, grads = problem(105)
    bound, free = (run("madam", {"g_bound": b}, params, grads) for b in (10.0, np.inf))
    assert np.array_equal(bound, free)


def test_madam_p_scale_acts_without_gradient():
    """An element outside of p_scale times the first RMS comes inside in the first step."""
    p = np.array([0.1, -0.1, 9.0, -0.1])
    path = run("madam", {"p_scale": 1.5}, {"w": p}, [{"w": 0 * p}] * 3)
    bound = 1.5 * math.sqrt(np.mean(p * p))
    assert 0.1 < bound < 9
    np.testing.assert_allclose(path, [[0.1, -0.1, bound, -0.1]] * 3, rtol=1e-15)


def test_madam_p_scale_is_of_the_first_parameter():
    """The bound stays where it was though all elements grew to it."""
    p, g = np.array([1.0, -2.0, 3.0]), np.array([-1.0, 1.0, -1.0])
    path = run("madam", {"lr": 0.5, "p_scale": 2.0}, {"w": p}, [{"w": g}] * 20)
    bound = 2 * math.sqrt(14 / 3)
    np.testing.assert_allclose(path[-1], [bound, -bound, bound], rtol=1e-15)


def test_madam_tiny_gradient_whose_square_underflows_takes_no_step():
    p = np.array([1.0, -1.0])
    path = run("madam", {}, {"w": p}, [{"w": np.array([1e-170, -1e-200])}] * 3)
    assert np.array_equal(path, [p, p, p])


@pytest.mark.parametrize(
    "rule",
    ["adam", "adamax", "mada", "madam", "maxva_lamadam", "maxva_madam", "simplified_ademamix"],
)
def test_nan_gradient_propagates(rule):
    """The element is NaN from then on; madam's neighbours and everybody's other steps are not."""
    p, good, bad = np.array([1.0, 2.0]), np.array([1.0, -1.0]), np.array([1.0, np.nan])
    frozen_coefficients = {f"hlr_{x}": 0.0 for x in ("b1", "b2", "b3", "rho", "c")}
    options = frozen_coefficients if rule == "mada" else {}
    path = run(rule, options, {"w": p}, [{"w": good}, {"w": bad}, {"w": good}])
    assert np.array_equal(np.isnan(path), [[False, False], [False, True], [False, True]])


# MAdam and LaMAdam, the rules of MaxVA


@pytest.mark.parametrize("b2", [0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    ("rule", "plain", "options"),
    [
        pytest.param("maxva_madam", "adam", {"eps": 1e-8}, id="maxva_madam-adam"),
        pytest.param("maxva_madam", "adam", {"eps": 1e-3, "b1": 0.5}, id="maxva_madam-adam-eps"),
        pytest.param("maxva_lamadam", "laprop", {"eps": 1e-15}, id="maxva_lamadam-laprop"),
        pytest.param("maxva_lamadam", "laprop", {"eps": 1e-3}, id="maxva_lamadam-laprop-eps"),
    ],
)
def test_equal_bounds_are_the_plain_average(rule, plain, options, b2):
    params, grads = problem()
    ours = run(rule, {"lr": 0.1, "b_lo": b2, "b_hi": b2} | options, params, grads)
    assert deviation(ours, run(plain, {"lr": 0.1, "b2": b2} | options, params, grads)) < TOLERANCE


def slots(rule, options, grads):
    """The rule's slots after these gradients of one parameter, from its second step on."""
    opt = Optimizer(rule, **options)
    p, found = np.zeros_like(grads[0]), []
    state = opt.init(p)
    for g in grads:
        p, state = opt.step(p, g, state)
        found.append((p, state.slots))
    return found


MAXVA = ["maxva_madam", "maxva_lamadam"]


@pytest.mark.parametrize("first", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("rule", MAXVA)
def test_maxva_weight_of_the_second_step(rule, first):
    """After one step the variance is 0, and so beta = 1 / (2 - b_first), whatever g is.

    It is 0 up to rounding, which counts beside (g - u)**2: so no two gradients here are alike.
    """
    rng = np.random.default_rng(4)
    g = rng.uniform(1, 2, (2, 100)) * [[1], [-1]] * 10 ** rng.uniform(-3, 3, 100)
    options = {"b_first": first, "b_lo": 0.0, "b_hi": 1.0, "delta": 1e-30}
    (_, one), (_, two) = slots(rule, options, g)
    beta = 1 / (2 - first)
    np.testing.assert_allclose(one.w, 1 - first, rtol=1e-15)
    np.testing.assert_allclose(two.w, beta * one.w + 1 - beta, rtol=1e-13)
    scale = np.max(np.abs(g), axis=0)
    np.testing.assert_allclose((two.u - beta * one.u - (1 - beta) * g[1]) / scale, 0, atol=1e-13)


@pytest.mark.parametrize("rule", MAXVA)
def test_maxva_default_first_weight_is_b_hi(rule):
    """1 / (2 - b) > b: the second step is at the bound too, so w is Adam's 1 - b**2."""
    g = np.random.default_rng(5).standard_normal((2, 100))
    (_, one), (_, two) = slots(rule, {"b_hi": 0.9}, g)
    np.testing.assert_allclose(one.w, 1 - 0.9, rtol=1e-15)
    np.testing.assert_allclose(two.w, 1 - 0.9**2, rtol=1e-14)


@pytest.mark.parametrize(
    "bounds",
    [
        pytest.param({}, id="defaults"),
        pytest.param({"b_lo": 0.0, "b_hi": 1.0, "b_first": 0.5}, id="widest"),
        pytest.param({"b_lo": 0.9, "b_hi": 0.9999, "b_first": 0.1}, id="first-small"),
    ],
)
@pytest.mark.parametrize("rule", MAXVA)
def test_maxva_sum_of_weights_is_a_fraction(rule, bounds):
    """Real, and not only allowed: the weights are adaptive in this data."""
    grads = [leaves(g) for g in problem(200)[1]]
    w = np.stack([s.w for _, s in slots(rule, bounds, grads)])
    assert np.all((w > 0) & (w <= 1))
    assert np.unique(w[50]).size > 10


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(
    ("dtype", "lowest", "underflow", "highest", "eps"),
    [("float32", 1e-45, 1e-18, 1e18, 1e-30), ("float64", 5e-324, 1e-150, 1e150, 1e-170)],
    ids=["float32", "float64"],
)
@pytest.mark.parametrize("rule", MAXVA)
def test_maxva_constant_gradient_stays_finite(rule, dtype, lowest, underflow, highest, eps, sign):
    """The variance is then rounding error alone, and squares underflow for the smallest."""
    g = np.geomspace(np.asarray(lowest, "longdouble"), highest, 1000).astype(dtype) * sign
    path = slots(rule, {"lr": 0.125, "eps": eps, "b_hi": 0.98}, [frozen(g)] * 200)
    assert all(np.all(np.isfinite(x)) for p, state in path for x in (p, *state) if len(x))
    assert all(np.all((s.w > 0) & (s.w <= 1)) for _, s in path)
    moved, ample = -sign * path[-1][0], np.abs(g) > underflow
    assert np.all(moved >= 0)
    # |g| / sqrt(v / w) is 1 however the weights fell
    np.testing.assert_allclose(moved[ample], 0.125 * 200, rtol=1000 * np.finfo(dtype).eps)
