"""torch.optim, of torch 2.13."""

from collections.abc import Mapping
from typing import Any

from . import NOTHING, Instead, Row, Table, Words

WORDS: Words = {
    "betas": ("b1", "b2"),
    "initial_accumulator_value": "initial_accumulator",
    "amsgrad": lambda x: {"rule": "amsgrad"} if x else {},
    "decoupled_weight_decay": lambda x: {"decay": "decoupled" if x else "coupled"},
    "foreach": NOTHING,
    "fused": NOTHING,
    "capturable": NOTHING,
    "differentiable": NOTHING,
}
EVERY = {"foreach": None, "maximize": False, "differentiable": False}
GRAPH = EVERY | {"capturable": False}
FUSED = EVERY | {"fused": None}
ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0}
BOTH = {"decoupled_weight_decay": False}


def sgd(momentum: float, dampening: float, nesterov: bool) -> Mapping[str, Any]:
    if nesterov and (not momentum or dampening):
        raise ValueError("nesterov=True needs a momentum and no dampening")
    return {"momentum": momentum, "dampening": dampening, "nesterov": nesterov}


ROWS = {
    "ASGD": Row(
        "asgd",
        {"lr": 0.01, "lambd": 1e-4, "alpha": 0.75, "t0": 1e6, "weight_decay": 0, **GRAPH},
        note="torch keeps eta in its default dtype; eval_params gives its ax",
    ),
    "Adadelta": Row("adadelta", {"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0, **GRAPH}),
    "Adafactor": Row(
        "adafactor",
        {
            "lr": 0.01,
            "beta2_decay": -0.8,
            "eps": (None, 1e-3),
            "d": 1.0,
            "weight_decay": 0.0,
            "foreach": None,
            "maximize": False,
        },
        {
            "eps": ("eps1", "eps2"),
            "beta2_decay": lambda x: {"decay_rate": -x},
            "d": "clip_threshold",
            "weight_decay": Instead("torch scales the step by the parameter before its decay"),
        },
        {"eps_in_max": True},
    ),
    "Adagrad": Row(
        "adagrad",
        {
            "lr": 0.01,
            "lr_decay": 0,
            "weight_decay": 0,
            "initial_accumulator_value": 0,
            "eps": 1e-10,
            **FUSED,
        },
    ),
    "Adam": Row("adam", ADAM | {"amsgrad": False, **GRAPH, **FUSED, **BOTH}),
    "AdamW": Row(
        "adam",
        ADAM | {"weight_decay": 0.01, "amsgrad": False, **GRAPH, **FUSED},
        fixed={"decay": "decoupled"},
    ),
    "Adamax": Row("adamax", ADAM | {"lr": 2e-3, **GRAPH}, fixed={"eps_in_max": True}),
    "Muon": Row(
        "muon",
        {
            "lr": 1e-3,
            "weight_decay": 0.1,
            "momentum": 0.95,
            "nesterov": True,
            "ns_coefficients": (3.4445, -4.775, 2.0315),
            "eps": 1e-7,
            "ns_steps": 5,
            "adjust_lr_fn": None,
        },
        {
            "ns_coefficients": ("ns_a", "ns_b", "ns_c"),
            "adjust_lr_fn": lambda x: {"adjust_lr": x or "original"},
        },
        note="matrices only; torch iterates in bfloat16, here in the parameter's own dtype",
    ),
    "NAdam": Row(
        "nadam",
        ADAM | {"lr": 2e-3, "momentum_decay": 4e-3, **BOTH, **GRAPH},
        note="torch keeps the product of momenta in its default dtype",
    ),
    "RAdam": Row("radam", ADAM | {**BOTH, **GRAPH}, fixed={"eps_hat": True}),
    "RMSprop": Row(
        "rmsprop",
        {
            "lr": 0.01,
            "alpha": 0.99,
            "eps": 1e-8,
            "weight_decay": 0,
            "momentum": 0,
            "centered": False,
            **GRAPH,
        },
        {"alpha": "b2"},
    ),
    "Rprop": Row(
        "rprop",
        {"lr": 0.01, "etas": (0.5, 1.2), "step_sizes": (1e-6, 50), **GRAPH},
        {"etas": ("eta_minus", "eta_plus"), "step_sizes": ("min_step_size", "max_step_size")},
    ),
    "SGD": Row(
        "sgd",
        {
            "lr": 1e-3,
            "momentum": 0,
            "dampening": 0,
            "weight_decay": 0,
            "nesterov": False,
            **FUSED,
        },
        together=sgd,
    ),
}
ABSENT = {
    "LBFGS": "it calls the loss several times in a step, to search along a line",
    "SparseAdam": "no array library but torch has sparse gradients; of dense ones, use Adam",
}
TABLE = Table({"torch.optim": ROWS}, WORDS, ABSENT)
