"""Keras and MLX beside the rules whose other oracles are in ``test_oracles.py``."""

import functools
from typing import Any

import numpy as np
import pytest
from oracle import Oracle, Path, Tree, keras_oracle, leaves, optax_oracle, torch_oracle, words_of


def run_mlx(cls: str, options: dict[str, Any], params: Tree, grads: list[Tree]) -> Path:
    """A class of mlx.optimizers on the CPU, which alone computes in float64."""
    mx, mlx = pytest.importorskip("mlx.core"), pytest.importorskip("mlx.optimizers")
    with mx.stream(mx.cpu):
        tensors = {k: mx.array(p, dtype=mx.float64) for k, p in params.items()}
        opt, path = getattr(mlx, cls)(**options), []
        opt.init(tensors)
        for g in grads:
            g = {k: mx.array(x, dtype=mx.float64) for k, x in g.items()}
            tensors = opt.apply_gradients(g, tensors)
            assert all(x.dtype == mx.float64 for x in tensors.values())
            path.append(leaves({k: np.array(x) for k, x in tensors.items()}))
    return np.stack(path)


def mlx_oracle(rule: str, ours: dict[str, Any], cls: str, theirs: dict[str, Any]) -> Oracle:
    """Of numbers that float32 holds exactly: MLX rounds every Python number to it."""
    words = words_of(theirs)
    run = functools.partial(run_mlx, cls, theirs)
    return Oracle(rule, ours, f"mlx.optimizers.{cls}({words})", run)


KERAS = {"learning_rate": 0.1, "beta_1": 0.7, "beta_2": 0.9, "epsilon": 1e-3, "weight_decay": 0.05}
OURS = {"lr": 0.1, "b1": 0.7, "b2": 0.9, "eps": 1e-3, "weight_decay": 0.05, "decay": "decoupled"}
MLX = {"learning_rate": 0.125, "betas": [0.75, 0.96875], "eps": 2.0**-10}
BINARY = {"lr": 0.125, "b1": 0.75, "b2": 0.96875, "eps": 2.0**-10, "bias_correction": False}

ORACLES = [
    torch_oracle("adam", {"lr": 0.1}, "Adam", {"lr": 0.1}),
    keras_oracle("adam", {"eps": 1e-7, "eps_hat": True}, "Adam", {}),
    keras_oracle("adam", OURS | {"eps_hat": True}, "Adam", KERAS),
    keras_oracle("adam", OURS | {"eps_hat": True}, "AdamW", KERAS),
    mlx_oracle("adam", BINARY, "Adam", MLX),
    mlx_oracle(
        "adam",
        BINARY | {"weight_decay": 0.0625, "decay": "decoupled"},
        "AdamW",
        MLX | {"weight_decay": 0.0625},
    ),
    keras_oracle("adamax", {"lr": 1e-3, "eps": 1e-7}, "Adamax", {}),
    keras_oracle("adamax", OURS, "Adamax", KERAS),
    mlx_oracle("adamax", BINARY, "Adamax", MLX),
    torch_oracle("amsgrad", {"b2": 0.9}, "Adam", {"betas": (0.9, 0.9), "amsgrad": True}),
    keras_oracle("amsgrad", {"eps": 1e-7, "eps_hat": True}, "Adam", {"amsgrad": True}),
    keras_oracle("amsgrad", OURS | {"eps_hat": True}, "AdamW", KERAS | {"amsgrad": True}),
    optax_oracle(
        "amsgrad",
        {"lr": 0.1, "corrected_max": True},
        "optax.amsgrad(0.1)",
        lambda o: o.amsgrad(0.1),
    ),
    optax_oracle(
        "amsgrad",
        {"lr": 0.1, "b1": 0.7, "b2": 0.9, "eps": 1e-3, "eps_root": 1e-4, "corrected_max": True},
        "optax.amsgrad(0.1, b1=0.7, b2=0.9, eps=1e-3, eps_root=1e-4)",
        lambda o: o.amsgrad(0.1, b1=0.7, b2=0.9, eps=1e-3, eps_root=1e-4),
    ),
    optax_oracle(
        "amsgrad",
        {"lr": 0.1, "b2": 0.9, "bias_correction": False},
        "optax.amsgrad(0.1, b2=0.9, bias_correction_mu=False, bias_correction_nu=False)",
        lambda o: o.amsgrad(0.1, b2=0.9, bias_correction_mu=False, bias_correction_nu=False),
    ),
]
