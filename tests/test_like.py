"""``ao.like`` beside the optimizers whose names it takes, in each framework.

``python tests/test_like.py`` writes docs/like.md.
"""

import functools
import importlib
import inspect
import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from oracle import Path as Positions
from oracle import (
    Problem,
    deviation,
    leaves,
    losses,
    problem,
    run_keras,
    run_optax,
    run_torch,
)
from oracles_seed import run_mlx

import arrayopt as ao
from arrayopt._like import (
    FRAMEWORKS,
    NEEDED,
    NOTHING,
    Instead,
    Row,
    find,
    load,
    parameters,
    same,
    spelled,
)

HERE = Path(__file__).parent
STEPS = 12  # Keras is slow
PROBLEMS = {"adafactor": "tensors", "muon": "tensors", "sm3": "matrices"}
FLOAT32 = "MLX rounds every number that it is given to float32"
# What the framework does not compute in float64, and how exact that is.
BOUNDS = {
    ("optax", "adafactor"): (1e-6, "the weight of the past is float32"),
    ("optax", "madgrad"): (1e-5, "the root of the step is float32"),
    ("optax", "radam"): (1e-11, "1 - b2**t is subtracted from a number near 2000"),
}
ROWS = [(f, name) for f in FRAMEWORKS for name in load(f).rows]


def start(framework: str, name: str, steps: int = STEPS) -> Problem:
    """The parameters and gradients of oracle.py that this optimizer can work on."""
    row = load(framework).rows[name]
    params, grads = problem(steps, PROBLEMS.get(row.rule, "pauses"))
    axes = (0, 1, 2) if framework == "mlx" else (2,)  # that a framework's Muon works on
    fit = [k for k, p in params.items() if p.ndim in axes or row.rule != "muon"]
    return {k: params[k] for k in fit}, [{k: g[k] for k in fit} for g in grads]


def reads_loss(row: Row) -> bool:
    return "value" in ao.hyperparameters(ao.rules.find(row.rule))


def ours(framework: str, name: str, options: dict[str, Any]) -> Positions:
    """Every element after each step, and at the start."""
    opt = ao.like(framework, name, **options)
    params, grads = start(framework, name)
    state, path = opt.init(params), [leaves(params)]
    each = losses(STEPS) if reads_loss(load(framework).rows[name]) else [None] * len(grads)
    for g, value in zip(grads, each, strict=True):
        extra = {} if value is None else {"value": value}
        params, state = opt.step(params, g, state, **extra)
        path.append(leaves(params))
    return np.stack(path)


def theirs(framework: str, name: str, options: dict[str, Any]) -> Positions:
    """The same of the framework's own optimizer."""
    params, grads = start(framework, name)
    path = RUN[framework](name, options, params, grads)
    return np.vstack((leaves(params), path))


def torch_path(name: str, options: dict[str, Any], *args: Any) -> Positions:
    torch = pytest.importorskip("torch")
    if name != "Muon":
        return run_torch(name, options, *args, wide=True)
    with mock.patch.object(torch.Tensor, "bfloat16", lambda x: x.clone()):
        return run_torch(name, options, *args)


def optax_path(name: str, options: dict[str, Any], *args: Any) -> Positions:
    each = {"value": losses(STEPS)} if reads_loss(load("optax").rows[name]) else {}

    def make(optax: Any) -> Any:
        jax = pytest.importorskip("jax")
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            made = original("optax", name)(**options)
        return made._replace(update=jax.jit(made.update))

    return run_optax(make, *args, **each)


RUN: dict[str, Callable[..., Positions]] = {
    "torch": torch_path,
    "optax": optax_path,
    "keras": run_keras,
    "mlx": run_mlx,
}


def original(framework: str, name: str) -> Any:
    """The framework's own class or function."""
    where, _, name = find(framework, name)[0].rpartition(".")
    pytest.importorskip(where.split(".")[0])
    return getattr(importlib.import_module(where), name)


def needed(row: Row) -> dict[str, Any]:
    """What must be given for the defaults to be the rest."""
    ascends = row is load("optax").rows["adadelta"]  # without a rate
    given = {"learning_rate"} if ascends else {k for k, v in row.defaults.items() if v is NEEDED}
    return dict.fromkeys(given, 0.01)


# Beside the defaults: every option that is not refused or without effect is in one of these.
TORCH = {"lr": 0.1, "weight_decay": 0.05, "maximize": True}
BETAS = TORCH | {"betas": (0.7, 0.9), "eps": 1e-3}
RATE = {"learning_rate": 0.1}
OPTAX = RATE | {"b1": 0.7, "b2": 0.9}
ADAM = OPTAX | {"eps": 1e-3, "eps_root": 1e-4}
MASK = {"w": True, "b": False, "s": True}
DECAY = {"weight_decay": 0.05, "mask": MASK}
SLOW = {"learning_rate": 0.5, "eps": 0.3, "estim_lr0": 1e-3, "betas": (0.7, 0.9)}
LOSS = {"lower_bound": -1.0, "adapt_lower_bound": True, "weight_decay": 0.7, "learning_rate": 0.3}
KERAS = RATE | {"weight_decay": 0.05}
BETA = KERAS | {"beta_1": 0.7, "beta_2": 0.9, "epsilon": 1e-3}
MLX = {"learning_rate": 0.125, "betas": [0.75, 0.96875], "eps": 2.0**-10}


def falling(k: Any) -> Any:
    return 0.1 / (k + 1)


CASES: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("torch", "ASGD"): [TORCH | {"lambd": 0.7, "alpha": 0.6, "t0": 3.0}],
    ("torch", "Adadelta"): [TORCH | {"rho": 0.7, "eps": 1e-3}],
    ("torch", "Adafactor"): [
        {"lr": 0.5, "eps": (0.9, 0.2), "beta2_decay": -0.5, "d": 1.3, "maximize": True}
    ],
    ("torch", "Adagrad"): [
        TORCH | {"lr_decay": 0.3, "eps": 1e-3, "initial_accumulator_value": 0.3}
    ],
    ("torch", "Adam"): [
        BETAS,
        BETAS | {"amsgrad": True, "fused": True},
        BETAS | {"decoupled_weight_decay": True, "foreach": True},
    ],
    ("torch", "AdamW"): [BETAS, BETAS | {"amsgrad": True}],
    ("torch", "Adamax"): [BETAS],
    ("torch", "Muon"): [
        {"lr": 0.1, "weight_decay": 0.07, "momentum": 0.6, "nesterov": False, "ns_steps": 3}
        | {"ns_coefficients": (1.9, -1.3, 0.4), "eps": 3.0, "adjust_lr_fn": "match_rms_adamw"},
        {"adjust_lr_fn": "original"},
    ],
    ("torch", "NAdam"): [
        BETAS | {"momentum_decay": 0.3},
        BETAS | {"decoupled_weight_decay": True},
    ],
    ("torch", "RAdam"): [BETAS, BETAS | {"decoupled_weight_decay": True}],
    ("torch", "RMSprop"): [
        TORCH | {"alpha": 0.8, "eps": 1e-3, "momentum": 0.9, "centered": True},
    ],
    ("torch", "Rprop"): [
        {"lr": 0.02, "etas": (0.3, 1.4), "step_sizes": (0.005, 0.05), "maximize": True}
    ],
    ("torch", "SGD"): [
        TORCH | {"momentum": 0.9, "dampening": 0.4},
        TORCH | {"momentum": 0.9, "nesterov": True},
    ],
    ("optax", "adabelief"): [ADAM | {"nesterov": True}],
    ("optax", "adadelta"): [
        RATE | {"rho": 0.6, "eps": 1e-4, "weight_decay": 0.05, "weight_decay_mask": MASK}
    ],
    ("optax", "adafactor"): [
        {"learning_rate": 0.1, "min_dim_size_to_factor": 3, "decay_rate": 0.6}
        | {"multiply_by_parameter_scale": False, "clipping_threshold": 0.7, "eps": 1e-5},
        {"learning_rate": 0.1, "factored": False, "clipping_threshold": None, "momentum": 0.8},
    ],
    ("optax", "adagrad"): [RATE | {"initial_accumulator_value": 0.0, "eps": 1e-3}],
    ("optax", "adam"): [ADAM, ADAM | {"nesterov": True}, {"learning_rate": falling}],
    ("optax", "adamw"): [ADAM | DECAY, ADAM | DECAY | {"nesterov": True}],
    ("optax", "adamax"): [OPTAX | {"eps": 1e-3}],
    ("optax", "adamaxw"): [OPTAX | {"eps": 1e-3} | DECAY],
    ("optax", "adan"): [ADAM | {"b3": 0.8} | DECAY],
    ("optax", "amsgrad"): [ADAM, ADAM | {"bias_correction_mu": False, "bias_correction_nu": False}],
    ("optax", "fromage"): [RATE | {"min_norm": 0.5}],
    ("optax", "lamb"): [ADAM | {"weight_decay": 0.7}],
    ("optax", "lars"): [
        RATE
        | {"weight_decay": 3.0, "weight_decay_mask": MASK, "trust_coefficient": 0.5, "eps": 30.0}
        | {"momentum": 0.6, "nesterov": True},
    ],
    ("optax", "lion"): [{"learning_rate": 0.02, "b1": 0.5, "b2": 0.8} | DECAY],
    ("optax", "nadam"): [ADAM, ADAM | {"nesterov": False}],
    ("optax", "nadamw"): [ADAM | DECAY, ADAM | DECAY | {"nesterov": False}],
    ("optax", "novograd"): [ADAM | {"weight_decay": 0.7}],
    ("optax", "optimistic_adam"): [ADAM | {"optimism": 0.03, "nesterov": False}],
    ("optax", "optimistic_adam_v2"): [
        ADAM | {"alpha": 2.0, "beta": 0.5, "nesterov": False},
        {"learning_rate": falling, "alpha": 2.0},
    ],
    ("optax", "optimistic_gradient_descent"): [RATE | {"alpha": 0.7, "beta": 0.4}],
    ("optax", "polyak_sgd"): [
        {"max_learning_rate": 3e-7, "scaling": 0.5, "f_min": 2.0, "eps": 1e6, "variant": "sps+"}
    ],
    ("optax", "radam"): [ADAM | {"threshold": 8.0, "nesterov": True}],
    ("optax", "rmsprop"): [
        RATE | {"decay": 0.7, "eps": 1e-3, "initial_scale": 1.0, "eps_in_sqrt": False},
        RATE | {"centered": True, "momentum": 0.6, "nesterov": True, "eps": 1e-3},
        RATE | {"bias_correction": True},
    ],
    ("optax", "sgd"): [RATE | {"momentum": 0.9, "nesterov": True}, {"learning_rate": falling}],
    ("optax", "sign_sgd"): [RATE],
    ("optax", "signum"): [RATE | {"beta": 0.4}],
    ("optax", "sm3"): [RATE | {"momentum": 0.6}],
    ("optax", "yogi"): [OPTAX | {"eps": 1e-2}],
    ("optax", "acprop"): [ADAM | DECAY],
    ("optax", "ademamix"): [ADAM | {"b3": 0.95, "alpha": 3.0} | DECAY],
    ("optax", "adopt"): [
        OPTAX | {"eps": 1e-2, "nesterov": True, "clip_value_fn": lambda k: 1.0 + 0.1 * k},
        OPTAX | {"use_clipping": False},
    ],
    ("optax", "cocob"): [{"learning_rate": 0.3, "alpha": 10.0, "eps": 0.5} | DECAY],
    ("optax", "dadapt_adamw"): [SLOW | {"weight_decay": 0.1}],
    ("optax", "dog"): [{"learning_rate": 0.5, "init_step": ("distance", 0.03), "eps": 1e4} | DECAY],
    ("optax", "dowg"): [{"learning_rate": 0.5, "init_estim_sq_dist": 0.03, "eps": 100.0} | DECAY],
    ("optax", "madgrad"): [RATE | {"momentum": 0.6, "eps": 1e-3, "weight_decay": 0.05}],
    ("optax", "momo"): [LOSS | {"beta": 0.6}],
    ("optax", "momo_adam"): [LOSS | {"b1": 0.6, "b2": 0.8, "eps": 0.3}],
    ("optax", "muon"): [
        RATE
        | {"ns_coeffs": (1.9, -1.3, 0.4), "ns_steps": 3, "beta": 0.6, "eps": 0.5}
        | {"weight_decay": 0.07, "nesterov": False, "consistent_rms": 0.2}
        | {"weight_decay_mask": {"w": True, "v": False}}
    ],
    ("optax", "prodigy"): [
        SLOW | {"beta3": 0.8, "weight_decay": 0.1, "estim_lr_coef": 0.7, "safeguard_warmup": True}
    ],
    ("optax", "schedule_free_adamw"): [
        OPTAX | {"eps": 0.3, "weight_decay": 0.7, "weight_lr_power": 1.5}
    ],
    ("optax", "schedule_free_sgd"): [
        RATE | {"b1": 0.6, "weight_decay": 0.7, "weight_lr_power": 1.5}
    ],
    ("optax", "simplified_ademamix"): [ADAM | {"alpha": 2.0} | DECAY],
    ("keras", "Adadelta"): [KERAS | {"rho": 0.6, "epsilon": 1e-4}],
    ("keras", "Adafactor"): [
        KERAS
        | {"beta_2_decay": -0.6, "epsilon_1": 0.1, "epsilon_2": 0.05}
        | {"clip_threshold": 0.8, "relative_step": False}
    ],
    ("keras", "Adagrad"): [KERAS | {"initial_accumulator_value": 0.0, "epsilon": 1e-3}],
    ("keras", "Adam"): [BETA | {"amsgrad": True}],
    ("keras", "AdamW"): [BETA | {"amsgrad": True}],
    ("keras", "Adamax"): [BETA],
    ("keras", "Ftrl"): [
        KERAS
        | {"l1_regularization_strength": 0.3, "l2_regularization_strength": 0.3}
        | {"l2_shrinkage_regularization_strength": 0.4, "beta": 0.7}
        | {"learning_rate_power": -0.8, "initial_accumulator_value": 0.3}
    ],
    ("keras", "Lamb"): [BETA | {"weight_decay": None}],
    ("keras", "Lion"): [KERAS | {"beta_1": 0.8, "beta_2": 0.6}],
    ("keras", "Muon"): [
        KERAS
        | {"muon_a": 1.9, "muon_b": -1.3, "muon_c": 0.4, "momentum": 0.6}
        | {"ns_steps": 3, "nesterov": False, "rms_rate": None}
    ],
    ("keras", "Nadam"): [BETA],
    ("keras", "RMSprop"): [
        KERAS | {"rho": 0.8, "epsilon": 1e-3, "momentum": 0.7, "centered": True}
    ],
    ("keras", "SGD"): [KERAS | {"momentum": 0.7, "nesterov": True}],
    ("keras", "ScheduleFreeAdamW"): [BETA | {"warmup_steps": 5}],
    ("mlx", "AdaDelta"): [{"learning_rate": 0.125, "rho": 0.75, "eps": 2.0**-10}],
    ("mlx", "Adafactor"): [
        {"learning_rate": 0.125, "eps": (0.125, 0.25), "clip_threshold": 0.75, "decay_rate": -0.5}
        | {"beta_1": 0.5, "scale_parameter": False, "relative_step": False},
        {"warmup_init": True},
    ],
    ("mlx", "Adagrad"): [{"learning_rate": 0.125, "eps": 2.0**-10}],
    ("mlx", "Adam"): [MLX, MLX | {"bias_correction": True}],
    ("mlx", "AdamW"): [MLX | {"weight_decay": 0.0625, "bias_correction": True}],
    ("mlx", "Adamax"): [MLX],
    ("mlx", "Lion"): [MLX | {"weight_decay": 0.5}],
    ("mlx", "Muon"): [
        {"learning_rate": 0.125, "momentum": 0.75, "weight_decay": 0.0625}
        | {"nesterov": False, "ns_steps": 3}
    ],
    ("mlx", "RMSprop"): [{"learning_rate": 0.125, "alpha": 0.75, "eps": 2.0**-10}],
    ("mlx", "SGD"): [
        {"learning_rate": 0.125, "momentum": 0.75, "dampening": 0.5, "weight_decay": 0.0625},
        {"learning_rate": 0.125, "momentum": 0.75, "nesterov": True},
    ],
}
CASES["mlx", "Lion"][0].pop("eps")
EVERY = [
    pytest.param(f, name, options, id=f"{f}-{name}-{i}")
    for f, name in ROWS
    for i, options in enumerate([needed(load(f).rows[name]), *CASES[f, name]])
]


@pytest.mark.parametrize(("framework", "name", "options"), EVERY)
def test_moves_as_the_framework_does(framework: str, name: str, options: dict[str, Any]) -> None:
    known = (1e-6, FLOAT32) if framework == "mlx" else BOUNDS.get((framework, name))
    bound, _why = known or (1e-12, "")
    assert deviation(ours(framework, name, options), theirs(framework, name, options)) < bound


@pytest.mark.parametrize(("framework", "name"), ROWS)
def test_options_and_defaults_are_the_frameworks_own(framework: str, name: str) -> None:
    found = inspect.signature(original(framework, name)).parameters.values()
    found = {p.name: p.default for p in found if p.kind is not p.VAR_KEYWORD}
    found.pop("params", None)
    listed = load(framework).rows[name].defaults
    assert found.keys() == listed.keys()
    for option, default in found.items():
        ours = listed[option]
        if option == "dtype_momentum":
            assert ours == np.dtype(default).name
        elif option == "clip_value_fn":
            assert ours is None
            assert default(16.0) == 2.0
        elif default is inspect.Parameter.empty:
            assert ours is NEEDED
        else:
            assert same(ours, default) or (ours == default and type(default) in (int, float))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_optimizer_of_the_framework_is_named(framework: str) -> None:
    table, found = load(framework), set()
    for where in table.modules:
        module = importlib.import_module(where)
        for name in dir(module):
            thing = getattr(module, name)
            if inspect.isclass(thing):
                base = getattr(module, "Optimizer", None)
                if base is not None and issubclass(thing, base) and thing is not base:
                    found.add(name)
            elif inspect.isfunction(thing) or isinstance(thing, functools.partial):
                takes = inspect.signature(thing).parameters
                if "learning_rate" in takes and not name.startswith(("scale_by_", "_")):
                    found.add(name)
    assert found - {"polyak_sgd"} == (table.rows.keys() | table.absent.keys()) - {"polyak_sgd"}


WRAPPERS = {  # of every optimizer of Keras
    "clipnorm": 0.5,
    "clipvalue": 0.3,
    "global_clipnorm": 0.5,
    "gradient_accumulation_steps": 3,
    "loss_scale_factor": 4.0,
}
AROUND = [
    *(("Adam", {k: v}, "") for k, v in WRAPPERS.items()),
    ("Lamb", {"clipnorm": 0.5}, "lamb+clip_by_norm"),
    ("Muon", {"global_clipnorm": 0.5}, "muon+clip_by_global_norm"),
    ("Lion", {"gradient_accumulation_steps": 2, "weight_decay": 0.1}, "lion+accumulate"),
    (
        "AdamW",
        {k: WRAPPERS[k] for k in [*WRAPPERS][2:]} | {"amsgrad": True},
        "amsgrad+clip_by_global_norm+accumulate+loss_scale",
    ),
]


@pytest.mark.parametrize(("name", "options", "rule"), AROUND)
def test_options_of_keras_that_are_wrappers(name: str, options: dict[str, Any], rule: str) -> None:
    assert rule in ("", ao.like("keras", name, **options).name)
    assert deviation(ours("keras", name, options), theirs("keras", name, options)) < 1e-12
    assert deviation(ours("keras", name, options), ours("keras", name, {})) > 1e-3
    off = ao.like("keras", name, **dict.fromkeys(options.keys() & WRAPPERS.keys(), 0))
    assert off.options() == ao.like("keras", name).options()


@pytest.mark.parametrize(("framework", "name"), ROWS)
def test_every_option_is_tried_or_refused(framework: str, name: str) -> None:
    table, row = load(framework), load(framework).rows[name]
    where, _ = find(framework, name)
    for option, default in row.defaults.items():
        word = row.words.get(option, table.words.get(option, option))
        if isinstance(word, Instead):
            with pytest.raises(ValueError, match=f"{option}=.* cannot be had here") as error:
                ao.like(framework, name, **needed(row) | {option: "x"})
            assert str(error.value).startswith(f"{where}: ")
            ao.like(framework, name, **needed(row) | {option: default})
        elif word is not NOTHING and option not in WRAPPERS:
            tried = [case[option] for case in CASES[framework, name] if option in case]
            assert any(not same(x, default) for x in tried), option


def test_what_has_no_effect_is_taken() -> None:
    plain = ao.like("torch", "Adam")
    for option in ("foreach", "fused", "capturable", "differentiable"):
        assert ao.like("torch", "Adam", **{option: True}).options() == plain.options()
    assert ao.like("keras", "Adam", name="mine").options() == ao.like("keras", "Adam").options()


@pytest.mark.parametrize(
    ("framework", "name", "options", "kind", "text"),
    [
        ("jax", "adam", {}, ValueError, "no framework is named 'jax'; known are torch, optax"),
        ("torch", "adam", {}, ValueError, "did you mean 'Adam'[?] It has ASGD, .*SGD[.]$"),
        ("torch", "LBFGS", {}, ValueError, "torch's LBFGS has no counterpart here: it calls"),
        ("torch", "SparseAdam", {}, ValueError, "sparse gradients; of dense ones, use Adam"),
        ("optax", "rprop", {}, ValueError, r"optax/pull/1725.*like\(\"torch\", \"Rprop\"\)"),
        ("optax", "adam", {}, TypeError, "^optax.adam needs learning_rate$"),
        ("optax", "adam", {"lr": 0.1}, TypeError, "no option 'lr', there it is 'learning_rate'"),
        ("keras", "Adam", {"b2": 0.9}, TypeError, "there it is 'beta_2'. It has .*epsilon"),
        ("torch", "Adam", {"b2": 0.9}, TypeError, "there it is 'betas'. It has lr, betas, eps"),
        ("torch", "SGD", {"momentun": 0.9}, TypeError, "did you mean 'momentum'[?] It has lr"),
        ("torch", "SGD", {"x": 0.9}, TypeError, "^torch.optim.SGD has no option 'x'[.] It has"),
        ("torch", "SGD", {"nesterov": True}, ValueError, "needs a momentum and no dampening"),
        (
            "torch",
            "Adam",
            {"betas": 0.9},
            ValueError,
            r"^torch.optim.Adam: betas must be two values",
        ),
        ("torch", "Adam", {"betas": (0.9,)}, ValueError, r"as in \(0.9, 0.999\), got \(0.9,\)$"),
        ("keras", "Adam", {"gradient_accumulation_steps": 1}, ValueError, "2 or more, got 1"),
        ("keras", "Adam", {"use_ema": True}, ValueError, r"cannot be had here: write adam\+ema"),
        ("torch", "SGD", {"lr": -1.0}, ValueError, r"^torch.optim.SGD: sgd: lr must be in \[0"),
        ("keras", "SGD", {"learning_rate": falling, "momentum": 0.9}, ValueError, "a schedule"),
        ("optax", "rmsprop", {"learning_rate": falling, "momentum": 0.9}, ValueError, "schedule"),
        ("optax", "schedule_free_sgd", {"learning_rate": falling}, ValueError, "schedule"),
        ("optax", "adadelta", {}, ValueError, "optax does not turn the sign"),
        ("optax", "amsgrad", RATE | {"bias_correction_mu": False}, ValueError, "must be alike"),
        ("optax", "muon", RATE | {"consistent_rms": 0.3}, ValueError, "must be None or 0.2"),
        (
            "keras",
            "Adam",
            {"clipnorm": 1.0, "clipvalue": 1.0},
            ValueError,
            "only one of clipnorm, ",
        ),
        ("keras", "Muon", {"rms_rate": 0.3}, ValueError, "rms_rate must be None or 0.2"),
        ("mlx", "Adafactor", {"relative_step": False}, ValueError, "needs learning_rate"),
    ],
)
def test_mistakes_are_told(
    framework: str, name: str, options: dict[str, Any], kind: Any, text: str
) -> None:
    with pytest.raises(kind, match=text):
        ao.like(framework, name, **options)


SCHEDULES = [
    ("keras", "SGD", {"learning_rate": falling}, {"lr": falling}),
    ("mlx", "SGD", {"learning_rate": falling, "momentum": 0.5, "dampening": 0.5},
     {"lr": lambda k: 0.05 / (k + 1), "momentum": 0.5}),
    ("keras", "ScheduleFreeAdamW", {"learning_rate": falling, "warmup_steps": 2},
     {"lr": lambda k: (0.05 if k == 0 else 0.1 / (k + 1)), "weight_lr_power": 0.0}),
]  # fmt: skip


@pytest.mark.parametrize(("framework", "name", "options", "expected"), SCHEDULES)
def test_schedules(framework: str, name: str, options: Any, expected: Any) -> None:
    opt = ao.like(framework, name, **options)
    same_rule = ao.Optimizer(opt.name, **expected, decay=opt.around.decay)
    params, grads = problem(5)
    paths = []
    for o in (opt, same_rule):
        at, state = params, o.init(params)
        for g in grads:
            at, state = o.step(at, g, state)
        paths.append(leaves(at))
    np.testing.assert_allclose(*paths, rtol=1e-14)


def test_a_warm_up_under_a_trace() -> None:
    jax = pytest.importorskip("jax")
    opt = ao.like("keras", "ScheduleFreeAdamW", warmup_steps=3, weight_decay=0.1)
    params = {"w": jax.numpy.ones(2)}
    state = opt.init(params)
    once, _ = opt.step(params, params, state)
    again, _ = jax.jit(opt.step)(params, params, state)
    np.testing.assert_allclose(once["w"], again["w"], rtol=1e-6)


# docs/like.md

SHARED: dict[str, list[tuple[str, str]]] = {}  # the optimizers that several frameworks have
for _f, _name in ROWS:
    SHARED.setdefault(_name.lower().replace("_", ""), []).append((_f, _name))
SHARED = {k: rows for k, rows in SHARED.items() if len(rows) > 1}
HEAD = """# Optimizers of other frameworks

`ao.like(framework, name, ...)` makes the optimizer that computes what the framework's own does,
from the framework's own options, with the framework's defaults:

```python
import arrayopt as ao

opt = ao.like("torch", "RMSprop", alpha=0.9, centered=True)
assert opt.name == "rmsprop" and opt.hyper["b2"] == 0.9
print(ao.like("keras", "Adam", learning_rate=0.1))  # says what that is here
```

The frameworks need not be installed. `arrayopt like torch` lists what there is, and
`arrayopt like torch RMSprop` its options. Each is compared with the framework's own, with the
defaults and with other options, in `tests/test_like.py`: to 1e-12 of each element's largest value
in float64; to 1e-6 with MLX, which rounds every number that it is given to float32, and 1e-5 where
optax does so (`adafactor`, `madgrad`). In half precision the arithmetic here is float32.

An option that cannot be reproduced raises an error, unless it has the framework's default. To add
options of this library, such as `nonfinite="skip"`:
`ao.Optimizer(opt.name, **opt.options() | {"nonfinite": "skip"})`.

What the same name stands for differs between the frameworks. Below, for each name that several of
them have: every option as it is spelled here, and the value that each framework's default is, with
its own spelling in brackets ("rule amsgrad": the option makes another rule of it). Then how far
apart the frameworks' own optimizers are after 30 steps, with the same gradients, the rate 0.01 and
otherwise their defaults: the difference as a part of how far the element has moved, the largest of
40 elements whose gradients are from 1e-6 to 1e3 (and the median of them). Numbers by
`python tests/test_like.py`.
"""


KERAS = """## Around every optimizer of Keras

Options that all of Keras' optimizers have become wrappers here; of the three clippings one at most:

"""


def of_keras() -> str:
    """What the options that every optimizer of Keras has are here."""
    lines, bare = ["| option | here |", "|---|---|"], ao.like("keras", "Adam").hyper
    for option, value in WRAPPERS.items():
        opt = ao.like("keras", "Adam", **{option: value})
        word = next(k for k in opt.hyper if k not in bare)
        lines.append(f"| `{option}={value}` | `ao.Optimizer({opt.name!r}, {word}={value})` |")
    return "\n".join(lines) + "\n"


def spelling(framework: str, name: str) -> dict[str, list[str]]:
    """The framework's options behind each option of ours."""
    table, row = load(framework), load(framework).rows[name]
    found: dict[str, list[str]] = {}
    for option in row.defaults:
        words = spelled(table, row, option)
        if words != "no effect" and ":" not in words:
            for word in words.split(", "):
                if word not in found or option not in parameters(row.together):
                    found.setdefault(word, []).append(option)
    return found


def shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def defaults_table(rows: list[tuple[str, str]]) -> list[str]:
    """One name's options, side by side."""
    names = {row: spelling(*row) for row in rows}
    made = {row: ao.like(*row, **needed(load(row[0]).rows[row[1]])) for row in rows}
    values = {row: {**opt.options(), "rule": opt.name} for row, opt in made.items()}
    fixed = {k for f, n in rows for k in load(f).rows[n].fixed}
    switches = {k for x in names.values() for k in x if k.startswith("rule ")}
    keys = [k for k in values[rows[0]] if k not in ("lr", "decay_mask", "maximize", "nonfinite")]
    keys = ["rule", *(k for k in keys if k == "decay" or k in fixed or any(k in x for x in
            names.values())), *sorted(switches)]  # fmt: skip
    lines = [
        f"| here | {' | '.join(find(*row)[0] for row in rows)} |",
        "|---" * (len(rows) + 1) + "|",
    ]
    for key in keys:
        cells = []
        for row in rows:
            defaults, theirs = load(row[0]).rows[row[1]].defaults, names[row].get(key, [])
            value = repr(defaults[theirs[0]]) if key in switches and theirs else "no"
            value = value if key in switches else shown(values[row].get(key, ""))
            cells.append(value + "".join(f" (`{x}`)" for x in theirs))
        lines.append(f"| `{key}` | {' | '.join(cells)} |")
    return lines


def distances(rows: list[tuple[str, str]]) -> list[str]:
    """How far apart the frameworks' own are."""
    ends = {}
    params, grads = problem(30, "dense")
    if ao.rules.find(load(rows[0][0]).rows[rows[0][1]].rule).__name__.endswith("muon"):
        params, grads = {"w": params["w"]}, [{"w": g["w"]} for g in grads]
    for framework, name in rows:
        rate = "lr" if framework == "torch" else "learning_rate"
        path = RUN[framework](name, {rate: 0.01}, params, grads)
        ends[framework] = path[-1] - leaves(params)
    found = []
    for a, b in itertools.combinations(ends, 2):
        apart = np.abs(ends[a] - ends[b]) / np.maximum(np.abs(ends[a]), np.abs(ends[b]))
        largest, median = np.max(apart), np.median(apart)
        limit = 1e-4 if "mlx" in (a, b) else 1e-10
        words = "equal" if largest < limit else f"{largest:.1g} ({median:.1g})"
        found.append(f"{a} and {b}: {words}")
    return ["Apart after 30 steps: " + "; ".join(found) + "."]


def document() -> str:
    """docs/like.md"""
    parts = [HEAD, KERAS + of_keras()]
    for key in sorted(SHARED):
        rows = SHARED[key]
        lines = [
            f"## {max(rows, key=lambda x: x[1][0].isupper())[1]}",
            "",
            *defaults_table(rows),
            "",
            *distances(rows),
            "",
        ]
        notes = {f: load(f).rows[name].note for f, name in rows}
        lines += [f"- {f}: {note}." for f, note in notes.items() if note]
        parts.append("\n".join(lines).rstrip() + "\n")
    parts.append("## Without a counterpart\n\n" + "".join(
        f"- {f}'s {name}: {why}.\n" for f in FRAMEWORKS for name, why in load(f).absent.items()
    ))  # fmt: skip
    return "\n".join(parts)


@pytest.mark.parametrize("key", sorted(SHARED))
def test_the_documents_defaults_are_current(key: str) -> None:
    text = (HERE.parent / "docs" / "like.md").read_text()
    assert "\n".join(defaults_table(SHARED[key])) in text


def test_the_documents_have_the_options_of_keras_that_are_wrappers() -> None:
    assert KERAS + of_keras() in (HERE.parent / "docs" / "like.md").read_text()


if __name__ == "__main__":
    (HERE.parent / "docs" / "like.md").write_text(document())
