"""keras.optimizers, of Keras 3.15."""

from collections.abc import Mapping
from typing import Any

from .._math import smaller
from .._namespace import is_array, namespace
from . import NOTHING, Instead, Row, Table, Word, Words, mapped


def wrapped(wrapper: str, option: str) -> Word:
    """A wrapper where the option is given and not 0; it is the wrapper's own of that name."""
    return lambda x: {"around": wrapper, option: x} if x else {}


def accumulation(steps: Any) -> Mapping[str, Any]:
    if steps == 1:
        raise ValueError("gradient_accumulation_steps must be None or 2 or more, got 1")
    return {"around": "accumulate", "accumulate_steps": steps} if steps else {}


WORDS: Words = {
    "learning_rate": "lr",
    "beta_1": "b1",
    "beta_2": "b2",
    "epsilon": "eps",
    "initial_accumulator_value": "initial_accumulator",
    "amsgrad": lambda x: {"rule": "amsgrad"} if x else {},
    "weight_decay": lambda x: {"weight_decay": x or 0.0},
    "clipnorm": wrapped("clip_by_norm", "clip_param_norm"),
    "clipvalue": wrapped("clip_by_value", "clip_value"),
    "global_clipnorm": wrapped("clip_by_global_norm", "clip_norm"),
    "use_ema": Instead("write adam+ema, which keeps an average of the parameters"),
    "ema_momentum": NOTHING,
    "ema_overwrite_frequency": NOTHING,
    "gradient_accumulation_steps": accumulation,
    "loss_scale_factor": wrapped("loss_scale", "loss_scale"),
    "name": NOTHING,
}
EVERY = {
    "weight_decay": None,
    "clipnorm": None,
    "clipvalue": None,
    "global_clipnorm": None,
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,
    "gradient_accumulation_steps": None,
    "loss_scale_factor": None,
    "name": None,
}
RATE = {"learning_rate": 1e-3, **EVERY}
ADAM = RATE | {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
DECOUPLED = {"decay": "decoupled"}
IN_ROOT = {"eps": 0.0, **DECOUPLED}  # Keras' epsilon is eps_root
OTHERS = Instead('it is for what is no matrix, which like("keras", "AdamW") is for')


def in_momentum(learning_rate: Any, momentum: float) -> Mapping[str, Any]:
    if callable(learning_rate) and momentum:
        raise ValueError("with momentum, learning_rate cannot be a schedule: it is in the momentum")
    return {"lr": learning_rate, "momentum": momentum}


def ftrl(learning_rate_power: float) -> Mapping[str, Any]:
    return {"power": None if learning_rate_power == -0.5 else -learning_rate_power}


def warmup(learning_rate: Any, warmup_steps: int, weight_decay: float | None) -> Mapping[str, Any]:
    """The decay is by the rate without its warm-up."""
    weight_decay = weight_decay or 0.0
    if not warmup_steps:
        return {"lr": learning_rate, "weight_decay": weight_decay}

    def ramp(k: Any) -> Any:
        xp = namespace(k) if is_array(k) else None
        return smaller((k + 1) / warmup_steps, 1.0, xp=xp)

    decay = mapped(lambda x, r: x / r, weight_decay, ramp) if weight_decay else 0.0
    return {"lr": mapped(lambda x, r: x * r, learning_rate, ramp), "weight_decay": decay}


def muon_rate(rms_rate: float | None) -> Mapping[str, Any]:
    if rms_rate not in (None, 0.2):
        raise ValueError("rms_rate must be None or 0.2")
    return {"adjust_lr": "none" if rms_rate is None else "match_rms_adamw"}


def muon_momentum(momentum: float) -> Mapping[str, Any]:
    return {"momentum": momentum, "eps": (1 - momentum) * 1e-7}  # their m is a sum, ours a mean


ROWS = {
    "Adadelta": Row("adadelta", RATE | {"rho": 0.95, "epsilon": 1e-7}, fixed=DECOUPLED),
    "Adafactor": Row(
        "adafactor",
        RATE
        | {"beta_2_decay": -0.8, "epsilon_1": 1e-30, "epsilon_2": 1e-3}
        | {"clip_threshold": 1.0, "relative_step": True},
        {
            "beta_2_decay": lambda x: {"decay_rate": -x},
            "epsilon_1": "eps1",
            "epsilon_2": "eps2",
            "relative_step": NOTHING,  # Keras bounds the rate by 1 / sqrt(t) all the same
        },
    ),
    "Adagrad": Row(
        "adagrad",
        RATE | {"initial_accumulator_value": 0.1, "epsilon": 1e-7},
        {"epsilon": "eps_root"},
        IN_ROOT,
    ),
    "Adam": Row("adam", ADAM | {"amsgrad": False}, fixed={"eps_hat": True, **DECOUPLED}),
    "AdamW": Row(
        "adam",
        ADAM | {"amsgrad": False, "weight_decay": 4e-3},
        fixed={"eps_hat": True, **DECOUPLED},
    ),
    "Adamax": Row("adamax", ADAM, fixed=DECOUPLED),
    "Ftrl": Row(
        "ftrl",
        RATE
        | {"learning_rate_power": -0.5, "initial_accumulator_value": 0.1, "beta": 0.0}
        | {"l1_regularization_strength": 0.0, "l2_regularization_strength": 0.0}
        | {"l2_shrinkage_regularization_strength": 0.0},
        {
            "l1_regularization_strength": "l1",
            "l2_regularization_strength": lambda x: {"l2": 2 * x},
            "l2_shrinkage_regularization_strength": lambda x: {"l2_shrinkage": 2 * x},
        },
        together=ftrl,
    ),
    "Lamb": Row(
        "lamb",
        ADAM,
        {"weight_decay": Instead("Keras takes the parameter's norm after its decay")},
    ),
    "Lion": Row("lion", RATE | {"beta_1": 0.9, "beta_2": 0.99}),
    "Muon": Row(
        "muon",
        RATE
        | {"adam_beta_1": 0.9, "adam_beta_2": 0.999, "adam_weight_decay": 4e-3, "epsilon": 1e-7}
        | {"weight_decay": 4e-3, "exclude_layers": None, "exclude_embeddings": True}
        | {"muon_a": 3.4445, "muon_b": -4.775, "muon_c": 2.0315, "adam_lr_ratio": 1}
        | {"momentum": 0.95, "ns_steps": 5, "nesterov": True, "rms_rate": 0.2},
        {
            "adam_beta_1": OTHERS,
            "adam_beta_2": OTHERS,
            "adam_weight_decay": OTHERS,
            "adam_lr_ratio": OTHERS,
            "epsilon": OTHERS,
            "exclude_layers": Instead("give them to another optimizer"),
            "exclude_embeddings": NOTHING,
            "muon_a": "ns_a",
            "muon_b": "ns_b",
            "muon_c": "ns_c",
            "momentum": muon_momentum,
            "rms_rate": muon_rate,
        },
        {"eps_in_max": False},
        note="matrices only: Keras gives the others, and embeddings, to AdamW",
    ),
    "Nadam": Row("nadam", ADAM, fixed={"momentum_decay": 1.0, **DECOUPLED}),
    "RMSprop": Row(
        "rmsprop",
        RATE | {"rho": 0.9, "momentum": 0.0, "epsilon": 1e-7, "centered": False},
        {"rho": "b2", "epsilon": "eps_root"},
        IN_ROOT,
        in_momentum,
    ),
    "SGD": Row(
        "sgd",
        RATE | {"learning_rate": 0.01, "momentum": 0.0, "nesterov": False},
        fixed=DECOUPLED,
        together=in_momentum,
    ),
    "ScheduleFreeAdamW": Row(
        "schedule_free_adamw",
        ADAM | {"learning_rate": 2.5e-3, "epsilon": 1e-8, "warmup_steps": 0},
        fixed={"weight_lr_power": 0.0},
        together=warmup,
    ),
}
ABSENT = {
    "LossScaleOptimizer": "it goes around any optimizer, and scales its loss",
    "MultiOptimizer": "it is several optimizers",
}
CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")
TABLE = Table({"keras.optimizers": ROWS}, WORDS, ABSENT, exclusive=CLIPS)
