"""Rules whose step takes norms of each parameter."""

import functools

import numpy as np
import pytest
from oracle import Oracle, frozen, keras_oracle, leaves, optax_oracle, problem, run_torch, words_of
from oracles_sgd import Layout

RATES = [0.1, 0.3, 0.0, *(0.2 / k for k in range(1, 28))]


def rates(k):
    """A schedule of whole numbers of steps, for us, and for optax in a trace."""
    if isinstance(k, int):
        return RATES[k]
    return pytest.importorskip("jax").numpy.asarray(RATES)[k]


class Zero(Oracle):
    """One parameter starts at 0, and no gradient is 0."""

    def problem(self):
        params, grads = problem(self.steps, "dense")
        return params | {"b": frozen(np.zeros(9))}, grads


class Late(Oracle):
    """No gradient at all in the first step, and none is 0 later."""

    def problem(self):
        params, grads = problem(self.steps, "dense")
        return params, [{k: frozen(np.zeros_like(p)) for k, p in params.items()}, *grads[1:]]


def rows(run, params, grads):
    """With every parameter as a matrix: LARS of pytorch_optimizer leaves the others alone."""
    flat = [{k: x.reshape(1, -1) for k, x in tree.items()} for tree in (params, *grads)]
    return run(flat[0], flat[1:])


def torch_rows(cls, options, params, grads):
    """A class of pytorch_optimizer, or what a function makes of the package."""
    made = cls(pytest.importorskip("pytorch_optimizer")) if callable(cls) else cls
    made = f"pytorch_optimizer:{made}" if isinstance(made, str) else made
    return rows(functools.partial(run_torch, made, options), params, grads)


def pytorch_oracle(rule, ours, cls, theirs, kind=Oracle, **more):
    name = more.pop("name", cls)
    words = words_of(theirs)
    run = functools.partial(torch_rows, cls, theirs)
    return kind(rule, ours, f"pytorch_optimizer.{name}({words})", run, **more)


def optax_like(rule, ours, name, lr, against="", kind=Oracle, more=None, **theirs):
    """Beside ``optax.<name>(lr, **theirs)``, and ``more(optax, ...)`` after it."""
    words = ", ".join(
        [str(lr) if lr is not rates else "schedule", *(f"{k}={v!r}" for k, v in theirs.items())]
    )

    def make(optax):
        made = getattr(optax, name)(lr, **theirs)
        return optax.chain(made, more(optax)) if more else made

    found = optax_oracle(rule, {"lr": lr} | ours, f"optax.{name}({words}){against}", make)
    return kind(*found)


def decaying(package):
    """StableAdamW with a decay of 0.03 before each step."""

    class Decaying(package.StableAdamW):
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data.mul_(0.97)
            super().step()

    return Decaying


def bounded(package):
    """Lamb with a tighter bound of the norm."""
    return type("Lamb", (package.Lamb,), {"clamp": 0.5})


lars = functools.partial(optax_like, "lars", name="lars")
lamb = functools.partial(optax_like, "lamb", name="lamb")
fromage = functools.partial(optax_like, "fromage", name="fromage")
NOVOGRAD = {"b1": 0.9, "b2": 0.25, "eps": 1e-6}


def novograd(ours, lr=0.1, **theirs):
    return optax_like("novograd", NOVOGRAD | ours, "novograd", lr, **theirs)


def stable(ours, theirs, cls="StableAdamW", **more):
    ours = {"inner_decay": 0.01} | ours if "weight_decay" not in ours else ours
    return pytorch_oracle("stableadamw", ours, cls, theirs, **more)


def corrected(k):
    """A rate of 0.03 without Adam's first correction."""
    return 0.03 / (1 - 0.9 ** (k + 1))


def decays(factor):
    return lambda optax: optax.add_decayed_weights(-factor)


def nowhere(params, grads):
    """Nothing moves."""
    return np.stack([leaves(params)] * len(grads))


SHRINK = 1 / (1 + 0.1**2) ** 0.5
ORACLES = [
    lars({}, lr=0.1),
    lars({"trust_coefficient": 0.5}, lr=0.1, trust_coefficient=0.5),
    lars({"trust_coefficient": 0.5}, lr=rates, trust_coefficient=0.5),
    lars(
        {"trust_coefficient": 0.5, "momentum": 0.6, "nesterov": True, "eps": 30.0},
        lr=0.1,
        trust_coefficient=0.5,
        momentum=0.6,
        nesterov=True,
        eps=30.0,
    ),
    lars(
        {"trust_coefficient": 0.5, "weight_decay": 30.0},
        lr=0.1,
        trust_coefficient=0.5,
        weight_decay=30.0,
    ),
    lars(
        {"trust_coefficient": 0.5, "momentum": 0.0},
        lr=0.1,
        trust_coefficient=0.5,
        momentum=0.0,
    ),
    lars({"trust_coefficient": 0.5}, lr=1e-3, kind=Zero, trust_coefficient=0.5),
    pytorch_oracle("lars", {}, "LARS", {}),
    pytorch_oracle(
        "lars",
        {"lr": 0.1, "trust_coefficient": 0.5, "dampening": 0.4, "inner_decay": 30.0},
        "LARS",
        {"lr": 0.1, "trust_coefficient": 0.5, "dampening": 0.4, "weight_decay": 30.0},
        kind=Oracle,
    ),
    pytorch_oracle(
        "lars",
        {"lr": 0.1, "trust_coefficient": 0.5, "dampening": 0.4, "nesterov": True, "momentum": 0.7},
        "LARS",
        {"lr": 0.1, "trust_coefficient": 0.5, "dampening": 0.4, "nesterov": True, "momentum": 0.7},
    ),
    pytorch_oracle(
        "lars",
        {"lr": 0.1, "trust_coefficient": 0.5, "momentum": 0, "inner_decay": 30.0},
        "LARS",
        {"lr": 0.1, "trust_coefficient": 0.5, "momentum": 0.0, "weight_decay": 30.0},
    ),
    Layout("lars", {"momentum": 0.0}, "no slot without momentum", list),
    Layout("lars", {"momentum": 0}, "no slot without momentum, an int", list),
    lamb({}, lr=0.1),
    lamb({}, lr=1e-3),
    lamb({"b1": 0.6, "b2": 0.8, "eps": 0.02}, lr=0.1, b1=0.6, b2=0.8, eps=0.02),
    lamb({"eps_root": 1e-3}, lr=0.1, eps_root=1e-3),
    lamb({"inner_decay": 0.7}, lr=0.1, weight_decay=0.7),
    lamb({"eps": 0.0}, lr=0.1, eps=1e-300),
    lamb({"eps": 0.0}, lr=0.1, kind=Late, eps=1e-300),
    lamb({}, lr=rates),
    lamb({}, lr=1e-3, kind=Zero),
    lamb({"weight_decay": 0.3}, lr=0.1, against=", then p -= 0.03 p", more=decays(0.03)),
    keras_oracle("lamb", {"eps": 1e-7}, "Lamb", {}),
    keras_oracle(
        "lamb",
        {"lr": 0.1, "b1": 0.6, "b2": 0.8, "eps": 0.02},
        "Lamb",
        {"learning_rate": 0.1, "beta_1": 0.6, "beta_2": 0.8, "epsilon": 0.02},
    ),
    pytorch_oracle(
        "lamb",
        {"lr": 0.1, "eps": 0.0, "bias_correction": False, "max_norm": 10.0, "inner_decay": 0.7},
        "Lamb",
        {"lr": 0.1, "eps": 0.0, "adam_debias": True, "weight_decay": 0.7, "weight_decouple": False},
        kind=Oracle,
    )._replace(kind="dense"),
    pytorch_oracle(
        "lamb",
        {"lr": corrected, "eps": 0.0, "bias_correction": False, "max_norm": 0.5},
        bounded,
        {"lr": 0.03, "eps": 0.0},
        name="Lamb, with clamp=0.5, ",
    )._replace(kind="dense"),
    fromage({}, lr=0.01),
    fromage({"min_norm": 0.5}, lr=0.1, min_norm=0.5),
    fromage({"min_norm": 0.0}, lr=0.1, min_norm=0.0),
    fromage({}, lr=rates),
    fromage({}, lr=1e-3, kind=Zero),
    fromage(
        {"weight_decay": 0.3},
        lr=0.1,
        against=", then p -= 0.03 p / sqrt(1.01)",
        more=decays(0.03 * SHRINK),
    ),
    pytorch_oracle("fromage", {"min_norm": 0.0}, "Fromage", {}),
    pytorch_oracle("fromage", {"min_norm": 0.0}, "Fromage", {}, kind=Zero),
    pytorch_oracle(
        "fromage",
        {"min_norm": 0.0, "lr": 0.1, "p_bound": 1.02},
        "Fromage",
        {"lr": 0.1, "p_bound": 1.02},
    ),
    pytorch_oracle(
        "fromage",
        {"min_norm": 0.0, "lr": 0.1, "p_bound": 0.5},
        "Fromage",
        {"lr": 0.1, "p_bound": 0.5},
    ),
    Oracle("fromage", {"lr": 0.0, "p_bound": 0.5}, "what does not move", nowhere),
    novograd({}),
    novograd({"b1": 0.6, "b2": 0.8, "eps": 0.02}, b1=0.6, b2=0.8, eps=0.02),
    novograd({"eps_root": 1e-3}, eps_root=1e-3),
    novograd({"eps": 0.0}, eps=1e-300),
    novograd({"eps": 0.0}, eps=1e-300, kind=Late),
    novograd({"inner_decay": 0.7}, weight_decay=0.7),
    novograd({}, lr=rates),
    pytorch_oracle("novograd", {}, "NovoGrad", {}),
    pytorch_oracle(
        "novograd",
        {"lr": 0.1, "grad_averaging": True, "inner_decay": 0.7},
        "NovoGrad",
        {"lr": 0.1, "grad_averaging": True, "weight_decay": 0.7},
    ),
    pytorch_oracle(
        "novograd",
        {"lr": 0.1, "weight_decay": 0.7},
        "NovoGrad",
        {"lr": 0.1, "weight_decay": 0.7, "weight_decouple": True},
    ),
    stable({}, {}),
    stable(
        {"lr": 0.1, "weight_decay": 0.3},
        {"lr": 0.1, "weight_decay": 0.0},
        cls=decaying,
        name="StableAdamW, after p *= 0.97, ",
    ),
    stable({"lr": 0.1, "b1": 0.6, "b2": 0.8}, {"lr": 0.1, "betas": (0.6, 0.8)}),
    stable({"lr": 0.1, "eps": 0.3}, {"lr": 0.1, "eps": 0.3}),
    stable({"lr": 0.1, "eps": 0.0}, {"lr": 0.1, "eps": 1e-150}),
    stable(
        {"lr": 0.1, "inner_decay": 0.7, "b2": 0.5},
        {"lr": 0.1, "weight_decay": 0.7, "betas": (0.9, 0.5)},
    ),
    stable(
        {"lr": 0.1, "weight_decay": 0.7, "decay": "coupled"},
        {"lr": 0.1, "weight_decay": 0.7, "weight_decouple": False},
    ),
]
FIRST = "at t = 1 nothing reads it"
EQUIVALENT = [
    ("fromage", "norm > state.top", "norm >= state.top", "norm / norm is 1"),
    ("novograd", "scalar(0.0,", "scalar(0.0625,", FIRST),
    ("novograd", "m=xp.zeros_like", "m=xp.ones_like", FIRST),
    ("stableadamw", "m=xp.zeros_like", "m=xp.ones_like", FIRST),
    ("stableadamw", "v=xp.zeros_like", "v=xp.ones_like", FIRST),
]
