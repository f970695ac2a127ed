"""optax and optax.contrib, of optax 0.2.8."""

import math
from collections.abc import Mapping
from typing import Any

from . import NEEDED, NOTHING, Instead, Row, Table, Words, mapped

WIDTH = Instead("the state has the parameter's dtype, float32 for half precision")
WORDS: Words = {
    "learning_rate": "lr",
    "max_learning_rate": "max_lr",
    "scaling": "lr",
    "mask": "decay_mask",
    "weight_decay_mask": "decay_mask",
    "betas": ("b1", "b2"),
    "estim_lr0": "d0",
    "initial_accumulator_value": "initial_accumulator",
    "mu_dtype": WIDTH,
    "accumulator_dtype": WIDTH,
    "state_dtype": WIDTH,
}
RATE = {"learning_rate": NEEDED}
BETAS = RATE | {"b1": 0.9, "b2": 0.999}
ADAM = BETAS | {"eps": 1e-8, "eps_root": 0.0}
OPTIMISTIC = ADAM | {"mu_dtype": None, "nesterov": True}
MASKED = {"weight_decay": 0.0, "weight_decay_mask": None}
MU = {"mu_dtype": None}
DECAY = {"weight_decay": 0.0, "mask": None}
ADAMW = ADAM | MU | DECAY | {"weight_decay": 1e-4}
MAYBE: Words = {"weight_decay": lambda x: {"weight_decay": x or 0.0}}
INNER: Words = {
    "weight_decay": "inner_decay",
    "mask": Instead("give the parameters without decay to another optimizer"),
}
NADAM: Words = {"nesterov": lambda x: {"rule": "nadam", "momentum_decay": None} if x else {}}
MOMENTUM: Words = {"momentum": lambda x: {"momentum": 0.0 if x is None else x}}
DECOUPLED = {"decay": "decoupled"}
OTHERS = Instead('it is for what is no matrix, which like("optax", "adamw") is for')


def amsgrad(bias_correction_mu: bool, bias_correction_nu: bool) -> Mapping[str, Any]:
    if bias_correction_mu != bias_correction_nu:
        raise ValueError("bias_correction_mu and bias_correction_nu must be alike")
    return {"bias_correction": bias_correction_mu}


def constant(learning_rate: Any) -> Mapping[str, Any]:
    if callable(learning_rate):
        raise ValueError(
            "learning_rate cannot be a schedule: optax weighs each step by the rate of the next"
        )
    return {"lr": learning_rate}


def optimistic(learning_rate: Any, optimism: Any) -> Mapping[str, Any]:
    relative = 1.0 if optimism is None else optimism / learning_rate
    return {"lr": learning_rate, "optimism": relative}


def optimistic_v2(learning_rate: Any, alpha: Any, beta: Any) -> Mapping[str, Any]:
    return {"lr": mapped(lambda x: x * alpha, learning_rate), "optimism": beta / alpha}


def adadelta(learning_rate: Any) -> Mapping[str, Any]:
    if learning_rate is None:
        raise ValueError("without learning_rate, optax does not turn the sign, and ascends")
    return {"lr": learning_rate}


def polyak(max_learning_rate: Any, scaling: Any, eps: Any) -> Mapping[str, Any]:
    """The gradient is scaled before it is measured."""
    return {
        "lr": mapped(lambda s: 1 / s, scaling),
        "max_lr": mapped(lambda s, x: x * s**2, scaling, max_learning_rate),
        "eps": mapped(lambda s, x: x / s**2, scaling, eps),
    }


def rmsprop(learning_rate: Any, momentum: Any, eps: float, eps_in_sqrt: bool) -> Mapping[str, Any]:
    if callable(learning_rate) and momentum:
        raise ValueError("with momentum, learning_rate cannot be a schedule: it is in the momentum")
    eps, eps_root = (0.0, eps) if eps_in_sqrt else (eps, 0.0)
    return {"lr": learning_rate, "momentum": momentum or 0.0, "eps": eps, "eps_root": eps_root}


def adopt(use_clipping: bool, clip_value_fn: Any) -> Mapping[str, Any]:
    return {"clip": clip_value_fn if use_clipping else math.inf}


def adafactor(factored: bool, min_dim_size_to_factor: int) -> Mapping[str, Any]:
    return {"min_size": min_dim_size_to_factor if factored else math.inf}


def muon_rate(consistent_rms: float | None) -> Mapping[str, Any]:
    if consistent_rms not in (None, 0.2):
        raise ValueError("consistent_rms must be None or 0.2")
    return {"adjust_lr": "original" if consistent_rms is None else "match_rms_adamw"}


OGD = "optimistic_gradient_descent"
VALUE = "every step is given value=, the loss"
MAIN = {
    "adabelief": Row("adabelief", BETAS | {"eps": 1e-16, "eps_root": 1e-16, "nesterov": False}),
    "adadelta": Row(
        "adadelta", {"learning_rate": None, "rho": 0.9, "eps": 1e-6, **MASKED}, together=adadelta
    ),
    "adafactor": Row(
        "adafactor",
        {"learning_rate": None, "min_dim_size_to_factor": 128, "decay_rate": 0.8}
        | {"decay_offset": 0, "multiply_by_parameter_scale": True, "clipping_threshold": 1.0}
        | {"momentum": None, "dtype_momentum": "float32", "weight_decay_rate": None, "eps": 1e-30}
        | {"factored": True, "weight_decay_mask": None},
        {
            "learning_rate": lambda x: {"lr": 1.0 if x is None else x},
            "decay_offset": Instead("steps are counted from the first"),
            "multiply_by_parameter_scale": "scale_parameter",
            "clipping_threshold": lambda x: {"clip_threshold": math.inf if x is None else x},
            "momentum": lambda x: {"b1": x or 0.0},
            "dtype_momentum": Instead("the momentum has the parameter's dtype"),
            "weight_decay_rate": Instead("optax takes it off after the step, whatever the rate"),
            "weight_decay_mask": NOTHING,
            "eps": "eps1",
        },
        {"relative_step": False, "axes": "largest"},
        adafactor,
        "optax computes the weight of the past in float32",
    ),
    "adagrad": Row(
        "adagrad",
        RATE | {"initial_accumulator_value": 0.1, "eps": 1e-7},
        {"eps": "eps_root"},
        {"eps": 0.0},
    ),
    "adam": Row("adam", ADAM | {"mu_dtype": None, "nesterov": False}, NADAM),
    "adamw": Row("adam", ADAMW | {"nesterov": False}, NADAM, DECOUPLED),
    "adamax": Row("adamax", BETAS | {"eps": 1e-8}, fixed={"eps_in_max": True}),
    "adamaxw": Row(
        "adamax",
        BETAS | {"eps": 1e-8, "weight_decay": 1e-4, "mask": None},
        fixed={"eps_in_max": True, **DECOUPLED},
    ),
    "adan": Row(
        "adan",
        RATE | {"b1": 0.98, "b2": 0.92, "b3": 0.99, "eps": 1e-8, "eps_root": 1e-8, **DECAY},
        {"b2": lambda x: {"b2": x, "difference_weight": 1 - x}},
    ),
    "amsgrad": Row(
        "amsgrad",
        ADAM | {"mu_dtype": None, "bias_correction_mu": True, "bias_correction_nu": True},
        fixed={"corrected_max": True},
        together=amsgrad,
    ),
    "fromage": Row("fromage", RATE | {"min_norm": 1e-6}),
    "lamb": Row("lamb", ADAM | {"eps": 1e-6, **DECAY}, INNER),
    "lars": Row(
        "lars",
        RATE
        | {"weight_decay": 0.0, "weight_decay_mask": True, "trust_coefficient": 1e-3, "eps": 0.0}
        | {"trust_ratio_mask": True, "momentum": 0.9, "nesterov": False},
        {
            "weight_decay_mask": lambda x: {"decay_mask": None if x is True else x},
            "trust_ratio_mask": Instead("give the parameters without a ratio to another optimizer"),
        },
    ),
    "lion": Row(
        "lion", RATE | {"b1": 0.9, "b2": 0.99, "mu_dtype": None, "weight_decay": 1e-3, "mask": None}
    ),
    "nadam": Row("adam", ADAM | {"mu_dtype": None, "nesterov": True}, NADAM),
    "nadamw": Row("adam", ADAMW | {"nesterov": True}, NADAM, DECOUPLED),
    "novograd": Row("novograd", ADAM | {"b2": 0.25, "eps": 1e-6, "weight_decay": 0.0}, INNER),
    "optimistic_adam": Row("optimistic_adam", OPTIMISTIC | {"optimism": None}, together=optimistic),
    "optimistic_adam_v2": Row(
        "optimistic_adam", OPTIMISTIC | {"alpha": 1.0, "beta": 1.0}, together=optimistic_v2
    ),
    "optimistic_gradient_descent": Row(OGD, RATE | {"alpha": 1.0, "beta": 1.0}),
    "polyak_sgd": Row(
        "polyak_sgd",
        {"max_learning_rate": 1.0, "scaling": 1.0, "f_min": 0.0, "eps": 0.0, "variant": "sps"},
        together=polyak,
        note=VALUE,
    ),
    "radam": Row("radam", ADAM | {"threshold": 5.0, "nesterov": False}),
    "rmsprop": Row(
        "rmsprop",
        RATE
        | {"decay": 0.9, "eps": 1e-8, "initial_scale": 0.0, "eps_in_sqrt": True}
        | {"centered": False, "momentum": None, "nesterov": False, "bias_correction": False},
        {"decay": "b2", "initial_scale": "initial_accumulator"},
        together=rmsprop,
    ),
    "sgd": Row(
        "sgd", RATE | {"momentum": None, "nesterov": False, "accumulator_dtype": None}, MOMENTUM
    ),
    "sign_sgd": Row("signum", RATE, fixed={"momentum": 0.0}),
    "signum": Row("signum", RATE | {"beta": 0.9, "accumulator_dtype": None}, {"beta": "momentum"}),
    "sm3": Row("sm3", RATE | {"momentum": 0.9}, fixed={"eps": 1e-8}, note="optax has no scalars"),
    "yogi": Row("yogi", BETAS | {"eps": 1e-3}),
}
ADAM_PART: dict[str, Any] = {"adam_b1": 0.9, "adam_b2": 0.999, "adam_eps_root": 0.0}
ADAM_PART |= {"adam_weight_decay": 0.0, "adam_learning_rate": None}
NO_DECAY = {"learning_rate": 1.0, "weight_decay": None, "mask": None}
DISTANCE = {"learning_rate": 1.0, "betas": (0.9, 0.999), "eps": 1e-8, "estim_lr0": 1e-6}
DISTANCE |= {"weight_decay": 0.0}
MOMO = {"lower_bound": 0.0, "weight_decay": 0.0, "adapt_lower_bound": False}
FREE = {"learning_rate": 2.5e-3, "warmup_steps": None, "b1": 0.9, "weight_lr_power": 2.0}
WARM: Words = {"warmup_steps": Instead("optax weighs each step by the rate of the next")}
CONTRIB = {
    "acprop": Row(
        "acprop", BETAS | {"eps": 1e-16, "eps_root": 1e-16, **DECAY}, fixed={"residual": "before"}
    ),
    "ademamix": Row("ademamix", ADAM | {"b3": 0.9999, "alpha": 5.0, "mu_dtype": None, **DECAY}),
    "adopt": Row(
        "adopt",
        RATE
        | {"b1": 0.9, "b2": 0.9999, "eps": 1e-6, "mu_dtype": None, "nesterov": False}
        | {"use_clipping": True, "clip_value_fn": None},
        together=adopt,
        note="clip_value_fn=None is optax's default, the fourth root",
    ),
    "cocob": Row("cocob", {"learning_rate": 1.0, "alpha": 100.0, "eps": 1e-8, **DECAY}),
    "dadapt_adamw": Row("dadapt_adam", DISTANCE, INNER),
    "dog": Row(
        "dog",
        NO_DECAY | {"init_step": ("heuristic", 1e-6), "eps": 1e-8},
        {"init_step": ("init_step", "r_eps"), **MAYBE},
    ),
    "dowg": Row(
        "dowg",
        NO_DECAY | {"init_estim_sq_dist": None, "eps": 1e-4},
        {"init_estim_sq_dist": "initial_sq_dist", **MAYBE},
    ),
    "madgrad": Row(
        "madgrad",
        RATE | {"momentum": 0.9, "weight_decay": 0.0, "eps": 1e-6},
        note="optax takes the root of the step in float32",
    ),
    "momo": Row("momo", {"learning_rate": 1.0, "beta": 0.9, **MOMO}, INNER, note=VALUE),
    "momo_adam": Row(
        "momo_adam",
        {"learning_rate": 0.01, "b1": 0.9, "b2": 0.999, "eps": 1e-8, **MOMO},
        INNER,
        note=VALUE,
    ),
    "muon": Row(
        "muon",
        RATE
        | {"ns_coeffs": (3.4445, -4.775, 2.0315), "ns_steps": 5, "beta": 0.95, "eps": 1e-8}
        | {**MASKED, "mu_dtype": None, "nesterov": True}
        | {"adaptive": False, "preconditioning": "frobenius", **ADAM_PART}
        | {"muon_weight_dimension_numbers": None, "consistent_rms": None},
        {
            "ns_coeffs": ("ns_a", "ns_b", "ns_c"),
            "beta": "momentum",
            "adaptive": Instead("the step is not scaled by it"),
            "preconditioning": Instead("the Frobenius norm alone is here"),
            **dict.fromkeys(ADAM_PART, OTHERS),
            "muon_weight_dimension_numbers": Instead("reshape to a matrix"),
            "consistent_rms": muon_rate,
        },
        {"layout": "in_out", "bias_correction": True, "eps_in_max": False},
        note="matrices only: optax gives the others to adamw(nesterov=True)",
    ),
    "prodigy": Row(
        "prodigy",
        DISTANCE | {"beta3": None, "estim_lr_coef": 1.0, "safeguard_warmup": False},
        {"beta3": "b3", "estim_lr_coef": "d_coef", **INNER},
    ),
    "schedule_free_adamw": Row(
        "schedule_free_adamw",
        FREE | {"b2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "state_dtype": None},
        INNER | WARM,
        together=constant,
    ),
    "schedule_free_sgd": Row(
        "schedule_free_sgd",
        FREE | {"learning_rate": 1.0, "weight_decay": None, "state_dtype": None},
        MAYBE | WARM,
        together=constant,
    ),
    "simplified_ademamix": Row(
        "simplified_ademamix",
        RATE | {"b1": 0.99, "b2": 0.95, "alpha": 0.0, "eps": 1e-8, "eps_root": 0.0, **DECAY},
    ),
}
ABSENT = {
    "lbfgs": "it calls the loss several times in a step, to search along a line",
    "noisy_sgd": "its random numbers are JAX's; sgd+gradient_noise is the same with others",
    "rprop": "optax 0.2.8 applies in each step the move of the step before "
    '(github.com/google-deepmind/optax/pull/1725); like("torch", "Rprop") has the published rule',
    "dpsgd": "it draws random numbers, and needs a gradient for each example",
    "galore": "it projects the gradient, around any optimizer",
    "schedule_free": "it goes around any optimizer; schedule_free_sgd and _adamw are here",
    "sophia": "it needs an estimate of the Hessian's diagonal",
}
TABLE = Table({"optax": MAIN, "optax.contrib": CONTRIB}, WORDS, ABSENT)
