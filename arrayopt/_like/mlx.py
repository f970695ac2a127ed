"""mlx.optimizers, of MLX 0.32. MLX rounds every number it is given to float32."""

from collections.abc import Mapping
from typing import Any

from . import NEEDED, Instead, Row, Table, Words, mapped

WORDS: Words = {"learning_rate": "lr", "betas": ("b1", "b2")}
RATE = {"learning_rate": NEEDED}
ADAM = RATE | {"betas": [0.9, 0.999], "eps": 1e-8}
COUPLED, DECOUPLED = {"decay": "coupled"}, {"decay": "decoupled"}


def sgd(learning_rate: Any, momentum: float, dampening: float) -> Mapping[str, Any]:
    """Dampening from the first gradient on, which makes it a factor of the rate."""
    factor = 1 - dampening if momentum else 1.0
    return {"lr": mapped(lambda x: x * factor, learning_rate), "momentum": momentum}


def adafactor(learning_rate: Any, relative_step: bool, warmup_init: bool) -> Mapping[str, Any]:
    if not relative_step and learning_rate is None:
        raise ValueError("relative_step=False needs learning_rate")
    if not relative_step:
        return {"lr": learning_rate, "relative_step": False}
    rate = (lambda k: 1e-6 * (k + 1)) if warmup_init else 1e-2
    return {"lr": rate, "relative_step": True}


ROWS = {
    "AdaDelta": Row("adadelta", RATE | {"rho": 0.9, "eps": 1e-6}),
    "Adafactor": Row(
        "adafactor",
        {"learning_rate": None, "eps": (1e-30, 1e-3), "clip_threshold": 1.0, "decay_rate": -0.8}
        | {"beta_1": None, "weight_decay": 0.0, "scale_parameter": True}
        | {"relative_step": True, "warmup_init": False},
        {
            "eps": ("eps1", "eps2"),
            "decay_rate": lambda x: {"decay_rate": -x},
            "beta_1": lambda x: {"b1": x or 0.0},
            "weight_decay": Instead("MLX multiplies it by the scale of the parameter"),
        },
        together=adafactor,
    ),
    "Adagrad": Row("adagrad", RATE | {"eps": 1e-8}),
    "Adam": Row("adam", ADAM | {"bias_correction": False}),
    "AdamW": Row("adam", ADAM | {"weight_decay": 0.01, "bias_correction": False}, fixed=DECOUPLED),
    "Adamax": Row("adamax", ADAM, fixed={"bias_correction": False}),
    "Lion": Row("lion", RATE | {"betas": [0.9, 0.99], "weight_decay": 0.0}),
    "Muon": Row(
        "muon",
        RATE | {"momentum": 0.95, "weight_decay": 0.01, "nesterov": True, "ns_steps": 5},
        fixed={"eps_in_max": False, **COUPLED},
        note="of a convolution, MLX scales the step by its last two axes",
    ),
    "RMSprop": Row("rmsprop", RATE | {"alpha": 0.99, "eps": 1e-8}, {"alpha": "b2"}),
    "SGD": Row(
        "sgd",
        RATE | {"momentum": 0.0, "weight_decay": 0.0, "dampening": 0.0, "nesterov": False},
        together=sgd,
    ),
}
ABSENT = {"MultiOptimizer": "it is several optimizers"}
TABLE = Table({"mlx.optimizers": ROWS}, WORDS, ABSENT)
