"""MADA: the rules at its corners, its derivatives against autodiff, and how it learns."""

import itertools

import numpy as np
import pytest

from arrayopt import Optimizer
from arrayopt._namespace import namespace
from arrayopt.rules import mada

NAMES = mada.Coefficients._fields
FROZEN = {f"hlr_{x}": 0.0 for x in NAMES}
DERIVATIVES = [f"d_{x}" for x in NAMES]
OPTIONS = {
    "bias_correction": (True, False),
    "accumulate": ("max", "mean"),
    "yogi_reference": ("mixed", "ema"),
    "first_difference": ("gradient", "zero"),
}
COMBINATIONS = {
    f"mada-{accumulate}-{reference}-{first}-{'corrected' if bias else 'biased'}": dict(
        zip(OPTIONS, (bias, accumulate, reference, first), strict=True)
    )
    for bias, accumulate, reference, first in itertools.product(*OPTIONS.values())
}
INSIDE = {"b1": 0.8, "b2": 0.9, "b3": 0.3, "rho": 0.6, "c": 0.4}  # no term is multiplied by 0
LR = 0.1


def frozen(x):
    x.flags.writeable = False
    return x


def problem(steps):
    """Two parameters of different shape, and gradients whose size changes from step to step."""
    rng = np.random.default_rng(11)
    params = {k: frozen(0.5 * rng.standard_normal(s)) for k, s in (("w", (3, 4)), ("b", (5,)))}
    sizes = 10 ** rng.uniform(-1, 1, steps)
    grads = [
        {k: frozen(size * rng.standard_normal(p.shape)) for k, p in params.items()}
        for size in sizes
    ]
    return params, grads


def run(opt, params, grads):
    """Parameters and state before the first step and after each."""
    state = opt.init(params)
    path = [(params, state)]
    for g in grads:
        params, state = opt.step(params, g, state)
        path.append((params, state))
    return path


def coefficients(state):
    return np.array([float(x) for x in state.shared.value])


def velocity(state):
    return np.array([float(x) for x in state.shared.velocity])


def hyper_gradient(grads, state):
    """Of a step with these gradients: the sums over every element of every parameter."""
    return np.array(
        [sum(np.sum(g * getattr(state.slots, d)[k]) for k, g in grads.items()) for d in DERIVATIVES]
    )


def clipped(h, bound):
    return h * np.minimum(1.0, bound / (np.abs(h) + 1e-6))


def projected(x):
    low, high = np.array([mada.INTERVAL[name] for name in NAMES]).T
    return np.minimum(np.maximum(x, low), high)


# The rules at its corners

AVERAGES = {"b1": 0.8, "b2": 0.95, "eps": 1e-6}
CORNERS = {
    "adam": ("adam", AVERAGES, AVERAGES),
    "amsgrad": ("amsgrad", AVERAGES, AVERAGES | {"rho": 0.0, "accumulate": "max"}),
    "avgrad": ("avgrad", AVERAGES, AVERAGES | {"rho": 0.0, "accumulate": "mean"}),
    "yogi-mixed": ("yogi", AVERAGES | {"initial_accumulator": 0.0}, AVERAGES | {"c": 0.0}),
    "yogi-ema": (
        "yogi",
        AVERAGES | {"initial_accumulator": 0.0},
        AVERAGES | {"c": 0.0, "yogi_reference": "ema"},
    ),
    "adan": (
        "adan",
        {"b1": 0.8, "b2": 0.7, "b3": 0.95, "eps": 1e-6, "eps_root": 0.0, "bias_correction": False},
        {"b1": 0.8, "b3": 0.7, "b2": 0.95, "eps": 1e-6, "bias_correction": False,
         "first_difference": "zero"},
    ),
}  # fmt: skip


def distance(a, b):
    """Between two runs: the largest difference, in units of the parameter's largest value."""
    return max(
        float(np.max(np.abs(p[k] - q[k]))) / max(1.0, float(np.max(np.abs(q[k]))))
        for (p, _), (q, _) in zip(a, b, strict=True)
        for k in q
    )


@pytest.mark.parametrize("accumulate", ["max", "mean"])
@pytest.mark.parametrize("corner", CORNERS)
def test_corner(corner, accumulate):
    """Every step of the other rule, to the last digit: 1e-15 of a parameter near 1."""
    rule, theirs, ours = CORNERS[corner]
    params, grads = problem(20)
    ours = {"lr": LR, "accumulate": accumulate, "rho": 1.0, "c": 1.0, "b3": 0.0} | FROZEN | ours
    expected = run(Optimizer(rule, lr=LR, **theirs), params, grads)
    assert distance(run(Optimizer("mada", **ours), params, grads), expected) <= 1e-15


@pytest.mark.parametrize(
    "change", [{"rho": 0.5}, {"c": 0.5}, {"b3": 0.5}, {"bias_correction": False}], ids=str
)
def test_adam_corner_is_left_by_each_coefficient(change):
    params, grads = problem(20)
    expected = run(Optimizer("adam", lr=LR, **AVERAGES), params, grads)
    ours = run(Optimizer("mada", lr=LR, **(FROZEN | AVERAGES | change)), params, grads)
    assert distance(ours, expected) > 1e-3


def transcribed(p, grads, *, bias_correction, accumulate, yogi_reference, first_difference):
    """The update at the coefficients INSIDE, from its formulas; and what Yogi's sign was of."""
    b1, b2, b3, rho, c = INSIDE.values()
    before = m = n = vt = w = v = np.zeros_like(p)
    between = 0
    for t, g in enumerate(grads, 1):
        d = np.zeros_like(g) if t == 1 and first_difference == "zero" else g - before
        q = (g + b3 * d) ** 2
        r, other = (v, vt) if yogi_reference == "mixed" else (vt, v)
        between += np.count_nonzero(np.sign(q - r) != np.sign(q - other))
        m, n = b1 * m + (1 - b1) * g, b3 * n + (1 - b3) * d
        vt = b2 * vt + (1 - b2) * (c * q + (1 - c) * (r + q * np.sign(q - r)))
        w = np.maximum(w, vt) if accumulate == "max" else ((t - 1) * w + vt) / t
        v = rho * vt + (1 - rho) * w
        B1, B2 = (1 - b1**t, 1 - b2**t) if bias_correction else (1, 1)
        p, before = p - LR * (m / B1 + b3 * n) / (np.sqrt(v / B2) + 1e-8), g
    return p, between


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_inside_of_the_corners(combination):
    """Every option, where no coefficient is 0 or 1."""
    options = COMBINATIONS[combination]
    params, grads = problem(60)
    ours = run(Optimizer("mada", lr=LR, **INSIDE, **FROZEN, **options), params, grads)[-1][0]
    w, between = transcribed(params["w"], [g["w"] for g in grads], **options)
    b, _ = transcribed(params["b"], [g["b"] for g in grads], **options)
    assert between > 0  # the two references are told apart
    np.testing.assert_allclose(ours["w"], w, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(ours["b"], b, rtol=1e-13, atol=1e-13)


# Derivatives of the new parameter


class Jax:
    def __init__(self):
        self.jax = pytest.importorskip("jax")

    def session(self):
        return self.jax.enable_x64(True)

    def asarray(self, x):
        return self.jax.numpy.array(x)

    def jacobian(self, f, at):
        return np.asarray(self.jax.jacfwd(f)(self.asarray(at)))

    def gradient(self, f, at):
        return np.asarray(self.jax.grad(f)(self.asarray(at)))


class Torch:
    def __init__(self):
        self.torch = pytest.importorskip("torch")

    def session(self):
        return self.torch.enable_grad()

    def asarray(self, x):
        return self.torch.tensor(np.array(x))

    def jacobian(self, f, at):
        """By torch.autograd, backwards; each element has its own coefficients, so one pass does."""
        x = self.asarray(at)
        shape = f(x).shape
        x = x.reshape(-1, *[1] * len(shape)).expand(-1, *shape).clone().requires_grad_(True)
        return np.moveaxis(self.torch.autograd.grad(f(x).sum(), x)[0].numpy(), 0, -1)

    def gradient(self, f, at):
        return self.torch.func.grad(f)(self.asarray(at)).numpy()


@pytest.fixture
def autodiff(request):
    library = request.param()
    with library.session():
        yield library


LIBRARIES = pytest.mark.parametrize("autodiff", [Jax, Torch], indirect=True, ids=["jax", "torch"])


def step_of(library, name, before, grads, options):
    """The new parameter as a function of the coefficients: all else is constant."""
    params, state = before
    asarray = library.asarray
    param, grad = asarray(params[name]), asarray(grads[name])
    slots = mada.State(*(() if s == () else asarray(s[name]) for s in state.slots))
    zeros = mada.Coefficients(*[0.0] * 5)

    def new(x):
        shared = mada.Shared(mada.Coefficients(*(x[i] for i in range(5))), zeros)
        t = state.step + 1
        return mada.update(
            param, grad, slots, t, shared=shared, lr=LR, **options, xp=namespace(param)
        )[0]

    return new


@LIBRARIES
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_derivatives_are_those_of_autodiff(autodiff, combination):
    """Steps 1, 2, 3 and 7; the coefficients move meanwhile, as they do in use."""
    options = COMBINATIONS[combination]
    params, grads = problem(7)
    path = run(Optimizer("mada", lr=LR, **INSIDE, **options), params, grads)
    for t, name in itertools.product((1, 2, 3, 7), params):
        state = path[t][1]
        new = step_of(autodiff, name, path[t - 1], grads[t - 1], options)
        expected = autodiff.jacobian(new, coefficients(state))
        ours = np.stack([getattr(state.slots, d)[name] for d in DERIVATIVES], axis=-1)
        assert np.all(np.isfinite(expected))
        # dM/db1 is 0 at t = 1 where bias is corrected, and n is where d is: rounding is left
        np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-13 * LR)


@LIBRARIES
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_a_dead_element_has_no_derivative(autodiff, combination):
    """Where V = 0 autodiff divides by 0: NaN. Ours is exactly 0; its neighbours are unharmed."""
    options = COMBINATIONS[combination]
    params, grads = problem(3)
    for g in grads:
        g["b"] = np.where(np.arange(5) == 2, 0.0, g["b"])
    path = run(Optimizer("mada", lr=LR, **INSIDE, **options), params, grads)
    state = path[3][1]
    new = step_of(autodiff, "b", path[2], grads[2], options)
    expected = autodiff.jacobian(new, coefficients(state))
    ours = np.stack([getattr(state.slots, d)["b"] for d in DERIVATIVES], axis=-1)
    assert np.array_equal(np.isnan(expected).any(axis=1), np.arange(5) == 2)
    assert np.array_equal(ours[2], np.zeros(5))
    alive = np.arange(5) != 2
    np.testing.assert_allclose(ours[alive], expected[alive], rtol=1e-10, atol=1e-13 * LR)
    assert np.array_equal(path[3][0]["b"][2], params["b"][2])


@LIBRARIES
def test_derivatives_at_a_tie(autodiff):
    """Where vt = w' the maximum's derivative is 1/2 to all three.

    With c = 0 and no gradient, vt stays what it was; in powers of 2, exactly.
    """
    options = {"yogi_reference": "ema"}
    params, grads = {"w": np.ones(2)}, [{"w": np.array([2.0, -4.0])}, {"w": np.zeros(2)}]
    start = {"b1": 0.5, "b2": 0.75, "b3": 0.0, "rho": 0.5, "c": 0.0}
    path = run(Optimizer("mada", lr=LR, **start, **FROZEN, **options), params, grads)
    old, new = path[1][1].slots, path[2][1].slots
    assert np.array_equal(new.v["w"], old.w["w"])
    expected = autodiff.jacobian(
        step_of(autodiff, "w", path[1], grads[1], options), coefficients(path[2][1])
    )
    ours = np.stack([getattr(new, d)["w"] for d in DERIVATIVES], axis=-1)
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-13 * LR)
    assert np.all(np.abs(new.d_c["w"]) > 1e-3)


def test_an_element_dead_until_now_has_a_derivative():
    """It is dead by its V, not by its past: the first gradient that comes counts."""
    params, grads = problem(3)
    for g in grads[:2]:
        g["b"] = np.zeros(5)
    path = run(Optimizer("mada", lr=LR, **INSIDE), params, grads)
    dead, alive = path[2][1].slots, path[3][1].slots
    assert all(np.array_equal(getattr(dead, d)["b"], np.zeros(5)) for d in DERIVATIVES)
    assert all(np.all(getattr(alive, d)["b"] != 0) for d in ("d_b1", "d_b2", "d_b3"))


@pytest.mark.parametrize("reference", ["mixed", "ema"])
def test_with_max_more_rho_is_a_longer_step(reference):
    """dv/drho = vt - w <= 0: each element's derivative points where its step went."""
    params, grads = problem(30)
    opt = Optimizer("mada", lr=LR, yogi_reference=reference, **INSIDE)
    for (p, _), (q, state) in itertools.pairwise(run(opt, params, grads)):
        assert all(np.all(state.slots.v[k] <= state.slots.w[k]) for k in p)
        assert all(np.all(state.slots.d_rho[k] * (q[k] - p[k]) >= 0) for k in p)
    assert any(np.any(state.slots.d_rho[k] != 0) for k in params)


def test_with_mean_rho_acts_either_way():
    """Once the gradients shrink, vt falls below its mean."""
    params, grads = problem(30)
    grads[20:] = [{k: g / 100 for k, g in tree.items()} for tree in grads[20:]]
    path = run(Optimizer("mada", lr=LR, accumulate="mean", **INSIDE), params, grads)
    signs = set()
    for (p, _), (q, state) in itertools.pairwise(path):
        signs |= {x for k in p for x in np.sign(state.slots.d_rho[k] * (q[k] - p[k])).flat}
    assert {-1.0, 1.0} <= signs


# Learning: the coefficients descend the loss of the next step

RATES = {"hlr_b1": 1e-3, "hlr_b2": 2e-3, "hlr_b3": 3e-3, "hlr_rho": 4e-3, "hlr_c": 5e-3}
HLR = np.array(list(RATES.values()))


@pytest.mark.parametrize("steps", [1, 2, 6])
@pytest.mark.parametrize("bound", [np.inf, 10.0, 0.05], ids=["free", "mixed", "clipped"])
@LIBRARIES
@pytest.mark.parametrize("combination", ["mada-max-mixed-gradient-corrected",
                                         "mada-mean-ema-zero-biased"])  # fmt: skip
def test_coefficients_descend_the_next_loss(autodiff, combination, bound, steps):
    """coef - hlr clip(h), h by autodiff of sum(g_{t+1} * p_t(coef)) over both parameters."""
    options = COMBINATIONS[combination]
    params, grads = problem(steps + 1)
    grads[-1] = {k: 20 * g for k, g in grads[-1].items()}
    opt = Optimizer("mada", lr=LR, hyper_clip=bound, **INSIDE, **options, **RATES)
    *_, before, (_, state), (_, after) = run(opt, params, grads)
    steps_of = {k: step_of(autodiff, k, before, grads[-2], options) for k in params}

    def loss(x):
        return sum((autodiff.asarray(grads[-1][k]) * steps_of[k](x)).sum() for k in params)

    old = coefficients(state)
    h = autodiff.gradient(loss, old)
    # after one step with bias correction only b3 has a say: it is g / |g| whatever the others are
    assert np.count_nonzero(np.abs(h) > 0.01) >= (1 if steps == 1 else 4)
    expected = old - HLR * clipped(h, bound)
    assert np.array_equal(expected, projected(expected))  # nothing is hidden by the projection
    np.testing.assert_allclose(coefficients(after), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("bound", [np.inf, 1e3, 10.0, 0.1])
def test_clip(bound):
    """h min(1, clip / (|h| + 1e-6)): its sign stays, its size is at most the bound."""
    params, grads = problem(6)
    grads[-1] = {k: 100 * g for k, g in grads[-1].items()}
    opt = Optimizer("mada", lr=LR, hyper_clip=bound, **INSIDE, **FROZEN)
    *_, (p, state) = run(opt, params, grads[:-1])
    h = hyper_gradient(grads[-1], state)
    assert np.any(h > 10)
    assert np.any(h < -10)
    assert np.any(np.abs(h) < 10)
    opt = Optimizer("mada", lr=LR, hyper_clip=bound, **INSIDE, **dict.fromkeys(RATES, 1e-6))
    after = opt.step(p, grads[-1], state)[1]
    np.testing.assert_allclose(velocity(after), clipped(h, bound), rtol=1e-12)
    assert np.all(np.abs(velocity(after)) <= bound)
    np.testing.assert_allclose(
        coefficients(after), coefficients(state) - 1e-6 * clipped(h, bound), rtol=1e-15
    )


@pytest.mark.parametrize("sign", [-1, 1])
def test_projection(sign):
    """Rates that throw every coefficient out of its interval leave it at the interval's end."""
    params, grads = problem(6)
    *_, (p, state) = run(Optimizer("mada", lr=LR, **INSIDE, **FROZEN), params, grads[:-1])
    last = {k: sign * g for k, g in grads[-1].items()}
    h = hyper_gradient(last, state)
    assert np.all(np.abs(h) > 1e-5)
    opt = Optimizer("mada", lr=LR, **INSIDE, **dict.fromkeys(RATES, 1e6))
    after = opt.step(p, last, state)[1]
    low, high = np.array([mada.INTERVAL[x] for x in NAMES]).T
    assert np.array_equal(coefficients(after), np.where(h > 0, low, high))


def test_intervals():
    assert mada.INTERVAL == {
        "b1": (0.01, 0.99), "b2": (0.501, 0.99), "b3": (0.0, 0.99), "rho": (0.0, 1.0),
        "c": (0.0, 1.0),
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_of_0_freezes_one_coefficient(name):
    params, grads = problem(6)
    opt = Optimizer("mada", lr=LR, **INSIDE, **(RATES | {f"hlr_{name}": 0.0}))
    path = run(opt, params, grads)
    i = NAMES.index(name)
    assert all(coefficients(s)[i] == INSIDE[name] and velocity(s)[i] == 0 for _, s in path)
    others = [j for j in range(5) if j != i]
    assert np.all(coefficients(path[-1][1])[others] != np.array(list(INSIDE.values()))[others])


@pytest.mark.parametrize("name", ["b1", "b2"])
def test_a_frozen_coefficient_may_lie_outside_of_its_interval(name):
    params, grads = problem(6)
    opt = Optimizer("mada", lr=LR, **{name: 0.9999, f"hlr_{name}": 0.0})
    assert coefficients(run(opt, params, grads)[-1][1])[NAMES.index(name)] == 0.9999


def test_heavy_ball():
    """velocity = momentum velocity + h, and the coefficient moves by hlr times that."""
    params, grads = problem(6)
    opt = Optimizer("mada", lr=LR, hyper_momentum=0.7, hyper_clip=2.0, **INSIDE, **RATES)
    path, u = run(opt, params, grads), np.zeros(5)
    for g, (_, old), (_, new) in zip(grads, path, path[1:], strict=False):
        u = 0.7 * u + clipped(hyper_gradient(g, old), 2.0)
        np.testing.assert_allclose(velocity(new), u, rtol=1e-12, atol=1e-15)
        expected = projected(coefficients(old) - HLR * u)
        np.testing.assert_allclose(coefficients(new), expected, rtol=0, atol=1e-15)
    assert np.all(u != 0)


def test_the_new_coefficients_are_used_in_the_same_step():
    """Learning comes before the step: with the coefficients given, a frozen run is the same."""
    params, grads = problem(4)
    path = run(Optimizer("mada", lr=LR, **INSIDE, **RATES), params, grads)
    (p, state), (expected, after) = path[-2:]
    given = dict(zip(NAMES, coefficients(after).tolist(), strict=True))
    opt = Optimizer("mada", lr=LR, **given, **FROZEN)
    state = state._replace(shared=opt.init(params).shared)
    ours, _ = opt.step(p, grads[-1], state)
    assert all(np.array_equal(ours[k], expected[k]) for k in params)
    assert given["b1"] != INSIDE["b1"]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_without_lr_does_not_learn(momentum):
    """Nor does the one after learn from it: its derivatives are 0. Moments go on."""
    params, grads = problem(5)
    opt = Optimizer("mada", lr=LR, hyper_momentum=momentum, **INSIDE, **RATES)
    p, state = run(opt, params, grads[:3])[-1]
    still, after = opt.step(p, grads[3], state, lr=0.0)
    assert all(np.array_equal(still[k], p[k]) for k in p)
    assert np.array_equal(coefficients(after), coefficients(state))
    assert np.array_equal(velocity(after), velocity(state))
    assert all(np.all(getattr(after.slots, d)[k] == 0) for d in DERIVATIVES for k in p)
    assert all(np.all(after.slots.m[k] != state.slots.m[k]) for k in p)
    _, last = opt.step(p, grads[4], after)
    np.testing.assert_allclose(velocity(last), momentum * velocity(after), rtol=1e-15)


def test_nothing_is_learned_in_the_first_step():
    params, grads = problem(2)
    opt = Optimizer("mada", lr=LR, **INSIDE, **dict.fromkeys(RATES, 1e6), bias_correction=False)
    (_, start), (_, one), (_, two) = run(opt, params, grads)
    assert np.array_equal(coefficients(start), list(INSIDE.values()))
    assert np.array_equal(coefficients(one), coefficients(start))
    assert np.array_equal(velocity(one), np.zeros(5))
    assert np.all(coefficients(two)[:3] != coefficients(one)[:3])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_coefficients_live_in_the_shared_state(dtype):
    """As 0-d arrays in the widest dtype: one set for all parameters."""
    params, grads = problem(8)
    params = {k: p.astype(dtype) for k, p in params.items()}
    grads = [{k: g.astype(dtype) for k, g in tree.items()} for tree in grads]
    path = run(Optimizer("mada", lr=LR, **INSIDE, **RATES), params, grads)
    for _, state in path:
        assert state.shared.value._fields == ("b1", "b2", "b3", "rho", "c")
        assert state.shared.velocity._fields == state.shared.value._fields
        every = [*state.shared.value, *state.shared.velocity]
        assert all(isinstance(x, np.ndarray) and x.shape == () for x in every)
        assert all(x.dtype == "float64" for x in every)
    assert np.all(coefficients(path[-1][1]) != coefficients(path[0][1]))


def test_one_parameter_or_two_halves_learn_alike():
    """The sums run over all parameters: how the elements are cut makes no difference."""
    params, grads = problem(8)
    whole = [np.concatenate([t["w"].ravel(), t["b"]]) for t in (params, *grads)]
    opt = Optimizer("mada", lr=LR, **INSIDE, **RATES)
    one, two = run(opt, whole[0], whole[1:])[-1][1], run(opt, params, grads)[-1][1]
    np.testing.assert_allclose(coefficients(one), coefficients(two), rtol=1e-12)


STARTS = {  # each just out of its interval, and legal for the hyperparameter itself
    "b1-low": ("b1", 0.009), "b1-high": ("b1", 0.991), "b2-low": ("b2", 0.5),
    "b2-high": ("b2", 0.999), "b3-high": ("b3", 0.991),
}  # fmt: skip


@pytest.mark.parametrize("case", STARTS)
def test_a_learned_coefficient_must_start_in_its_interval(case):
    name, value = STARTS[case]
    low, high = mada.INTERVAL[name]
    said = rf"mada: {name} is learned in \[{low}, {high}\], got {name}={value}; hlr_{name}=0 "
    with pytest.raises(ValueError, match=said):
        Optimizer("mada", **{name: value})
    Optimizer("mada", **{name: value, f"hlr_{name}": 0.0})


@pytest.mark.parametrize("name", ["rho", "c"])
def test_a_fraction_is_checked_by_its_range(name):
    with pytest.raises(ValueError, match=rf"mada: {name} must be in \[0, 1\], got 1.1"):
        Optimizer("mada", **{name: 1.1, f"hlr_{name}": 0.0})


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize(
    "start",
    [{}, {"accumulate": "mean"}, {"b3": 0.5, "rho": 0.5, "c": 0.5}],
    ids=["adam", "mean", "inside"],
)
def test_learning_helps_while_the_loss_is_falling(start, noise):
    """A quadratic of condition 100, lr 0.01, 200 steps: the learned run ends lower.

    Only there: once the loss is at its floor (lr 0.05 here) learning helps or harms by chance.
    """
    rng = np.random.default_rng(7)
    curvature, p0 = np.geomspace(0.01, 1, 20), rng.standard_normal(20)
    shocks = noise * rng.standard_normal((200, 20))

    def loss_of(**rates):
        opt = Optimizer("mada", lr=0.01, **start, **rates)
        p, state = p0, opt.init(p0)
        for e in shocks:
            p, state = opt.step(p, curvature * p + e, state)
        return 0.5 * np.sum(curvature * p * p)

    learned, still, first = loss_of(), loss_of(**FROZEN), 0.5 * np.sum(curvature * p0 * p0)
    assert learned < still < first
