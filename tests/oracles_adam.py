"""Adam's relatives."""

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from oracle import (
    STEPS,
    Oracle,
    Path,
    Tree,
    keras_oracle,
    leaves,
    optax_oracle,
    run_torch,
    torch_oracle,
    words_of,
)


def wide(rule: str, ours: dict[str, Any], cls: str, theirs: dict[str, Any]) -> Oracle:
    """With float64 as torch's default dtype, in which NAdam holds its product."""
    run = functools.partial(run_torch, cls, theirs, wide=True)
    return Oracle(rule, ours, f"torch.optim.{cls}({words_of(theirs)})", run)


def po(rule: str, ours: dict[str, Any], cls: str, theirs: dict[str, Any], **more: Any) -> Oracle:
    return torch_oracle(rule, ours, f"pytorch_optimizer:{cls}", theirs, **more)


def run_scheduled(
    cls: str, options: dict[str, Any], lr: Callable[[int], float], params: Tree, grads: list[Tree]
) -> Path:
    """The same with the rate of a function of the step, which counts from 0."""
    torch = pytest.importorskip("torch")

    def scheduler(opt: Any) -> Any:
        return torch.optim.lr_scheduler.LambdaLR(opt, lambda k: lr(k) / options["lr"])

    return run_torch(cls, options, params, grads, scheduler)


def scheduled(
    rule: str, ours: dict[str, Any], cls: str, theirs: dict[str, Any], lr: Callable[[int], float]
) -> Oracle:
    words = words_of(theirs)
    against = f"pytorch_optimizer.{cls}({words}) with a schedule"
    run = functools.partial(run_scheduled, f"pytorch_optimizer:{cls}", theirs, lr)
    return Oracle(rule, ours | {"lr": lr}, against, run)


def paper(
    rule: str,
    ours: dict[str, Any],
    formula: Callable[..., Any],
    *,
    steps: int = STEPS,
    **hyper: Any,
) -> Oracle:
    """Beside a transcription of the formula: all elements in one array of 64-bit mantissas.

    ``formula(p, g, s, t, **hyper)`` gives the new p; s is a dict of slots, empty at first.
    """

    def theirs(params: Tree, grads: list[Tree]) -> Path:
        p, s, path = leaves(params).astype(np.longdouble), {}, []
        exact = {k: np.longdouble(x) if isinstance(x, float) else x for k, x in hyper.items()}
        with np.errstate(all="ignore"):
            for t, g in enumerate(grads, start=1):
                p = formula(p, leaves(g).astype(np.longdouble), s, t, **exact)
                path.append(p.astype(np.float64))
        return np.stack(path)

    words = ", ".join(f"{k}={getattr(v, '__name__', v)}" for k, v in hyper.items())
    against = f"the formula in extended precision ({words})"
    return Oracle(rule, ours, against, theirs, steps=steps)


def mean(s: dict[str, Any], name: str, beta: Any, x: Any) -> Any:
    s[name] = beta * s.get(name, 0) + (1 - beta) * x
    return s[name]


def radam(p, g, s, t, *, lr, b1, b2, eps, threshold):
    """The paper's Algorithm 2, where the threshold is 4."""
    m, v = mean(s, "m", b1, g), mean(s, "v", b2, g * g)
    top = 2 / (1 - b2) - 1
    rho = top - 2 * t * b2**t / (1 - b2**t)
    if rho <= threshold:
        return p - lr * m / (1 - b1**t)
    r = np.sqrt((rho - 4) * (rho - 2) * top / ((top - 4) * (top - 2) * rho))
    return p - lr * r * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)


def padam_max(p, g, s, t, *, lr, b1, b2, eps, partial):
    """The authors' code with amsgrad, its default."""
    m, v = mean(s, "m", b1, g), mean(s, "v", b2, g * g)
    s["w"] = np.maximum(s.get("w", 0), v)
    step = lr * np.sqrt(1 - b2**t) / (1 - b1**t)
    return p - step * m / (np.sqrt(s["w"]) + eps) ** (2 * partial)


def acprop_after(p, g, s, t, *, lr, b1, b2, eps, eps_root):
    """The paper's residual from the new mean."""
    old = s.get("s", 0)
    m = mean(s, "m", b1, g)
    root = 1 if t == 1 else np.sqrt(old / (1 - b2 ** (t - 1)))
    s["s"] = b2 * old + (1 - b2) * (g - m) ** 2 + eps_root
    down = root + eps
    return p - lr * g / np.where(down == 0, 1, down)


def qhadam(p, g, s, t, *, lr, b1, b2, nu1, nu2, eps):
    """Section 5: the averages are divided by the sum of their weights."""
    m, v = mean(s, "m", b1, g) / (1 - b1**t), mean(s, "v", b2, g * g) / (1 - b2**t)
    return p - lr * ((1 - nu1) * g + nu1 * m) / (np.sqrt((1 - nu2) * g * g + nu2 * v) + eps)


def dead(formula: Callable[..., Any], **hyper: Any) -> Callable[..., Any]:
    """The same where 0 / 0 is no step."""

    def step(p, g, s, t, **hyper):
        new = formula(p, g, s, t, **hyper)
        return np.where(np.isnan(new), p, new)

    return step


def adam(p, g, s, t, *, lr, b1, b2):
    """Without any epsilon."""
    m, v = mean(s, "m", b1, g), mean(s, "v", b2, g * g)
    return p - lr * (m / (1 - b1**t)) / np.sqrt(v / (1 - b2**t))


def nadam_0(p, g, s, t, *, lr, b1, b2, psi):
    m, v = mean(s, "m", b1, g), mean(s, "v", b2, g * g)
    mu, then = (b1 * (1 - 0.5 * np.longdouble(0.96) ** (k * psi)) for k in (t, t + 1))
    s["pi"] = s.get("pi", 1) * mu
    ahead = then * m / (1 - then * s["pi"]) + (1 - mu) * g / (1 - s["pi"])
    return p - lr * ahead / np.sqrt(v / (1 - b2**t))


def adabelief_0(p, g, s, t, *, lr, b1, b2):
    m = mean(s, "m", b1, g)
    v = mean(s, "s", b2, (g - m) ** 2)
    return p - lr * m / (1 - b1**t) / np.sqrt(v / (1 - b2**t))


def adabound_free(p, g, s, t, *, lr, final_lr, gamma, b1, b2):
    lr = lr(t - 1) if callable(lr) else lr
    m, v = mean(s, "m", b1, g), mean(s, "v", b2, g * g)
    if lr == 0:
        return p
    rate = lr * np.sqrt(1 - b2**t) / (1 - b1**t) / np.where(v == 0, 1, np.sqrt(v))
    low, high = final_lr * (1 - 1 / (gamma * t + 1)), final_lr * (1 + 1 / (gamma * t))
    return p - np.minimum(np.maximum(rate, low), high) * m


def adopt_0(p, g, s, t, *, lr, b1, b2, c):
    v = s.get("v", 0)
    s["v"] = g * g if t == 1 else b2 * v + (1 - b2) * g * g
    if t == 1:
        return p
    u = np.clip(g / np.where(v == 0, 1, np.sqrt(v)), -c, c)
    return p - lr * mean(s, "m", b1, u)


def ademamix_0(p, g, s, t, *, lr, b1, b2, b3, alpha):
    m, n = mean(s, "m", b1, g), mean(s, "n", b3, g)
    v = mean(s, "v", b2, g * g)
    return p - lr * (m / (1 - b1**t) + alpha * n) / np.sqrt(v / (1 - b2**t))


def madgrad_0(p, g, s, t, *, lr, c):
    lam = lr * np.sqrt(np.longdouble(t))
    x = s.setdefault("x", p)
    s["s"], s["v"] = s.get("s", 0) + lam * g, s.get("v", 0) + lam * g * g
    step = np.where(s["v"] == 0, 0, s["s"] / np.cbrt(s["v"]))
    return (1 - c) * (x - step) + c * p


def optimistic_0(p, g, s, t, *, lr, b1, b2):
    """The paper's Algorithm 1 after its first step, without epsilon."""
    m, v = mean(s, "m", b1, g), mean(s, "v", b2, g * g)
    r = m / (1 - b1**t) / np.where(v == 0, 1, np.sqrt(v / (1 - b2**t)))
    old = s.get("r", r)
    s["r"] = r
    return p - 2 * lr * r + lr * old


def mars_0(p, g, s, t, *, lr, b1, b2, gamma, sizes, eps):
    """The authors' code, with epsilon after the correction."""
    c = g + gamma * b1 / (1 - b1) * (g - s.get("g", 0))
    s["g"] = g
    c = np.concatenate([x / max(1, np.sqrt(np.sum(x * x))) for x in np.split(c, sizes)])
    m, v = mean(s, "m", b1, c), mean(s, "v", b2, c * c)
    down = np.sqrt(v / (1 - b2**t)) + eps
    return p - lr * m / (1 - b1**t) / np.where(down == 0, 1, down)


def adamod_0(p, g, s, t, *, lr, b1, b2, b3):
    m, v = mean(s, "m", b1, g), mean(s, "v", b2, g * g)
    q = lr * np.sqrt(1 - b2**t) / (1 - b1**t) / np.where(v == 0, 1, np.sqrt(v))
    return p - np.minimum(q, mean(s, "s", b3, q)) * m


def diffgrad_0(p, g, s, t, *, lr, b1, b2):
    m, v = mean(s, "m", b1, g), mean(s, "v", b2, g * g)
    f = 1 / (1 + np.exp(-np.abs(s.get("g", 0) - g)))
    s["g"] = g
    rate = lr * np.sqrt(1 - b2**t) / (1 - b1**t)
    return p - rate * f * m / np.where(v == 0, 1, np.sqrt(v))


def half_life(b1: float, b3: float, steps: int) -> Callable[[int], float]:
    """The paper's warm-up of AdEMAMix's slow mean."""

    def at(k: int) -> float:
        if k + 1 >= steps:
            return b3
        a, b, s = math.log(b1), math.log(b3), (k + 1) / steps
        return min(b3, math.exp(a * b / ((1 - s) * b + s * a)))

    return at


def pausing(k: int) -> float:
    """A rate that is 0 now and then, also at first, and 1 and 1/16 once."""
    return {3: 1.0, 4: 0.0625}.get(k, 0.1 * (k % 5 != 0))


SUMS = {"b1": 0.7, "b2": 0.9}
TWO = {"betas": (0.7, 0.9)}
ROOT = "optax takes the root of an int32 count in float32; seen: 5e-6"
NADAM = [
    wide("nadam", {"lr": 0.1}, "NAdam", {"lr": 0.1}),
    wide("nadam", {}, "NAdam", {}),
    wide(
        "nadam",
        {"lr": 0.1, **SUMS, "momentum_decay": 0.3, "eps": 1e-3, "weight_decay": 0.05},
        "NAdam",
        {"lr": 0.1, **TWO, "momentum_decay": 0.3, "eps": 1e-3, "weight_decay": 0.05},
    ),
    wide(
        "nadam",
        {"lr": 0.1, "weight_decay": 0.05, "decay": "decoupled", "maximize": True},
        "NAdam",
        {"lr": 0.1, "weight_decay": 0.05, "decoupled_weight_decay": True, "maximize": True},
    ),
    torch_oracle(
        "nadam",
        {"lr": 0.1},
        "NAdam",
        {"lr": 0.1},
        bound=1e-6,
        why="torch keeps the product of momenta in float32 unless its default dtype is float64",
    ),
    keras_oracle("nadam", {"lr": 1e-3, "momentum_decay": 1.0, "eps": 1e-7}, "Nadam", {}),
    keras_oracle(
        "nadam",
        {"lr": 0.1, **SUMS, "momentum_decay": 1.0, "eps": 1e-3, "weight_decay": 0.05,
         "decay": "decoupled"},
        "Nadam",
        {"learning_rate": 0.1, "beta_1": 0.7, "beta_2": 0.9, "epsilon": 1e-3, "weight_decay": 0.05},
    ),
    optax_oracle(
        "nadam", {"lr": 0.1, "momentum_decay": None}, "optax.nadam(0.1)", lambda o: o.nadam(0.1)
    ),
    optax_oracle(
        "nadam",
        {"lr": 0.1, **SUMS, "momentum_decay": None, "eps": 1e-3, "eps_root": 1e-4},
        "optax.nadam(0.1, b1=0.7, b2=0.9, eps=1e-3, eps_root=1e-4)",
        lambda o: o.nadam(0.1, b1=0.7, b2=0.9, eps=1e-3, eps_root=1e-4),
    ),
    optax_oracle(
        "nadam",
        {"lr": 0.1, "momentum_decay": None, "weight_decay": 0.05, "decay": "decoupled"},
        "optax.nadamw(0.1, weight_decay=0.05)",
        lambda o: o.nadamw(0.1, weight_decay=0.05),
    ),
    paper(
        "nadam", {"lr": 0.1, "eps": 0.0, **SUMS, "momentum_decay": 0.1}, dead(nadam_0),
        lr=0.1, psi=0.1, **SUMS,
    ),
]  # fmt: skip
RADAM = [
    torch_oracle("radam", {"eps_hat": True}, "RAdam", {}, steps=60),
    torch_oracle("radam", {"lr": 0.1, "eps_hat": True}, "RAdam", {"lr": 0.1}),
    optax_oracle(
        "radam",
        {"lr": 0.1},
        "optax.radam(0.1)",
        lambda o: o.radam(0.1),
        bound=1e-11,
        why="rho is the small difference of two numbers near 2 / (1 - b2) = 2000, of which optax "
        "computes the second by 1 - b2**t; seen: 2.5e-12",
    ),
    torch_oracle(
        "radam",
        {"lr": 0.1, "b1": 0.7, "b2": 0.95, "eps": 1e-3, "eps_hat": True, "weight_decay": 0.05},
        "RAdam",
        {"lr": 0.1, "betas": (0.7, 0.95), "eps": 1e-3, "weight_decay": 0.05},
    ),
    torch_oracle(
        "radam",
        {"lr": 0.1, "b2": 0.9, "eps_hat": True, "weight_decay": 0.05, "decay": "decoupled"},
        "RAdam",
        {"lr": 0.1, "betas": (0.9, 0.9), "weight_decay": 0.05, "decoupled_weight_decay": True},
    ),
    torch_oracle(
        "radam", {"lr": 0.1, "b2": 0.5, "eps_hat": True}, "RAdam", {"lr": 0.1, "betas": (0.9, 0.5)}
    ),
    optax_oracle("radam", {"b2": 0.95}, "optax.radam(1e-3, b2=0.95)",
                 lambda o: o.radam(1e-3, b2=0.95)),
    optax_oracle(
        "radam",
        {"lr": 0.1, **SUMS, "eps": 1e-3, "eps_root": 1e-4, "threshold": 8.0, "nesterov": True},
        "optax.radam(0.1, b1=0.7, b2=0.9, eps=1e-3, eps_root=1e-4, threshold=8, nesterov=True)",
        lambda o: o.radam(
            0.1, b1=0.7, b2=0.9, eps=1e-3, eps_root=1e-4, threshold=8.0, nesterov=True
        ),
    ),
    po(
        "radam",
        {"lr": 0.1, "b2": 0.95, "eps_hat": True, "degenerate": False},
        "RAdam",
        {"lr": 0.1, "betas": (0.9, 0.95)},
    ),
    po(
        "radam",
        {"lr": 0.1, "b2": 0.95, "eps_hat": True, "threshold": 7.0, "weight_decay": 0.05,
         "decay": "decoupled"},
        "RAdam",
        {"lr": 0.1, "betas": (0.9, 0.95), "n_sma_threshold": 7, "degenerated_to_sgd": True,
         "weight_decay": 0.05},
    ),
    paper(
        "radam", {"lr": 0.1, "b2": 0.95, "threshold": 1.0, "eps": 1e-3}, radam,
        lr=0.1, b1=0.9, b2=0.95, eps=1e-3, threshold=4,
    ),
    paper(
        "radam", {"lr": 0.1, "b2": 0.95, "threshold": 4.0, "eps": 0.0}, dead(radam),
        lr=0.1, b1=0.9, b2=0.95, eps=0.0, threshold=4,
    ),
    # rho becomes 2 / (1 - b2) - 1 in the end, which is the threshold and not above it
    paper(
        "radam", {"lr": 0.1, "b2": 0.6, "threshold": 1.0}, radam, steps=200,
        lr=0.1, b1=0.9, b2=0.6, eps=1e-8, threshold=4,
    ),
    paper(
        "radam", {"lr": 0.1, "b2": 0.75, "threshold": 7.0}, radam, steps=200,
        lr=0.1, b1=0.9, b2=0.75, eps=1e-8, threshold=7,
    ),
]  # fmt: skip
ADABELIEF = [
    optax_oracle("adabelief", {}, "optax.adabelief(1e-3)", lambda o: o.adabelief(1e-3)),
    optax_oracle(
        "adabelief",
        {"lr": 1e-16, "b1": 0.0, "eps_root": 0.0},  # the mean is the gradient: s = 0
        "optax.adabelief(1e-16, b1=0, eps_root=0)",
        lambda o: o.adabelief(1e-16, b1=0.0, eps_root=0.0),
    ),
    optax_oracle(
        "adabelief",
        {"lr": 0.1, **SUMS, "eps": 1e-3, "eps_root": 1e-4},
        "optax.adabelief(0.1, b1=0.7, b2=0.9, eps=1e-3, eps_root=1e-4)",
        lambda o: o.adabelief(0.1, b1=0.7, b2=0.9, eps=1e-3, eps_root=1e-4),
    ),
    optax_oracle(
        "adabelief",
        {"lr": 0.1, **SUMS, "eps": 1e-3, "eps_root": 1e-4, "nesterov": True},
        "optax.adabelief(0.1, b1=0.7, b2=0.9, eps=1e-3, eps_root=1e-4, nesterov=True)",
        lambda o: o.adabelief(0.1, b1=0.7, b2=0.9, eps=1e-3, eps_root=1e-4, nesterov=True),
    ),
    po(
        "adabelief",
        {"lr": 0.1, **SUMS, "eps": 1e-4, "eps_root": 1e-4, "weight_decay": 0.05},
        "AdaBelief",
        {"lr": 0.1, **TWO, "eps": 1e-4, "weight_decay": 0.05},
    ),
    po(
        "adabelief",
        {"lr": 0.1, "weight_decay": 0.05, "decay": "coupled"},
        "AdaBelief",
        {"lr": 0.1, "weight_decay": 0.05, "weight_decouple": False},
    ),
    paper(
        "adabelief", {"lr": 0.1, "eps": 0.0, "eps_root": 0.0}, dead(adabelief_0),
        lr=0.1, b1=0.9, b2=0.999,
    ),
]  # fmt: skip
ADABOUND = [
    po("adabound", {"eps_root": 1e-15}, "AdaBound", {}),
    po(
        "adabound",
        {"lr": 0.1, "final_lr": 0.5, **SUMS, "gamma": 0.1, "eps": 1e-3, "eps_root": 1e-15,
         "weight_decay": 0.05},
        "AdaBound",
        {"lr": 0.1, "final_lr": 0.5, **TWO, "gamma": 0.1, "eps": 1e-3, "weight_decay": 0.05,
         "weight_decouple": False},
    ),
    po(
        "adabound",
        {"lr": 0.1, "b2": 0.9, "gamma": 0.01, "eps_root": 1e-15, "amsbound": True,
         "weight_decay": 0.05, "decay": "decoupled"},
        "AdaBound",
        {"lr": 0.1, "betas": (0.9, 0.9), "gamma": 0.01, "ams_bound": True, "weight_decay": 0.05},
    ),
    scheduled(
        "adabound",
        {"base_lr": 0.1, "eps_root": 1e-15, "gamma": 0.1},
        "AdaBound",
        {"lr": 0.1, "gamma": 0.1},
        lambda k: 0.1 * 0.9**k,
    ),
    paper(
        "adabound", {"lr": 0.1, "eps": 0.0, "gamma": 0.05}, adabound_free,
        lr=0.1, final_lr=0.1, gamma=0.05, b1=0.9, b2=0.999,
    ),
    paper(
        "adabound", {"lr": pausing, "eps": 0.0, "gamma": 0.05}, adabound_free,
        lr=pausing, final_lr=0.1, gamma=0.05, b1=0.9, b2=0.999,
    ),
]  # fmt: skip
PADAM = [
    po("padam", {"amsgrad": False}, "PAdam", {}),
    po(
        "padam",
        {"lr": 0.3, **SUMS, "partial": 0.4, "eps": 1e-3, "amsgrad": False, "weight_decay": 0.05},
        "PAdam",
        {"lr": 0.3, **TWO, "partial": 0.4, "eps": 1e-3, "weight_decay": 0.05},
    ),
    po(
        "padam",
        {"partial": 0.5, "amsgrad": False, "weight_decay": 0.05, "decay": "decoupled"},
        "PAdam",
        {"partial": 0.5, "weight_decay": 0.05, "weight_decouple": True},
    ),
    paper("padam", {}, padam_max, lr=0.1, b1=0.9, b2=0.999, eps=1e-8, partial=0.25),
    paper(
        "padam", {"eps": 0.0, "partial": 0.125, "b2": 0.7}, dead(padam_max),
        lr=0.1, b1=0.9, b2=0.7, eps=0.0, partial=0.125,
    ),
]  # fmt: skip
ACPROP = [
    optax_oracle(
        "acprop", {"residual": "before"}, "optax.contrib.acprop(1e-3)",
        lambda o: o.contrib.acprop(1e-3),
    ),
    optax_oracle(
        "acprop",
        {"lr": 0.1, **SUMS, "eps": 1e-3, "eps_root": 1e-4, "residual": "before",
         "weight_decay": 0.05},
        "optax.contrib.acprop(0.1, b1=0.7, b2=0.9, eps=1e-3, eps_root=1e-4, weight_decay=0.05)",
        lambda o: o.contrib.acprop(
            0.1, b1=0.7, b2=0.9, eps=1e-3, eps_root=1e-4, weight_decay=0.05
        ),
    ),
    paper("acprop", {}, acprop_after, lr=1e-3, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16),
    paper(
        "acprop", {"lr": 1e-16, "b1": 0.0, "eps_root": 0.0}, acprop_after,
        lr=1e-16, b1=0.0, b2=0.999, eps=1e-16, eps_root=0.0,
    ),
    paper(
        "acprop", {"lr": 0.1, **SUMS, "eps": 0.0, "eps_root": 1e-3}, acprop_after,
        lr=0.1, **SUMS, eps=0.0, eps_root=1e-3,
    ),
    paper(
        "acprop", {"lr": 0.1, "eps": 0.0, "eps_root": 0.0}, acprop_after,
        lr=0.1, b1=0.9, b2=0.999, eps=0.0, eps_root=0.0,
    ),
]  # fmt: skip
ADOPT = [
    optax_oracle("adopt", {}, "optax.contrib.adopt(1e-3)", lambda o: o.contrib.adopt(1e-3)),
    optax_oracle(
        "adopt",
        {"lr": 0.1, **SUMS, "eps": 1e-2, "nesterov": True},
        "optax.contrib.adopt(0.1, b1=0.7, b2=0.9, eps=1e-2, nesterov=True)",
        lambda o: o.contrib.adopt(0.1, b1=0.7, b2=0.9, eps=1e-2, nesterov=True),
    ),
    optax_oracle(
        "adopt",
        {"lr": 0.1, "b2": 0.9, "clip": math.inf, "nesterov": True},
        "optax.contrib.adopt(0.1, b2=0.9, use_clipping=False, nesterov=True)",
        lambda o: o.contrib.adopt(0.1, b2=0.9, use_clipping=False, nesterov=True),
    ),
    po(
        "adopt",
        {"lr": 0.1, **SUMS, "clip": lambda k: (k + 1) ** 0.25, "weight_decay": 0.05},
        "ADOPT",
        {"lr": 0.1, **TWO, "weight_decay": 0.05},
    ),
    po(
        "adopt",
        {"lr": 0.1, "b2": 0.9, "clip": lambda k: (k + 1) ** 0.25, "weight_decay": 0.05,
         "decay": "decoupled"},
        "ADOPT",
        {"lr": 0.1, "betas": (0.9, 0.9), "weight_decay": 0.05, "weight_decouple": True},
    ),
    paper(
        "adopt", {"lr": 0.1, "b2": 0.9, "eps": 0.0, "clip": 2.0}, adopt_0,
        lr=0.1, b1=0.9, b2=0.9, c=2.0,
    ),
]  # fmt: skip
ADEMAMIX = [
    optax_oracle(
        "ademamix", {}, "optax.contrib.ademamix(1e-3)", lambda o: o.contrib.ademamix(1e-3)
    ),
    optax_oracle(
        "ademamix",
        {"lr": 0.1, **SUMS, "b3": 0.95, "alpha": 3.0, "eps": 1e-3, "eps_root": 1e-4,
         "weight_decay": 0.05},
        "optax.contrib.ademamix(0.1, b1=0.7, b2=0.9, b3=0.95, alpha=3, eps=1e-3, eps_root=1e-4, "
        "weight_decay=0.05)",
        lambda o: o.contrib.ademamix(
            0.1, b1=0.7, b2=0.9, b3=0.95, alpha=3.0, eps=1e-3, eps_root=1e-4, weight_decay=0.05
        ),
    ),
    po(
        "ademamix",
        {"lr": 0.1, "weight_decay": 0.05, "decay": "coupled"},
        "AdEMAMix",
        {"lr": 0.1, "weight_decay": 0.05},
    ),
    po(
        "ademamix",
        {"lr": 0.1, "b3": half_life(0.9, 0.9999, 20), "weight_decay": 0.05,
         "alpha": lambda k: min((k + 1) / 20, 1) * 5.0},
        "AdEMAMix",
        {"lr": 0.1, "t_alpha_beta3": 20, "weight_decay": 0.05, "weight_decouple": True},
    ),
    paper(
        "ademamix", {"lr": 0.1, "b3": 0.99, "eps": 0.0}, dead(ademamix_0),
        lr=0.1, b1=0.9, b2=0.999, b3=0.99, alpha=5.0,
    ),
]  # fmt: skip
MADGRAD = [
    po("madgrad", {"lr": 1e-3}, "MADGRAD", {}),
    po(
        "madgrad",
        {"momentum": 0.6, "eps": 1e-3, "weight_decay": 0.05},
        "MADGRAD",
        {"lr": 1e-2, "momentum": 0.6, "eps": 1e-3, "weight_decay": 0.05},
    ),
    po("madgrad", {"momentum": 0.0}, "MADGRAD", {"lr": 1e-2, "momentum": 0.0}),
    scheduled(
        "madgrad", {}, "MADGRAD", {"lr": 0.1}, lambda k: 0.1 * 0.9**k if k % 5 != 3 else 0.0
    ),
    optax_oracle(
        "madgrad", {}, "optax.contrib.madgrad(0.01)", lambda o: o.contrib.madgrad(0.01),
        bound=1e-5, why=ROOT,
    ),
    optax_oracle(
        "madgrad",
        {"lr": 0.1, "momentum": 0.6, "eps": 1e-3, "weight_decay": 0.05},
        "optax.contrib.madgrad(0.1, momentum=0.6, eps=1e-3, weight_decay=0.05)",
        lambda o: o.contrib.madgrad(0.1, momentum=0.6, eps=1e-3, weight_decay=0.05),
        bound=1e-5,
        why=ROOT,
    ),
    paper("madgrad", {"lr": 0.1, "eps": 0.0}, madgrad_0, lr=0.1, c=0.9),
]  # fmt: skip


def deprecated(o: Any) -> Any:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return o.optimistic_adam(0.1, optimism=0.1 * 0.3)


def optimistic(o: Any, decay: float = 0.0, **options: Any) -> Any:
    """What optax.optimistic_adam_v2 is made of, with decoupled decay before the rate."""
    return o.chain(
        o.scale_by_adam(nesterov=False, **options),
        o.scale_by_optimistic_gradient(),
        o.add_decayed_weights(decay),
        o.scale_by_learning_rate(0.1),
    )


OPTIMISTIC = [
    optax_oracle(
        "optimistic_adam",
        {"lr": 0.1, "nesterov": True},
        "optax.optimistic_adam_v2(0.1)",
        lambda o: o.optimistic_adam_v2(0.1),
    ),
    optax_oracle(
        "optimistic_adam",
        {},
        "optax.optimistic_adam_v2(1e-3, nesterov=False)",
        lambda o: o.optimistic_adam_v2(1e-3, nesterov=False),
    ),
    optax_oracle(
        "optimistic_adam",
        {"lr": 0.1 * 2.0, **SUMS, "optimism": 0.5 / 2.0, "eps": 1e-3, "eps_root": 1e-4},
        "optax.optimistic_adam_v2(0.1, alpha=2, beta=0.5, b1=0.7, b2=0.9, eps=1e-3, "
        "eps_root=1e-4, nesterov=False)",
        lambda o: o.optimistic_adam_v2(
            0.1, alpha=2.0, beta=0.5, b1=0.7, b2=0.9, eps=1e-3, eps_root=1e-4, nesterov=False
        ),
    ),
    optax_oracle(
        "optimistic_adam",
        {"lr": 0.1, "optimism": 0.3, "nesterov": True},
        "optax.optimistic_adam(0.1, optimism=0.03)",
        deprecated,
    ),
    optax_oracle(
        "optimistic_adam",
        {"lr": 0.1, "weight_decay": 0.05},
        "optax.chain(scale_by_adam, scale_by_optimistic_gradient, add_decayed_weights(0.05))",
        lambda o: optimistic(o, 0.05),
    ),
    paper(
        "optimistic_adam", {"lr": 0.1, "eps": 0.0}, optimistic_0, lr=0.1, b1=0.9, b2=0.999
    ),
]  # fmt: skip
WHOLE = {"optimize_1d": True}
MARS = [
    po("mars", {"eps_hat": True, "eps_root": 1e-15}, "MARS", WHOLE),
    po(
        "mars",
        {"lr": 0.1, **SUMS, "gamma": 0.3, "eps": 1e-3, "eps_hat": True, "eps_root": 1e-15,
         "weight_decay": 0.05},
        "MARS",
        {"lr": 0.1, **TWO, "gamma": 0.3, "eps": 1e-3, "weight_decay": 0.05, **WHOLE},
    ),
    po(
        "mars",
        {"lr": 0.1, "eps_hat": True, "eps_root": 1e-15, "maximize": True},
        "MARS",
        {"lr": 0.1, "maximize": True, **WHOLE},
    ),
    paper(
        "mars", {"lr": 0.1, "eps": 1e-2}, mars_0,
        lr=0.1, b1=0.95, b2=0.99, gamma=0.025, eps=1e-2, sizes=(9, 10),
    ),
    paper(
        "mars", {"lr": 0.1, "eps": 0.0}, mars_0,
        lr=0.1, b1=0.95, b2=0.99, gamma=0.025, eps=0.0, sizes=(9, 10),
    ),
]  # fmt: skip
FLOAT32 = "pytorch_optimizer keeps the sums of weights in float32; seen: 7e-7"
QHADAM = [
    paper("qhadam", {}, qhadam, lr=1e-3, b1=0.9, b2=0.999, nu1=1.0, nu2=1.0, eps=1e-8),
    paper(
        "qhadam",
        {"lr": 0.1, **SUMS, "nu1": 0.6, "nu2": 0.3, "eps": 1e-3},
        qhadam,
        lr=0.1, **SUMS, nu1=0.6, nu2=0.3, eps=1e-3,
    ),
    paper(
        "qhadam", {"lr": 0.1, "nu1": 0.6, "eps": 0.0}, dead(qhadam),
        lr=0.1, b1=0.9, b2=0.999, nu1=0.6, nu2=1.0, eps=0.0,
    ),
    po("qhadam", {}, "QHAdam", {}, bound=1e-5, why=FLOAT32),
    po(
        "qhadam",
        {"lr": 0.1, **SUMS, "nu1": 0.6, "nu2": 0.3, "weight_decay": 0.05},
        "QHAdam",
        {"lr": 0.1, **TWO, "nus": (0.6, 0.3), "weight_decay": 0.05},
        bound=1e-5,
        why=FLOAT32,
    ),
]  # fmt: skip
ADAMOD = [
    po("adamod", {"b2": 0.99, "b3": 0.9999}, "AdaMod", {}),
    po(
        "adamod",
        {"lr": 0.1, **SUMS, "b3": 0.8, "eps": 1e-3, "weight_decay": 0.05},
        "AdaMod",
        {"lr": 0.1, "betas": (0.7, 0.9, 0.8), "eps": 1e-3, "weight_decay": 0.05},
    ),
    paper(
        "adamod", {"lr": 0.1, "eps": 0.0}, adamod_0, lr=0.1, b1=0.9, b2=0.999, b3=0.999
    ),
]  # fmt: skip
DIFFGRAD = [
    po("diffgrad", {"eps_root": 1e-15}, "DiffGrad", {}),
    po(
        "diffgrad",
        {"lr": 0.1, **SUMS, "eps": 1e-3, "eps_root": 1e-15, "weight_decay": 0.05},
        "DiffGrad",
        {"lr": 0.1, **TWO, "eps": 1e-3, "weight_decay": 0.05, "weight_decouple": False},
    ),
    paper("diffgrad", {"lr": 0.1, "eps": 0.0}, diffgrad_0, lr=0.1, b1=0.9, b2=0.999),
]

ORACLES = [
    *NADAM, *RADAM, *ADABELIEF, *ADABOUND, *PADAM, *ACPROP, *ADOPT, *ADEMAMIX, *MADGRAD,
    *OPTIMISTIC, *MARS, *QHADAM, *ADAMOD, *DIFFGRAD,
]  # fmt: skip
ONE = "a factor of 1, which tells in torch alone"
EQUIVALENT = [
    ("adabound", "rate * xp.ones_like(root)", "rate / xp.ones_like(root)", ONE),
    ("adabound", "rate * xp.ones_like(root)", "rate", ONE),
    ("adamod", "rate * one", "rate / one", ONE),
    ("adamod", "rate * one", "rate", ONE),
    ("adopt", "v=xp.zeros_like", "v=xp.ones_like", "the first step overwrites it"),
    (
        "radam",
        "x, 5.0",
        "x, 4.6875",
        "any number above 4 does: the ratio is 1",
    ),
]
