"""``ao.like`` beside the optimizers whose names it takes, in each framework.

``python tests/test_like.py`` writes docs/like.md.
"""

import functools
import inspect
import sys
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
from oracles_adam import run_wide
from oracles_seed import run_mlx

import arrayopt as ao
from arrayopt._like import FRAMEWORKS, NEEDED, NOTHING, Instead, Row, find, load, same, translate

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
    matrices = [k for k, p in params.items() if p.ndim == 2 or row.rule != "muon"]
    return {k: params[k] for k in matrices}, [{k: g[k] for k in matrices} for g in grads]


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
        return run_wide(name, options, *args)
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
    where, _ = find(framework, name)
    return functools.reduce(getattr, where.split(".")[1:], pytest.importorskip(where.split(".")[0]))


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
    pytest.importorskip({"mlx": "mlx.core"}.get(framework, framework))
    bound = 1e-6 if framework == "mlx" else BOUNDS.get((framework, name), (1e-12, ""))[0]
    error = deviation(ours(framework, name, options), theirs(framework, name, options))
    assert error < bound
