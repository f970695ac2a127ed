"""Rules without a second moment: SGD's relatives, and those that take signs."""

import functools
import itertools

import numpy as np
import pytest
from oracle import (
    Oracle,
    deviation,
    keras_oracle,
    leaves,
    optax_oracle,
    run_torch,
    torch_oracle,
    words_of,
)

from arrayopt import Optimizer, rules


def torch_slots(cls, key, options, params, grads, jump=0):
    """What a torch optimizer holds under ``key`` after each step; the parameters for ""."""
    steps = itertools.count()

    def look(opt, tensors):
        held = {k: opt.state[p][key] if key else p for k, p in tensors.items()}
        if next(steps) == 0 and jump:
            for p in tensors.values():
                opt.state[p]["step"] += jump
        return held

    return run_torch(cls, options, params, grads, wide=True, look=look)


class Slot(Oracle):
    """What the rule holds in a slot, and not the parameters."""

    slot = "m"
    jump = 0  # steps that are left out after the first

    def error(self):
        opt = Optimizer(self.rule, **self.options)
        params, grads = self.problem()
        state, path = opt.init(params), []
        for g in grads:
            params, state = opt.step(params, g, state)
            path.append(leaves(self.held(opt, params, state)))
            state = state._replace(step=state.step + self.jump * (len(path) == 1))
        return deviation(np.stack(path), self._expected())

    def held(self, opt, params, state):
        return getattr(state.slots, self.slot)


class Averaged(Slot):
    """What the rule would evaluate with."""

    def held(self, opt, params, state):
        return opt.eval_params(params, state)


class Late(Averaged):
    """What the rule would evaluate with, about step 1,000,000."""

    jump = 999_990


class Layout(Oracle):
    """The names of the slots that ``init`` makes with these keywords."""

    def error(self):
        slots = rules.find(self.rule).init(np.zeros(2), **self.options, xp=np)._asdict()
        return float([k for k, s in slots.items() if not isinstance(s, tuple)] != self.theirs())


def layout(rule, names, **options):
    words = words_of(options)
    return Layout(rule, options, f"slots with {words}: {names or 'none'}", names.split)


def slot_oracle(kind, rule, ours, cls, key, theirs):
    words = words_of(theirs)
    against = f"{cls.replace(':', '.')}({words}), its {key}"
    return kind(rule, ours, against, functools.partial(torch_slots, cls, key, theirs), "dense")


def asgd_oracle(options, kind=Oracle):
    words = "".join(f", {k}={v!r}" for k, v in options.items())
    what = "" if kind is Oracle else ", its ax"
    key, jump = ("", 0) if kind is Oracle else ("ax", kind.jump)
    theirs = functools.partial(torch_slots, "ASGD", key, options, jump=jump)
    return kind("asgd", options, f"torch.optim.ASGD(float64{words}){what}", theirs)


def decayed(name, options, weight_decay, params, grads):
    """A class of torch.optim after p <- p - lr wd p, which it lacks itself."""

    def before(opt, tensors):
        for p in tensors.values():
            p.data.mul_(1 - options["lr"] * weight_decay)

    return run_torch(name, options, params, grads, before=before)


def rprop_moves(options, params, grads):
    """optax.rprop with its own moves, each in the step that made it and not in the next one."""
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
    with jax.enable_x64(True):
        transform = optax.scale_by_rprop(**options)
        params = {k: jax.numpy.array(p) for k, p in params.items()}
        state, path = transform.init(params), []
        for g in grads:
            _, state = transform.update({k: jax.numpy.array(x) for k, x in g.items()}, state)
            params = {k: p - state.prev_updates[k] for k, p in params.items()}
            path.append(leaves(params))
    return np.stack(path)


def rprop_oracle(ours, theirs):
    words = words_of(theirs)
    against = f"optax.rprop({words}), moves in its state"
    return Oracle("rprop", ours, against, functools.partial(rprop_moves, theirs))


SIGNS = "pytorch_optimizer:SignSGD"
TIGER = "pytorch_optimizer:Tiger"
LION = "pytorch_optimizer:Lion"
QHM = "pytorch_optimizer:QHM"
SIZES = {"eta_minus": 0.3, "eta_plus": 1.4, "min_step_size": 0.005, "max_step_size": 0.05}

ORACLES = [
    asgd_oracle({}),
    asgd_oracle({"lr": 0.1, "lambd": 0.7, "alpha": 0.6}),
    asgd_oracle({"lr": 0.1, "lambd": 0.7, "alpha": 0.6, "weight_decay": 0.05}),
    asgd_oracle({"lr": 0.1, "lambd": 0.7, "alpha": 0.6, "maximize": True}),
    asgd_oracle({}, Averaged),
    asgd_oracle({"lr": 0.1, "lambd": 0.7, "t0": 0}, Averaged),
    asgd_oracle({"lr": 0.1, "lambd": 0.7, "t0": 9.02}, Averaged),
    asgd_oracle({"lr": 0.1, "lambd": 0.0}, Late),
    torch_oracle(
        "asgd",
        {"lr": 0.1},
        "ASGD",
        {"lr": 0.1},
        bound=1e-7,
        why="torch rounds eta to float32, its default dtype",
    ),
    optax_oracle("signum", {"lr": 0.01}, "optax.signum(0.01)", lambda o: o.signum(0.01)),
    optax_oracle(
        "signum",
        {"lr": 0.02, "momentum": 0.4},
        "optax.signum(0.02, beta=0.4)",
        lambda o: o.signum(0.02, beta=0.4),
    ),
    optax_oracle(
        "signum",
        {"lr": 0.02, "momentum": 0},
        "optax.sign_sgd(0.02)",
        lambda o: o.sign_sgd(0.02),
    ),
    torch_oracle("signum", {}, SIGNS, {}),
    torch_oracle("signum", {"lr": 0.02, "momentum": 0.0}, SIGNS, {"lr": 0.02, "momentum": 0.0}),
    torch_oracle(
        "signum",
        {"lr": 0.02, "momentum": 0.5, "weight_decay": 0.4},
        SIGNS,
        {"lr": 0.02, "momentum": 0.5, "weight_decay": 0.4},
    ),
    torch_oracle(
        "signum",
        {"lr": 0.02, "weight_decay": 0.4, "decay": "coupled"},
        SIGNS,
        {"lr": 0.02, "weight_decay": 0.4, "weight_decouple": False},
    ),
    slot_oracle(Slot, "signum", {"momentum": 0.6}, SIGNS, "momentum_buffer", {"momentum": 0.6}),
    layout("signum", "", momentum=0),
    layout("signum", "", momentum=0.0),
    layout("signum", "m", momentum=0.9),
    optax_oracle(
        "optimistic_gradient_descent",
        {},
        "optax.optimistic_gradient_descent(0.001)",
        lambda o: o.optimistic_gradient_descent(0.001),
    ),
    optax_oracle(
        "optimistic_gradient_descent",
        {"lr": 0.1, "alpha": 0.7, "beta": 0.4},
        "optax.optimistic_gradient_descent(0.1, alpha=0.7, beta=0.4)",
        lambda o: o.optimistic_gradient_descent(0.1, alpha=0.7, beta=0.4),
    ),
    optax_oracle(
        "optimistic_gradient_descent",
        {"lr": 0.1, "weight_decay": 0.05},
        "optax.chain(scale_by_optimistic_gradient(), add_decayed_weights(0.05), scale(-0.1))",
        lambda o: o.chain(
            o.scale_by_optimistic_gradient(), o.add_decayed_weights(0.05), o.scale(-0.1)
        ),
    ),
    torch_oracle("rprop", {}, "Rprop", {}),
    torch_oracle(
        "rprop",
        {"lr": 0.02, **SIZES},
        "Rprop",
        {"lr": 0.02, "etas": (0.3, 1.4), "step_sizes": (0.005, 0.05)},
    ),
    torch_oracle("rprop", {"lr": 1.5e-6}, "Rprop", {"lr": 1.5e-6}),
    torch_oracle("rprop", {"lr": 90.0}, "Rprop", {"lr": 90.0}),
    Oracle(
        "rprop",
        {"lr": 0.02, "weight_decay": 0.5},
        "torch.optim.Rprop(lr=0.02) after p - 0.02 * 0.5 p",
        functools.partial(decayed, "Rprop", {"lr": 0.02}, 0.5),
    ),
    rprop_oracle({"lr": 0.02}, {"learning_rate": 0.02}),
    rprop_oracle({"lr": 0.02, **SIZES}, {"learning_rate": 0.02, **SIZES}),
    torch_oracle("qhm", {}, QHM, {"momentum": 0.999, "nu": 0.7}),
    torch_oracle("qhm", {"momentum": 0.0, "nu": 1.0}, QHM, {}),
    torch_oracle(
        "qhm",
        {"lr": 0.1, "momentum": 0.8, "nu": 0.4, "weight_decay": 0.05},
        QHM,
        {"lr": 0.1, "momentum": 0.8, "nu": 0.4, "weight_decay": 0.05},
    ),
    torch_oracle(
        "qhm",
        {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.05, "decay": "decoupled"},
        QHM,
        {"lr": 0.1, "momentum": 0.8, "nu": 0.7, "weight_decay": 0.05, "weight_decouple": True},
    ),
    torch_oracle(
        "qhm",
        {"lr": 0.5, "momentum": 0.8, "nu": 0.8},
        "SGD",
        {"lr": 0.1, "momentum": 0.8, "nesterov": True},
    ),
    torch_oracle("tiger", {}, TIGER, {"weight_decay": 0.0}),
    torch_oracle(
        "tiger",
        {"lr": 0.02, "b1": 0.5, "weight_decay": 0.4},
        TIGER,
        {"lr": 0.02, "beta": 0.5, "weight_decay": 0.4},
    ),
    torch_oracle(
        "tiger",
        {"lr": 0.02, "weight_decay": 0.01, "decay": "independent"},
        TIGER,
        {"lr": 0.02, "weight_decay": 0.01, "fixed_decay": True},
    ),
    slot_oracle(Slot, "tiger", {"b1": 0.6}, TIGER, "exp_avg", {"beta": 0.6, "weight_decay": 0.0}),
    optax_oracle(
        "lion",
        {"weight_decay": 1e-3},
        "optax.lion(0.0001)",
        lambda o: o.lion(1e-4),
    ),
    optax_oracle(
        "lion",
        {"lr": 0.02, "b1": 0.5, "b2": 0.8, "weight_decay": 0.4},
        "optax.lion(0.02, b1=0.5, b2=0.8, weight_decay=0.4)",
        lambda o: o.lion(0.02, b1=0.5, b2=0.8, weight_decay=0.4),
    ),
    keras_oracle("lion", {"lr": 1e-3}, "Lion", {}),
    keras_oracle(
        "lion",
        {"lr": 0.02, "b1": 0.8, "b2": 0.6, "weight_decay": 0.4},
        "Lion",
        {"learning_rate": 0.02, "beta_1": 0.8, "beta_2": 0.6, "weight_decay": 0.4},
    ),
    torch_oracle("lion", {}, LION, {}),
    torch_oracle(
        "lion",
        {"lr": 0.02, "b1": 0.5, "b2": 0.8, "weight_decay": 0.4, "decay": "coupled"},
        LION,
        {"lr": 0.02, "betas": (0.5, 0.8), "weight_decay": 0.4, "weight_decouple": False},
    ),
]

EQUIVALENT = [
    ("asgd", "t - 1 - t0 > 1", "t - 1 - t0 >= 1", "1 or 1.0"),
    ("optimistic_gradient_descent", "zeros_like(param)", "ones_like(param)", "not read at t = 1"),
    ("rprop", "same > 0,", "same > 0.0625,", "same is -1, 0 or 1"),
]
