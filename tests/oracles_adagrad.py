"""Rules that divide by a sum or mean of squared gradients, or by what they saw of it."""

import functools

import numpy as np
import pytest
from oracle import (
    Oracle,
    deviation,
    frozen,
    keras_oracle,
    leaves,
    optax_oracle,
    run,
    torch_oracle,
    words_of,
)
from oracles_sgd import Slot, layout, slot_oracle


class Mean(Slot):
    slot = "mu"


class Placed(Oracle):
    """The start counts as a step: an element that goes to 0 at once has no other size."""

    def error(self):
        start = leaves(self.problem()[0])
        ours = run(self.rule, self.options, *self.problem())
        return deviation(np.vstack((start, ours)), np.vstack((start, self._expected())))


class Constant(Oracle):
    """Every gradient is the same as the one before."""

    def problem(self):
        rng = np.random.default_rng(20)
        params = {"w": frozen(0.1 * rng.standard_normal(40))}
        return params, [{"w": frozen(rng.uniform(0.5, 2.0, 40))}] * self.steps


def centered(params, grads):
    """The formula of a centered RMSprop in 50 digits, where no variance is negative."""
    mpmath = pytest.importorskip("mpmath")
    path = []
    with mpmath.workdps(50):
        b, lr, eps = mpmath.mpf(0.9), mpmath.mpf(0.1), mpmath.mpf(0.5)
        p = [mpmath.mpf(float(x)) for x in params["w"]]
        square, mean = [mpmath.mpf(0)] * len(p), [mpmath.mpf(0)] * len(p)
        for grad in grads:
            for i, x in enumerate(map(float, grad["w"])):
                square[i] += (1 - b) * (mpmath.mpf(x) ** 2 - square[i])
                mean[i] += (1 - b) * (x - mean[i])
                p[i] -= lr * x / (mpmath.sqrt(square[i] - mean[i] ** 2) + eps)
            path.append([float(x) for x in p])
    return np.array(path)


def ftrl(options, params, grads):
    """McMahan's Algorithm 1 with its options; what the formula does not say stays as it is."""
    mpmath = pytest.importorskip("mpmath")
    start, path = leaves(params), []
    rates = options.get("lr", lambda k: 0.2)
    with mpmath.workdps(50):
        l1, l2, beta = (mpmath.mpf(options.get(k, 0.0)) for k in ("l1", "l2", "beta"))
        w = [mpmath.mpf(float(x)) for x in start]
        z = [mpmath.mpf(0)] * len(w)
        n = [mpmath.mpf(options.get("initial_accumulator", 0.1))] * len(w)
        for k, grad in enumerate(grads):
            alpha = mpmath.mpf(rates(k))
            for i, g in enumerate(map(float, leaves(grad))):
                if alpha == 0:
                    continue
                total = n[i] + mpmath.mpf(g) ** 2
                z[i] += g - (mpmath.sqrt(total) - mpmath.sqrt(n[i])) / alpha * w[i]
                n[i] = total
                bottom = (beta + mpmath.sqrt(total)) / alpha + l2
                if bottom != 0:
                    w[i] = 0 if abs(z[i]) <= l1 else -(z[i] - mpmath.sign(z[i]) * l1) / bottom
            path.append([float(x) for x in w])
    return np.array(path)


def ftrl_oracle(options, words):
    against = f"McMahan et al. 2013, Algorithm 1, in 50 digits ({words})"
    return Oracle("ftrl", options, against, functools.partial(ftrl, options))


FTRL = "pytorch_optimizer:FTRL"


def rmsprop_oracle(ours, **theirs):
    words = "".join(f", {k}={v!r}" for k, v in theirs.items())
    return optax_oracle(
        "rmsprop",
        {"lr": 0.1, "b2": 0.9, "eps": 0.0, "eps_root": 1e-8} | ours,
        f"optax.rmsprop(0.1{words})",
        lambda o: o.rmsprop(0.1, **theirs),
    )


def cocob_oracle(ours, **theirs):
    words = words_of(theirs)
    return optax_oracle(
        "cocob",
        ours,
        f"optax.contrib.cocob({words})",
        lambda o: o.contrib.cocob(**theirs),
    )


def same(rule, cls, **options):
    """Options that both sides spell alike."""
    return torch_oracle(rule, options, cls, options)


ORACLES = [
    same("adagrad", "Adagrad"),
    same("adagrad", "Adagrad", lr=0.1, lr_decay=0.3, eps=1e-3),
    same("adagrad", "Adagrad", lr=0.1, weight_decay=0.05),
    same("adagrad", "Adagrad", lr=0.1, weight_decay=0.05, maximize=True),
    torch_oracle(
        "adagrad",
        {"lr": 0.1, "initial_accumulator": 0.3},
        "Adagrad",
        {"lr": 0.1, "initial_accumulator_value": 0.3},
    ),
    optax_oracle(
        "adagrad",
        {"lr": 0.1, "eps": 0.0, "eps_root": 1e-7, "initial_accumulator": 0.1},
        "optax.adagrad(0.1)",
        lambda o: o.adagrad(0.1),
    ),
    optax_oracle(
        "adagrad",
        {"lr": 0.1, "eps": 0.0, "eps_root": 1e-3},
        "optax.adagrad(0.1, initial_accumulator_value=0.0, eps=0.001)",
        lambda o: o.adagrad(0.1, initial_accumulator_value=0.0, eps=1e-3),
    ),
    optax_oracle(
        "adagrad",
        {"lr": 0.1, "eps": 0.0},
        "optax.adagrad(0.1, initial_accumulator_value=0.0, eps=0.0)",
        lambda o: o.adagrad(0.1, initial_accumulator_value=0.0, eps=0.0),
    ),
    keras_oracle(
        "adagrad",
        {"lr": 1e-3, "eps": 0.0, "eps_root": 1e-7, "initial_accumulator": 0.1},
        "Adagrad",
        {},
    ),
    keras_oracle(
        "adagrad",
        {"lr": 0.1, "eps": 0.0, "eps_root": 1e-3, "weight_decay": 0.05, "decay": "decoupled"},
        "Adagrad",
        {
            "learning_rate": 0.1,
            "initial_accumulator_value": 0.0,
            "epsilon": 1e-3,
            "weight_decay": 0.05,
        },
    ),
    same("adadelta", "Adadelta"),
    same("adadelta", "Adadelta", lr=0.3, rho=0.7, eps=1e-3),
    same("adadelta", "Adadelta", rho=0.7, weight_decay=0.05),
    same("adadelta", "Adadelta", rho=0.7, weight_decay=0.05, maximize=True),
    optax_oracle("adadelta", {"lr": 0.3}, "optax.adadelta(0.3)", lambda o: o.adadelta(0.3)),
    optax_oracle(
        "adadelta",
        {"lr": 0.3, "rho": 0.6, "eps": 1e-4, "weight_decay": 0.05},
        "optax.adadelta(0.3, rho=0.6, eps=0.0001, weight_decay=0.05)",
        lambda o: o.adadelta(0.3, rho=0.6, eps=1e-4, weight_decay=0.05),
    ),
    keras_oracle("adadelta", {"lr": 1e-3, "rho": 0.95, "eps": 1e-7}, "Adadelta", {}),
    keras_oracle(
        "adadelta",
        {"rho": 0.6, "eps": 1e-4, "weight_decay": 0.05, "decay": "decoupled"},
        "Adadelta",
        {"learning_rate": 1.0, "rho": 0.6, "epsilon": 1e-4, "weight_decay": 0.05},
    ),
    same("rmsprop", "RMSprop"),
    torch_oracle(
        "rmsprop",
        {"lr": 0.1, "b2": 0.8, "eps": 1e-3},
        "RMSprop",
        {"lr": 0.1, "alpha": 0.8, "eps": 1e-3},
    ),
    same("rmsprop", "RMSprop", momentum=0.9, weight_decay=0.05),
    same("rmsprop", "RMSprop", centered=True, weight_decay=0.05, maximize=True),
    same("rmsprop", "RMSprop", centered=True, momentum=0.7),
    torch_oracle("rmsprop", {"eps": 0.0}, "RMSprop", {"eps": 1e-300}),
    slot_oracle(Mean, "rmsprop", {"centered": True}, "RMSprop", "grad_avg", {"centered": True}),
    layout("rmsprop", "v", momentum=0, centered=False),
    layout("rmsprop", "v mu", momentum=0.0, centered=True),
    layout("rmsprop", "v mu m", momentum=0.9, centered=True),
    rmsprop_oracle({}),
    rmsprop_oracle({"b2": 0.7, "eps_root": 1e-3}, decay=0.7, eps=1e-3),
    rmsprop_oracle({"eps": 1e-8, "eps_root": 0.0}, eps_in_sqrt=False),
    rmsprop_oracle({"initial_accumulator": 1.0}, initial_scale=1.0),
    rmsprop_oracle({"bias_correction": True}, bias_correction=True),
    rmsprop_oracle({"momentum": 0.9}, momentum=0.9),
    rmsprop_oracle({"momentum": 0}, momentum=0.0),
    rmsprop_oracle({"momentum": 0.9, "nesterov": True}, momentum=0.9, nesterov=True),
    rmsprop_oracle({"nesterov": True}, nesterov=True),
    rmsprop_oracle({"centered": True, "eps_root": 1e-3}, centered=True, eps=1e-3),
    rmsprop_oracle(
        {
            "centered": True,
            "bias_correction": True,
            "momentum": 0.6,
            "nesterov": True,
            "initial_accumulator": 0.3,
            "eps": 1e-3,
            "eps_root": 0.0,
        },
        centered=True,
        bias_correction=True,
        momentum=0.6,
        nesterov=True,
        initial_scale=0.3,
        eps_in_sqrt=False,
        eps=1e-3,
    ),
    keras_oracle("rmsprop", {"lr": 1e-3, "b2": 0.9, "eps": 0.0, "eps_root": 1e-7}, "RMSprop", {}),
    keras_oracle(
        "rmsprop",
        {
            "lr": 0.1,
            "b2": 0.8,
            "eps": 0.0,
            "eps_root": 1e-3,
            "momentum": 0.7,
            "centered": True,
            "weight_decay": 0.05,
            "decay": "decoupled",
        },
        "RMSprop",
        {
            "learning_rate": 0.1,
            "rho": 0.8,
            "epsilon": 1e-3,
            "momentum": 0.7,
            "centered": True,
            "weight_decay": 0.05,
        },
    ),
    Constant(
        "rmsprop",
        {"lr": 0.1, "b2": 0.9, "eps": 0.5, "centered": True},
        "RMSprop(centered) of a constant gradient, in 50 digits",
        centered,
        steps=400,
        bound=1e-6,
        why="of a variance that is 0, rounding leaves 1e-16, and of its root 1e-8",
    ),
    cocob_oracle({}),
    cocob_oracle({"alpha": 3.0, "eps": 0.5}, alpha=3.0, eps=0.5),
    cocob_oracle({"lr": 0.3, "alpha": 10.0}, learning_rate=0.3, alpha=10.0),
    cocob_oracle({"lr": 1e-4}, learning_rate=1e-4),
    cocob_oracle({"weight_decay": 0.5, "alpha": 10.0}, weight_decay=0.5, alpha=10.0),
    Placed(*keras_oracle("ftrl", {}, "Ftrl", {})),
    Placed(
        *keras_oracle(
            "ftrl",
            {
                "lr": 0.2,
                "l1": 0.3,
                "l2": 0.6,
                "l2_shrinkage": 0.8,
                "beta": 0.7,
                "weight_decay": 0.1,
            },
            "Ftrl",
            {
                "learning_rate": 0.2,
                "l1_regularization_strength": 0.3,
                "l2_regularization_strength": 0.3,
                "l2_shrinkage_regularization_strength": 0.4,
                "beta": 0.7,
                "weight_decay": 0.1,
            },
        )
    ),
    Placed(
        *keras_oracle(
            "ftrl",
            {"lr": 0.2, "power": 0.8, "initial_accumulator": 0.3},
            "Ftrl",
            {"learning_rate": 0.2, "learning_rate_power": -0.8, "initial_accumulator_value": 0.3},
        )
    ),
    torch_oracle("ftrl", {"initial_accumulator": 0.0}, FTRL, {}, kind="dense"),
    Placed(
        *torch_oracle(
            "ftrl",
            {"lr": 0.2, "initial_accumulator": 0.0, "beta": 1.0, "l1": 0.3, "l2": 0.6},
            FTRL,
            {"lr": 0.2, "beta": 1.0, "lambda_1": 0.3, "lambda_2": 0.6},
        )
    ),
    ftrl_oracle({"lr": lambda k: 0.2, "initial_accumulator": 0.0}, "unseen elements stay"),
    ftrl_oracle(
        {"lr": lambda k: 0.1 * (k % 3), "l1": 0.3, "l2": 0.6, "beta": 1.0}, "lr = 0 now and then"
    ),
]

EQUIVALENT = [
    ("ftrl", "power=None", "power=0.5", "x**0.5 is the root but for an ulp"),
]
