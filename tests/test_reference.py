"""Every rule and option in NumPy float64 against its 50-digit transcription, step by step."""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
import reference

import arrayopt as ao

STEPS = 50
SHAPES = {"w": (3, 2), "b": ()}
PARAMS = 1e-12  # error after every step, in units of the largest magnitude that the element had
SHARED = 1e-12  # error of a coefficient, all of which are in [0, 1]
# Error of a slot after the last step, in units of its own magnitude then. Less than 1e-12, were it
# not for sums that cancel at that moment (momenta, MADA's differences).
SLOTS = 1e-11

# What `weight_decay` means when nothing else is said.
DECAY = dict.fromkeys(reference.RULES, "decoupled")
DECAY |= dict.fromkeys(("sgd", "adam", "amsgrad", "adamax"), "coupled")


def hard() -> np.ndarray:
    """Gradients that a rule may meet: one row per step, one column per element."""
    rng = np.random.default_rng(20)
    g = rng.normal(size=(STEPS, 7))
    g[:, 1] = 0.0  # no gradient, ever
    g[33, 2] = 1e30  # an outlier, and in the end, lest MADA's v - w consist of rounding, more
    g[45:, 2] *= 1e29
    g[[7, 8, 40], 2] = 0.0
    g[:, 3] *= 1e-150  # squares of 1e-300: 8 powers of ten above the smallest normal number
    g[:, 4] *= 3e-8  # beside which eps = 1e-8 counts, and MaxVA's delta
    g[[0, 1, 20, 21], 4] = 0.0
    g[:, 5] = np.exp(2.0 * g[:, 5]) * (-1.0) ** np.arange(STEPS)  # flips its sign at every step
    g[[10, 11], 5] *= 1e-150
    g[25, 5] = 0.0
    g[0, 6] *= 1e-150
    g[[12, 13], 0] = 1.0, 0.25  # squares of 1 and 1/16, which no rule may take for special
    return g


def dense() -> np.ndarray:
    """Gradients of one magnitude; none is 0 before the last step."""
    g = np.random.default_rng(3).normal(size=(STEPS, 7))
    g[-1, :3] = 1.0, 0.25, 0.0
    return g


def late() -> np.ndarray:
    """More steps, at the end of which Madam's quotient exceeds 10."""
    g = np.random.default_rng(4).normal(size=(120, 7))
    g[117:] *= 1e3
    return g


# An element that starts at 0 shows every bit of its moves.
SMALL = [0.5, -1.25, 2.0, 0.0, 0.0, -3e-4, 0.0]
SIGNED = [0.5, -1.25, 2.0, 1e-3, -0.7, 0.0, 0.8]  # Madam never moves a 0
DATA = {
    "hard": (SMALL, hard()),
    "dense": (SMALL, dense()),
    # For a rule that is not defined where all gradients so far were 0.
    "seen": (SMALL, np.where(hard() == 0, 0.01, hard())),
    # MaxVA's variance v/w - (u/w)**2 keeps no digit where the gradient hardly changes, and it
    # decides beta. So: gradients that outweigh a coupled decay, which itself changes slowly.
    "loud": ([0.5, -1.25, 2.0, 0.0, 0.1, -3e-4, 0.0], 3.0 * dense()),
    "signed": (SIGNED, hard()),
    "signed late": (SIGNED, late()),
    "signed outside": ([0.5, -1.25, 2.0, 1e-3, 9.0, 0.0, -0.8], hard()),
    "ties": (SIGNED, np.array([[2.0] * 7, [1.0] * 7])),
}

RATES = [0.0, 0.03, *(0.03 * (1 + math.cos(k / 9)) for k in range(2, STEPS))]
RATES[8] = RATES[9] = RATES[36] = 0.0  # at such a step nothing moves, but the slots go on
FROZEN = dict.fromkeys(("hlr_b1", "hlr_b2", "hlr_b3", "hlr_rho", "hlr_c"), 0.0)
FREE = {"accumulate": "mean", "rho": 0.5, "c": 0.5, "b3": 0.3, "lr": 0.05}
WIDE = dict.fromkeys(FROZEN, 0.3)

COMMON = {
    "default": {},
    "decay": {"weight_decay": 0.07},
    "coupled": {"weight_decay": 0.07, "decay": "coupled"},
    "decoupled": {"weight_decay": 0.07, "decay": "decoupled", "lr": 0.1},
    "independent": {"weight_decay": 0.07, "decay": "independent", "lr": RATES},
    "maximize": {"maximize": True},
    "maximize coupled": {"maximize": True, "weight_decay": 0.07, "decay": "coupled"},
    "schedule": {"lr": RATES},
    "lr": {"lr": 0.3},
}
MOMENTS = {
    "b1": {"b1": 0.3},
    "b2": {"b2": 0.4},
    "b1 0": {"b1": 0.0},
    "b2 0": {"b2": 0.0, "data": "seen"},
    "eps": {"eps": 0.02},
    "eps 0": {"eps": 0.0, "data": "seen"},
}
MAXVA = {
    "b1": {"b1": 0.3},
    "b1 0": {"b1": 0.0},
    "b_lo": {"b_lo": 0.0},
    "b_hi": {"b_hi": 0.6},
    "b_hi 1": {"b_hi": 1.0, "b_first": 0.9},
    "b_first": {"b_first": 0.25},
    "b_first 0": {"b_first": 0.0},
    "b_lo b_hi": {"b_lo": 0.8, "b_hi": 0.8},
    "delta": {"delta": 0.3},
    "eps": {"eps": 0.02},
    "eps 0": {"eps": 0.0, "data": "seen"},
}
CASES = {
    "sgd": {
        "decay": {"weight_decay": 0.07, "momentum": 0.9},  # without momentum, all are one
        "momentum": {"momentum": 0.9},
        "momentum 0": {"momentum": 0},
        "momentum 1": {"momentum": 1.0, "lr": 0.1},
        "dampening": {"momentum": 0.9, "dampening": 0.4},
        "dampening 1": {"momentum": 0.9, "dampening": 1.0},
        "dampening alone": {"dampening": 0.4},
        "nesterov": {"momentum": 0.9, "nesterov": True},
        "nesterov dampening": {"momentum": 0.7, "nesterov": True, "dampening": 0.4},
        "nesterov alone": {"nesterov": True},
        "momentum coupled": {"momentum": 0.9, "weight_decay": 0.07, "decay": "coupled"},
    },
    "adam": MOMENTS
    | {
        "eps_root": {"eps_root": 1e-3},
        "eps_root alone": {"eps_root": 1e-9, "eps": 0.0},
        "eps_hat": {"eps_hat": True},
        "eps_hat eps": {"eps_hat": True, "eps": 0.02, "eps_root": 1e-3, "b2": 0.4},
        "uncorrected": {"bias_correction": False},
        "uncorrected eps_hat": {"bias_correction": False, "eps_hat": True, "eps": 0.02},
    },
    "amsgrad": MOMENTS
    | {
        "eps_root": {"eps_root": 1e-3},
        "eps_root alone": {"eps_root": 1e-9, "eps": 0.0},
        "eps_hat": {"eps_hat": True},
        "eps_hat eps": {"eps_hat": True, "eps": 0.02, "eps_root": 1e-3, "b2": 0.4},
        "corrected_max": {"corrected_max": True},
        "corrected_max eps": {"corrected_max": True, "eps": 0.02, "b2": 0.4},
        "corrected_max eps_hat": {"corrected_max": True, "eps_hat": True},
        "uncorrected": {"bias_correction": False},
        "uncorrected max": {"bias_correction": False, "corrected_max": True},
    },
    "avgrad": MOMENTS,
    "yogi": MOMENTS
    | {
        "b2 0": {"b2": 0.01},  # at 0, v would be 0 after the first step
        "eps 0": {"eps": 0.0},
        "initial_accumulator": {"initial_accumulator": 0.3},
        "initial_accumulator 0": {"initial_accumulator": 0.0},
    },
    "adan": MOMENTS
    | {
        "b3": {"b3": 0.5},
        "b3 0": {"b3": 0.0},
        "eps 0": {"eps": 0.0},
        "eps_root": {"eps_root": 1e-3},
        "eps_root 0": {"eps_root": 0.0},
        "bias_correction": {"bias_correction": False},
        "uncorrected": {"bias_correction": False, "eps_root": 0.0, "b1": 0.5, "b3": 0.7},
    },
    "laprop": MOMENTS | {"eps 0": {"eps": 0.0}},
    "adamax": MOMENTS
    | {
        "eps 0": {"eps": 0.0},
        "eps_in_max": {"eps_in_max": True},
        "eps_in_max eps": {"eps_in_max": True, "eps": 0.02},
        "eps_in_max eps 0": {"eps_in_max": True, "eps": 0.0},
        "b2": {"b2": 0.4, "eps_in_max": True},
        "uncorrected": {"bias_correction": False},
    },
    "simplified_ademamix": MOMENTS
    | {
        "alpha": {"alpha": 2.5},
        "alpha schedule": {"alpha": [10 * x for x in RATES], "lr": 0.05},
        "eps_root": {"eps_root": 1e-3},
        "eps_root alone": {"eps_root": 1e-9, "eps": 0.0},
    },
    "madam": {
        "b2": {"b2": 0.4},
        "b2 0": {"b2": 0.0},
        "p_scale": {"p_scale": 1.0},
        "p_scale outside": {"p_scale": 0.5, "data": "signed outside"},
        "g_bound": {"g_bound": 0.5},
        "g_bound late": {"data": "signed late"},
        "g_bound inf": {"g_bound": math.inf},
        "p_scale inf": {"p_scale": 1e3, "lr": 0.5},
    },
    "maxva_madam": MAXVA
    | {
        "amsgrad": {"amsgrad": True},
        "nesterov": {"nesterov": True, "b1": 0.6},
        "both": {"amsgrad": True, "nesterov": True, "lr": 0.2},
    },
    "maxva_lamadam": MAXVA,
    "mada": {
        "free": FREE,
        "free max": FREE | {"accumulate": "max"},
        "free ema": FREE | {"yogi_reference": "ema"},
        "free zero": FREE | {"first_difference": "zero"},
        "free uncorrected": FREE | {"bias_correction": False},
        "free dense": FREE | {"data": "dense"},
        "free dense max": FREE | {"data": "dense", "accumulate": "max"},
        "free uncorrected dense": FREE | {"data": "dense", "bias_correction": False},
        "all": FREE
        | {
            "yogi_reference": "ema",
            "first_difference": "zero",
            "bias_correction": False,
            "hyper_momentum": 0.8,
        },
        "start": FREE | {"b1": 0.6, "b2": 0.7},
        "eps": FREE | {"eps": 0.02},
        "hyper_momentum": FREE | {"hyper_momentum": 0.7},
        "hyper_momentum schedule": FREE | {"hyper_momentum": 0.7, "lr": RATES},
        "hyper_clip": FREE | {"hyper_clip": 0.02},
        "hyper_clip inf": FREE | {"hyper_clip": math.inf},
        "far": FREE | WIDE,
        "far back": FREE | WIDE | {"maximize": True},
        "far dense": FREE | WIDE | {"data": "dense", "lr": 0.5},
        "far dense max": FREE | WIDE | {"data": "dense", "lr": 0.5, "accumulate": "max"},
        "b1 alone": FREE | FROZEN | {"hlr_b1": 0.1},
        "b2 alone": FREE | FROZEN | {"hlr_b2": 0.1},
        "b3 alone": FREE | FROZEN | {"hlr_b3": 0.5},
        "rho alone": FREE | FROZEN | {"hlr_rho": 0.5},
        "c alone": FREE | FROZEN | {"hlr_c": 0.5},
        "frozen": FREE | FROZEN,
        "frozen max": FREE | FROZEN | {"accumulate": "max"},
        "frozen momentum": FREE | FROZEN | {"hlr_c": 0.1, "hyper_momentum": 0.9},
        "corner adam": FROZEN,
        "corner amsgrad": FROZEN | {"rho": 0.0},
        "corner avgrad": FROZEN | {"rho": 0.0, "accumulate": "mean"},
        "corner yogi": FROZEN | {"c": 0.0},
        "corner yogi ema": FROZEN | {"c": 0.0, "yogi_reference": "ema"},
        "corner adan": FROZEN | {"b3": 0.92, "bias_correction": False, "first_difference": "zero"},
        # b1 = b2 = b3 = 0 is the step g / (|g| + eps): where eps is no part of it, no derivative
        "corner betas 0": FROZEN | {"b1": 0, "b2": 0, "b3": 0, "eps": 0.02, "data": "dense"},
        # without b2, V = 0 where the gradient is 0, also in an element that is not dead
        "corner b2 0": FROZEN | {"b2": 0, "eps": 0.02, "data": "dense"},
        "corner betas": FROZEN | {"b1": 0.999, "b2": 0.4},
    },
}
# Data other than "hard", because of the rule itself.
# Coupled decay lifts a gradient of 1e-150 by many powers of ten in few steps; then q >> r, and
# MADA's q - r - q s loses the r that it is.
GROUND = {
    (rule, case): "loud"
    for rule in ("maxva_madam", "maxva_lamadam", "mada")
    for case in ("coupled", "maximize coupled")
}
GROUND |= {("madam", case): "signed" for case in COMMON | CASES["madam"]}

ALL = {
    (rule, case): {"data": GROUND.get((rule, case), "hard"), "decay": DECAY[rule]} | hyper
    for rule in CASES
    for case, hyper in (COMMON | CASES[rule]).items()
}


class Run(NamedTuple):
    """What the reference's run did, as float64; w's elements, then b's."""

    params: np.ndarray  # (step, element)
    slots: dict[str, np.ndarray]  # after the last step
    shared: np.ndarray  # (step, coefficient)


def split(x: np.ndarray) -> dict[str, np.ndarray]:
    """A row of all elements as a tree."""
    return {"w": x[:6].reshape(SHAPES["w"]), "b": x[6].reshape(SHAPES["b"])}


def flat(tree: dict[str, np.ndarray]) -> np.ndarray:
    """The other way round."""
    return np.concatenate([np.ravel(tree["w"]), np.ravel(tree["b"])])


def floats(nested: list) -> np.ndarray:
    """All numbers in nested lists."""
    return np.concatenate([floats(x) if isinstance(x, list) else [float(x)] for x in nested])


def theirs(rule: str, data: str, hyper: dict) -> Run:
    """The reference's run, done once."""
    fixed = {k: tuple(v) if isinstance(v, list) else v for k, v in hyper.items()}
    return _theirs(rule, data, tuple(sorted(fixed.items())))


@functools.cache
def _theirs(rule: str, data: str, hyper: tuple) -> Run:
    start, grads = DATA[data]
    done = reference.run(
        rule,
        [start[:6], start[6:]],
        [[row[:6].tolist(), row[6:].tolist()] for row in grads],
        **dict(hyper),
    )
    return Run(
        np.stack([floats(p) for p in done.params]),
        {k: floats(s) for k, s in done.slots.items()},
        np.array([[float(x) for x in c.values()] for c in done.shared]).reshape(len(grads), -1),
    )


def ours(rule: str, data: str, hyper: dict) -> Iterator[tuple[np.ndarray, ao.State]]:
    """The library's run: parameters and state after every step."""
    start, grads = DATA[data]
    hyper = {k: v.__getitem__ if isinstance(v, list) else v for k, v in hyper.items()}
    opt = ao.Optimizer(rule, **hyper)
    params = split(np.array(start))
    state = opt.init(params)
    for row in grads:
        params, state = opt.step(params, split(row), state)
        assert {k: p.shape for k, p in params.items()} == SHAPES
        assert all(p.dtype == np.float64 for p in params.values())
        yield flat(params), state


def slots_of(rule: str, hyper: dict) -> set[str]:
    """The slots that a rule has with these options."""
    off = set()
    if rule == "sgd" and not hyper.get("momentum"):
        off = {"m"}
    if rule == "mada" and hyper.get("yogi_reference") == "ema":
        off = {"r"}
    if rule == "maxva_madam" and not hyper.get("amsgrad"):
        off = {"top"}
    return set(reference.RULES[rule][1].split()) - off


def assert_params(got: np.ndarray, want: np.ndarray, top: np.ndarray) -> None:
    """Parameters agree to PARAMS; ``top``: the largest magnitude that each element had."""
    assert (np.abs(got - want) <= PARAMS * top).all(), f"got {got!r}, want {want!r}"


def tops(data: str, params: np.ndarray) -> np.ndarray:
    """The largest magnitude up to every step."""
    return np.maximum.accumulate(np.abs(np.vstack([DATA[data][0], params])))[1:]


def assert_slots(got: dict[str, np.ndarray], want: dict[str, np.ndarray], names: set[str]) -> None:
    """Slots agree to SLOTS, and no other is there."""
    assert set(got) == names
    for name in names:
        a, b = got[name], want[name]
        assert a.shape == b.shape
        assert (np.abs(a - b) <= SLOTS * np.abs(b)).all(), f"slot {name}: got {a}, want {b}"


@pytest.mark.parametrize(
    ("rule", "case"), [pytest.param(*key, id=f"{key[0]}-{key[1].replace(' ', '_')}") for key in ALL]
)
def test_run(rule, case):
    hyper = dict(ALL[rule, case])
    data = hyper.pop("data")
    want = theirs(rule, data, hyper)
    if case == "decay":  # the library is to know by itself which one
        del hyper["decay"]
    steps = zip(
        ours(rule, data, hyper), want.params, tops(data, want.params), want.shared, strict=True
    )
    for (params, state), *expected, coefficients in steps:
        assert_params(params, *expected)
        if rule == "mada":
            assert (np.abs(np.array(state.shared.value) - coefficients) <= SHARED).all()
        else:
            assert state.shared == ()
    slots = {k: flat(s) for k, s in state.slots._asdict().items() if not isinstance(s, tuple)}
    assert_slots(slots, want.slots, slots_of(rule, hyper))


@pytest.mark.parametrize("as_function", [False, True], ids=["tree", "function"])
@pytest.mark.parametrize("rule", CASES)
def test_decay_mask(rule, as_function):
    data = {"madam": "signed", "maxva_madam": "loud", "maxva_lamadam": "loud"}.get(rule, "hard")
    mask = {"w": True, "b": False}
    frozen = FROZEN if rule == "mada" else {}  # so that the two parameters have no part in another
    decay = {"weight_decay": 0.07, "decay": "coupled"}
    want = theirs(rule, data, frozen).params.copy()
    want[:, :6] = theirs(rule, data, frozen | decay).params[:, :6]
    masked = frozen | decay | {"decay_mask": (lambda params: mask) if as_function else mask}
    for (params, _), *expected in zip(
        ours(rule, data, masked), want, tops(data, want), strict=True
    ):
        assert_params(params, *expected)


@pytest.mark.parametrize("rule", ["adan"])
def test_without_difference_is_adam(rule):
    """The reference knows no ``difference_weight``; one of 0 leaves Adam, with b3 for b2."""
    hyper = {"b1": 0.8, "eps": 1e-6, "eps_root": 1e-3}
    want = theirs("adam", "hard", hyper | {"b2": 0.7}).params
    adan = hyper | {"b3": 0.7, "difference_weight": 0.0}
    for (params, _), *expected in zip(
        ours(rule, "hard", adan), want, tops("hard", want), strict=True
    ):
        assert_params(params, *expected)


@pytest.mark.parametrize("rule", ["mada"])
def test_exact_ties(rule):
    """q = r and v = w' to the bit: the signs are 0 and half of w moves with v."""
    hyper = FROZEN | {"b2": 0.75, "b3": 0.0, "c": 0.5, "rho": 0.5, "yogi_reference": "ema"}
    want = theirs(rule, "ties", hyper)
    ((_, first), (params, state)) = ours(rule, "ties", hyper)
    np.testing.assert_array_equal(flat(first.slots.v), flat(state.slots.v))
    assert_params(params, want.params[-1], np.abs(DATA["ties"][0]))
    slots = {k: flat(s) for k, s in state.slots._asdict().items() if not isinstance(s, tuple)}
    assert_slots(slots, want.slots, slots_of(rule, hyper))


@pytest.mark.parametrize("case", [k for k in CASES["mada"] if k.startswith(("free", "start"))])
@pytest.mark.parametrize("rule", ["mada"])
def test_coefficients_move(rule, case):
    """Else the comparison above would say nothing about the hyper-gradient."""
    hyper = dict(ALL[rule, case])
    shared = theirs(rule, hyper.pop("data"), hyper).shared
    spread = dict(zip(reference.BOUNDS, np.ptp(shared, axis=0), strict=True))
    assert min(spread.values()) > 1e-4, spread


START = {
    "yogi": {"initial_accumulator": 0.3},
    "sgd": {"momentum": 0.9},
    "maxva_madam": {"amsgrad": True},
}


@pytest.mark.parametrize("rule", CASES)
def test_first_slots(rule):
    hyper = START.get(rule, {})
    params = split(np.array(SIGNED))
    slots = ao.Optimizer(rule, **hyper).init(params).slots._asdict()
    assert set(slots) == slots_of(rule, hyper)
    if rule == "madam":
        scale = slots.pop("scale")
        assert scale["b"] == SIGNED[6]
        assert abs(scale["w"] - math.sqrt(math.fsum(x * x for x in SIGNED[:6]) / 6)) < 1e-15
    for tree in slots.values():
        for key, slot in tree.items():
            assert slot.shape == SHAPES[key]
            assert slot.dtype == np.float64
            assert (slot == hyper.get("initial_accumulator", 0.0)).all()


@pytest.mark.parametrize("decay", ["coupled", "decoupled", "independent"])
@pytest.mark.parametrize("rule", CASES)
def test_lr_0_moves_nothing(rule, decay):
    start, grads = DATA["signed outside"]  # for Madam: of its bound
    hyper = FREE | {"lr": 0.0} if rule == "mada" else {"lr": 0.0}
    hyper |= {"p_scale": 0.5} if rule == "madam" else {}
    opt = ao.Optimizer(rule, weight_decay=0.07, decay=decay, **hyper)
    params = split(np.array(start))
    state = opt.init(params)
    first = state.shared
    for row in grads[:3]:
        params, state = opt.step(params, split(row), state)
        assert (flat(params) == start).all()
    assert state.shared == first


@pytest.mark.parametrize(
    "rule", [r for r in CASES if "eps" in ao.hyperparameters(ao.rules.find(r))]
)
def test_eps_0_and_no_gradient(rule):
    """0 / 0 is 0: an element without a gradient so far stays, and moves with the first one."""
    roots = {"eps_root": 0.0} if "eps_root" in ao.hyperparameters(ao.rules.find(rule)) else {}
    start = {"initial_accumulator": 0.0} if rule == "yogi" else {}
    opt = ao.Optimizer(rule, lr=0.1, eps=0.0, **roots, **start)
    params = {"w": np.array([1.0, -2.0])}
    state = opt.init(params)
    for _ in range(3):
        params, state = opt.step(params, {"w": np.zeros(2)}, state)
        assert params["w"].tolist() == [1.0, -2.0]
    params, state = opt.step(params, {"w": np.array([0.5, 0.0])}, state)
    assert 0.5 < params["w"][0] < 0.999
    assert params["w"][1] == -2.0


@pytest.mark.parametrize("rule", ["sgd"])
def test_no_momentum_is_no_slot_as_an_int_too(rule):
    module = ao.rules.find(rule)
    assert module.init(np.ones(2), momentum=0, xp=np).m == ()
    assert module.init(np.ones(2), momentum=0.0, xp=np).m == ()
