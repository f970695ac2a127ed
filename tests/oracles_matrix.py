"""Rules that look at a parameter's rows, columns and axes, beside the frameworks'."""

import functools
import importlib
import math
import types
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest
from oracle import (
    Oracle,
    Path,
    Problem,
    Tree,
    keras_oracle,
    leaves,
    optax_oracle,
    run_keras,
    run_optax,
    run_torch,
    torch_oracle,
    words_of,
)
from oracles_sgd import Slot, layout


def alone(
    run: Callable[..., Path],
    fits: Callable[[np.ndarray], bool],
    rest: Callable[..., Path],
    params: Tree,
    grads: Sequence[Tree],
) -> Path:
    """A framework's run of the parameters that fit, and ``rest``'s of the others."""
    paths = {}
    for runs, chosen in ((run, True), (rest, False)):
        names = [k for k in sorted(params) if fits(params[k]) is chosen]
        path = runs({k: params[k] for k in names}, [{k: g[k] for k in names} for g in grads])
        ends = np.cumsum([params[k].size for k in names])[:-1]
        paths |= dict(zip(names, np.split(path, ends, axis=1), strict=True))
    return np.concatenate([paths[k] for k in sorted(params)], axis=1)


def flattened(run: Callable[..., Path], layout: str, params: Tree, grads: Sequence[Tree]) -> Path:
    """With every parameter as a matrix."""

    def flat(tree: Tree) -> Tree:
        shape = {"out_in": lambda x: (len(x), -1), "in_out": lambda x: (-1, x.shape[-1])}[layout]
        return {k: x.reshape(shape(x)) for k, x in tree.items()}

    return run(flat(params), [flat(g) for g in grads])


def averaged(ours: dict[str, Any], params: Tree, grads: Sequence[Tree]) -> Path:
    """Muon of what is no matrix: descent along a running mean of the gradient, and no more."""
    b, p, m, path = ours.get("momentum", 0.95), leaves(params), 0.0, []
    for t, g in enumerate(map(leaves, grads), 1):
        m = b * m + (1 - b) * g
        old, new = (1 - b**t, 1 - b ** (t + 1)) if ours.get("bias_correction") else (1.0, 1.0)
        nesterov = ours.get("nesterov", True)
        p = p * (1 - ours.get("lr", 1e-3) * ours.get("weight_decay", 0.0))
        p = p - ours.get("lr", 1e-3) * (b * m / new + (1 - b) * g / old if nesterov else m / old)
        path.append(p)
    return np.stack(path)


def wide_muon(options: dict[str, Any], params: Tree, grads: Sequence[Tree]) -> Path:
    """torch's Muon, where it goes down to bfloat16 kept from doing so."""
    torch = pytest.importorskip("torch")
    with mock.patch.object(torch.Tensor, "bfloat16", lambda x: x.clone()):
        return run_torch("Muon", {"weight_decay": 0.0} | options, params, grads)


def muon(ours: dict[str, Any], against: str, run: Callable[..., Path], **more: Any) -> Oracle:
    """Muon beside a framework's, which takes the matrices; the vectors by hand."""
    run = functools.partial(flattened, run, ours.get("layout", "out_in"))
    vectors = functools.partial(averaged, ours)
    theirs = functools.partial(alone, run, lambda p: p.ndim > 1, vectors)
    return Oracle("muon", ours, against, theirs, **{"kind": "tensors", **more})


def torch_muon(ours: dict[str, Any], theirs: dict[str, Any]) -> Oracle:
    words = "".join(f"{k}={v!r}, " for k, v in theirs.items())
    run = functools.partial(wide_muon, theirs)
    return muon(ours, f"torch.optim.Muon({words}in float64)", run)


def jitted(transform: Any) -> Any:
    """Compiled once instead of in every step."""
    return transform._replace(update=importlib.import_module("jax").jit(transform.update))


def optax_muon(ours: dict[str, Any], lr: float = 1e-3, **theirs: Any) -> Oracle:
    words = words_of({"learning_rate": lr} | theirs)
    ours = {"layout": "in_out", "eps_in_max": False, "eps": 1e-8, "lr": lr, **ours}
    run = functools.partial(run_optax, lambda optax: jitted(optax.contrib.muon(lr, **theirs)))
    bias = {"bias_correction": True}
    return muon(ours | bias, f"optax.contrib.muon({words})", run)


def keras_muon(ours: dict[str, Any], **theirs: Any) -> Oracle:
    words = "".join(f"{k}={v!r}, " for k, v in theirs.items()).removesuffix(", ")
    eps = (1 - ours.get("momentum", 0.95)) * 1e-7  # their m is a sum, ours a mean
    run = functools.partial(run_keras, "Muon", {"weight_decay": 0.0} | theirs)
    base = {"adjust_lr": "match_rms_adamw", "eps_in_max": False, "eps": eps}
    return muon(base | ours, f"keras.optimizers.Muon({words})", run)


class Tiny(Oracle):
    """Gradients beside whose squares 1e-30 counts, and parameters beside which 1e-3 is large."""

    def problem(self) -> Problem:
        params, grads = super().problem()
        return {k: 1e-4 * p for k, p in params.items()}, [
            {k: 1e-14 * x for k, x in g.items()} for g in grads
        ]


class Dead(Oracle):
    """A matrix and a row of another that never see a gradient: they stay, and have no part."""

    def problem(self) -> Problem:
        params, grads = super().problem()
        row = {"v": np.zeros((3, 1)), "w": np.ones((5, 1)) - np.eye(5, 1)}
        return {k: params[k] for k in row}, [{k: row[k] * g[k] for k in row} for g in grads]


class Still(Oracle):
    """A matrix that never sees a gradient, beside one that does."""

    def problem(self) -> Problem:
        params, grads = super().problem()
        return {k: params[k] for k in "vw"}, [{"v": 0 * g["v"], "w": g["w"]} for g in grads]


def alive(run: Callable[..., Path], first: int, params: Tree, grads: Sequence[Tree]) -> Path:
    """A framework's run of w from some row on; all else stays."""
    path = run({"w": params["w"][first:]}, [{"w": g["w"][first:]} for g in grads])
    still = np.concatenate([params["v"].ravel(), params["w"][:first].ravel()])
    return np.concatenate([np.tile(still, (len(path), 1)), path], axis=1)


MUON = [
    Tiny(*torch_muon({}, {})),
    Still(
        "muon",
        {"eps": 0.0},
        "torch.optim.Muon(eps=0.0, in float64), and nothing where no gradient is",
        functools.partial(alive, functools.partial(wide_muon, {"eps": 0.0}), 0),
        kind="tensors",
    ),
    torch_muon({}, {}),
    torch_muon(
        {"lr": 0.1, "nesterov": False, "momentum": 0.6, "weight_decay": 0.07},
        {"lr": 0.1, "nesterov": False, "momentum": 0.6, "weight_decay": 0.07},
    ),
    torch_muon({"adjust_lr": "match_rms_adamw"}, {"adjust_lr_fn": "match_rms_adamw"}),
    torch_muon({"eps": 3.0, "ns_steps": 3}, {"eps": 3.0, "ns_steps": 3}),
    torch_muon({"ns_a": 1.9, "ns_b": -1.3, "ns_c": 0.4}, {"ns_coefficients": (1.9, -1.3, 0.4)}),
    optax_muon({}),
    optax_muon({"nesterov": False, "momentum": 0.6}, nesterov=False, beta=0.6),
    optax_muon({"adjust_lr": "match_rms_adamw", "eps": 0.5}, 0.02, consistent_rms=0.2, eps=0.5),
    keras_muon({}),
    keras_muon(
        {"adjust_lr": "none", "nesterov": False, "lr": 0.1},
        rms_rate=None,
        nesterov=False,
        learning_rate=0.1,
    ),
    muon(
        {},
        "torch.optim.Muon()",
        functools.partial(run_torch, "Muon", {"weight_decay": 0.0}),
        bound=0.03,
        why="torch iterates in bfloat16",
    ),
]


# Adafactor


def optax_adafactor(
    ours: dict[str, Any],
    min_size: int = 128,
    decay_rate: float = 0.8,
    momentum: float = 0.0,
    **more: Any,
) -> Oracle:
    """optax.adafactor's chain with all its parts; its exponent of t is not in float32 here."""
    o = {"lr": 0.1, "clip_threshold": 1.0, "eps1": 1e-30, "scale_parameter": True} | ours

    def make(optax: Any) -> Any:
        parts = [
            optax.scale_by_factored_rms(
                True, decay_rate, 0, min_size, o["eps1"], lambda i, c: 1.0 - (i + 1.0) ** -c
            ),
            optax.clip_by_block_rms(o["clip_threshold"]),
            optax.scale(o["lr"]),
            optax.scale_by_param_block_rms() if o["scale_parameter"] else optax.identity(),
            optax.ema(momentum, debias=False) if momentum else optax.identity(),
            optax.scale(-1),
        ]
        return jitted(optax.chain(*parts))

    known = {"learning_rate": o["lr"], "decay_rate": decay_rate, "momentum": momentum or None}
    known |= {"min_dim_size_to_factor": min_size, "clipping_threshold": o["clip_threshold"]}
    known |= {"eps": o["eps1"], "multiply_by_parameter_scale": o["scale_parameter"]}
    words = words_of(known)
    o |= {"relative_step": False, "axes": "largest", "min_size": min_size}
    o |= {"decay_rate": decay_rate, "b1": momentum}
    return optax_oracle("adafactor", o, f"optax.adafactor({words}) in float64", make, **more)


def pytorch_adafactor(ours: dict[str, Any], theirs: dict[str, Any], **more: Any) -> Oracle:
    torch = pytest.importorskip("torch")
    theirs = {"momentum_dtype": torch.float64} | theirs
    return torch_oracle("adafactor", ours, "pytorch_optimizer:AdaFactor", theirs, **more)


WITHOUT_EPS = optax_adafactor(
    {"eps1": 0.0, "clip_threshold": math.inf, "scale_parameter": False}, 1, kind="tensors"
)
ADAFACTOR = [
    torch_oracle("adafactor", {"eps1": None, "eps_in_max": True}, "Adafactor", {}, kind="tensors"),
    torch_oracle("adafactor", {"eps1": None, "eps_in_max": True}, "Adafactor", {}, kind="matrices"),
    torch_oracle(
        "adafactor",
        {
            "lr": 0.5,
            "eps1": 0.9,
            "eps2": 0.2,
            "eps_in_max": True,
            "decay_rate": 0.5,
            "clip_threshold": 1.3,
        },
        "Adafactor",
        {"lr": 0.5, "eps": (0.9, 0.2), "beta2_decay": -0.5, "d": 1.3},
        kind="tensors",
    ),
    torch_oracle("adafactor", {"eps1": None, "eps_in_max": True}, "Adafactor", {}),
    keras_oracle("adafactor", {"lr": 1e-3}, "Adafactor", {}, kind="matrices", steps=60),
    keras_oracle("adafactor", {"lr": 1e-3}, "Adafactor", {}),
    Tiny(*keras_oracle("adafactor", {"lr": 1e-3}, "Adafactor", {}, kind="tensors")),
    keras_oracle(
        "adafactor", {"lr": 1e-3, "eps1": 30.0}, "Adafactor", {"epsilon_1": 30.0}, kind="tensors"
    ),
    Dead(*WITHOUT_EPS._replace(theirs=functools.partial(alive, WITHOUT_EPS.theirs, 1))),
    layout("adafactor", "v", b1=0, axes="last", min_size=1),
    layout("adafactor", "v", b1=0.0, axes="last", min_size=1),
    layout("adafactor", "v m", b1=0.9, axes="last", min_size=1),
    keras_oracle(
        "adafactor",
        {
            "lr": 0.3,
            "decay_rate": 0.6,
            "eps1": 0.1,
            "eps2": 0.05,
            "clip_threshold": 0.8,
            "weight_decay": 0.07,
        },
        "Adafactor",
        {
            "learning_rate": 0.3,
            "beta_2_decay": -0.6,
            "epsilon_1": 0.1,
            "epsilon_2": 0.05,
            "clip_threshold": 0.8,
            "weight_decay": 0.07,
        },
        kind="tensors",
    ),
    optax_adafactor({}, kind="tensors"),
    optax_adafactor({}, 3, kind="tensors"),
    optax_adafactor({"clip_threshold": 0.7, "scale_parameter": False}, 4, 0.6, 0.8, kind="tensors"),
    optax_oracle(
        "adafactor",
        {"relative_step": False, "axes": "largest", "min_size": 3},
        "optax.adafactor(0.01, min_dim_size_to_factor=3)",
        lambda optax: jitted(optax.adafactor(0.01, min_dim_size_to_factor=3)),
        kind="tensors",
        bound=1e-6,
        why="optax computes the decay of v in float32",
    ),
    pytorch_adafactor({"b1": 0.9, "b2_max": 0.999}, {}, kind="tensors"),
    pytorch_adafactor(
        {
            "b1": 0.7,
            "b2_max": 0.8,
            "lr": 0.5,
            "relative_step": False,
            "scale_parameter": False,
            "clip_threshold": 0.9,
        },
        {
            "betas": (0.7, 0.8),
            "lr": 0.5,
            "relative_step": False,
            "scale_parameter": False,
            "clip_threshold": 0.9,
        },
        kind="tensors",
    ),
]


# SM3


class Vectors(Oracle):
    """What is no scalar, of which optax's SM3 knows nothing."""

    def problem(self) -> Problem:
        params, grads = super().problem()
        names = [k for k in params if params[k].ndim]
        return {k: params[k] for k in names}, [{k: g[k] for k in names} for g in grads]


SM3 = [
    layout("sm3", "mu", momentum=0),
    layout("sm3", "mu", momentum=0.0),
    layout("sm3", "mu m", momentum=0.9),
    Tiny(*torch_oracle("sm3", {"momentum": 0.0}, "pytorch_optimizer:SM3", {}, kind="tensors")),
    Vectors(
        *optax_oracle(
            "sm3",
            {"eps": 0.0},
            "optax.scale_by_sm3(0.9, 1.0, 0.0)",
            lambda optax: optax.chain(optax.scale_by_sm3(0.9, 1.0, 0.0), optax.scale(-0.1)),
        )
    ),
    optax_oracle(
        "sm3",
        {"lr": 0.1, "eps": 1e-8},
        "optax.sm3(0.1)",
        lambda optax: optax.sm3(0.1),
        kind="matrices",
    ),
    optax_oracle(
        "sm3",
        {"lr": 0.1, "eps": 0.2, "momentum": 0.6, "b2": 0.8, "weight_decay": 0.07},
        "optax.scale_by_sm3(0.6, 0.8, 0.2), optax.add_decayed_weights(0.07)",
        lambda optax: optax.chain(
            optax.scale_by_sm3(0.6, 0.8, 0.2), optax.add_decayed_weights(0.07), optax.scale(-0.1)
        ),
        kind="matrices",
    ),
    torch_oracle("sm3", {"momentum": 0.0}, "pytorch_optimizer:SM3", {}),
    torch_oracle("sm3", {"momentum": 0.0}, "pytorch_optimizer:SM3", {}, kind="tensors"),
    torch_oracle(
        "sm3",
        {"momentum": 0.5, "b2": 0.3, "monotone": True, "lr": 0.2, "eps": 0.1},
        "pytorch_optimizer:SM3",
        {"momentum": 0.5, "beta": 0.3, "lr": 0.2, "eps": 0.1},
        kind="matrices",
    ),
]


# Shampoo


def shampoo(options: dict[str, Any], params: Tree, grads: Sequence[Tree]) -> Path:
    """The paper's Algorithm 2, its roots by singular values, with all that ours adds to it."""
    known = {"lr": 1e-3, "momentum": 0.0, "b2": 1.0, "eps": 1e-6, "interval": 1, "max_size": 1000}
    o = types.SimpleNamespace(**known | {"weight_decay": 0.0} | options)
    params, H, R, m = dict(params), {}, {}, dict.fromkeys(params, 0.0)
    path = []
    for t, gs in enumerate(grads, 1):
        for k, g in gs.items():
            d = g = np.atleast_1d(g + o.weight_decay * params[k])
            for i, size in enumerate(g.shape):
                rows = np.moveaxis(g, i, 0).reshape(size, -1)
                new = rows @ rows.T if size <= o.max_size else np.diag(np.sum(rows**2, axis=1))
                new = new if o.b2 == 1 else (1 - o.b2) * new
                H[k, i] = o.b2 * H[k, i] + new if t > 1 else new
                if (t - 1) % o.interval == 0:
                    u, s, v = np.linalg.svd(H[k, i] + o.eps * np.eye(size))
                    R[k, i] = u @ np.diag(s ** (-0.5 / g.ndim)) @ v
                d = np.apply_along_axis(R[k, i].dot, i, d)
            m[k] = o.momentum * m[k] + d.reshape(gs[k].shape)
            params[k] = params[k] - o.lr * m[k]
        path.append(leaves(params))
    return np.stack(path)


def shampoo_oracle(**options: Any) -> Oracle:
    words = words_of(options)
    theirs = functools.partial(shampoo, options)
    return Oracle("shampoo", options, f"the paper's Algorithm 2, {words}", theirs, kind="tensors")


def pytorch_shampoo(ours: dict[str, Any], theirs: dict[str, Any]) -> Oracle:
    """pytorch_optimizer's; a scalar, which it does not precondition, by hand."""
    words = words_of(theirs)
    runs = functools.partial(run_torch, "pytorch_optimizer:Shampoo", theirs)
    against = f"pytorch_optimizer.Shampoo({words})"
    run = functools.partial(alone, runs, lambda p: p.ndim > 0, functools.partial(shampoo, ours))
    return Oracle("shampoo", ours, against, run, kind="tensors")


SHAMPOO = [
    pytorch_shampoo({}, {}),
    pytorch_shampoo({"lr": 0.1, "eps": 0.5}, {"lr": 0.1, "matrix_eps": 0.5}),
    pytorch_shampoo(
        {"lr": 0.1, "eps": 0.1, "weight_decay": 0.07},
        {"lr": 0.1, "matrix_eps": 0.1, "weight_decay": 0.07},
    ),
    shampoo_oracle(momentum=0.8, b2=0.9, lr=0.1, eps=0.1),
    shampoo_oracle(interval=4, eps=0.3),
    shampoo_oracle(max_size=3, eps=0.3),
    layout("shampoo", "h root", momentum=0, max_size=9.0),
    layout("shampoo", "h root", momentum=0.0, max_size=9.0),
    layout("shampoo", "h root m", momentum=0.9, max_size=9.0),
]


# SOAP


class Wide:
    """torch, with float64 where it says float32."""

    def __getattr__(self, name: str) -> Any:
        torch = importlib.import_module("torch")
        return torch.float64 if name == "float32" else getattr(torch, name)


def wide_soap(decay: float, options: dict[str, Any], params: Tree, grads: Sequence[Tree]) -> Path:
    """pytorch_optimizer's SOAP, kept from its qr in float32; decay comes before every step."""
    torch = pytest.importorskip("torch")
    soap = pytest.importorskip("pytorch_optimizer.optimizer.soap")
    options = {"lr": 3e-3, "weight_decay": 0.0} | options

    class Decayed(soap.SOAP):
        def step(self, closure: Any = None) -> Any:
            with torch.no_grad():
                for p in self.param_groups[0]["params"]:
                    p.mul_(1 - options["lr"] * decay)
            return super().step(closure)

    with mock.patch.object(soap, "torch", Wide()):
        return run_torch(Decayed, options, params, grads)


class Short(Oracle):
    """Vectors of two elements: a first gradient leaves a longer one's eigenbasis open."""

    def problem(self) -> Problem:
        params, grads = super().problem()
        return {"b": params["b"][:2]}, [{"b": g["b"][:2]} for g in grads]


def soap(ours: dict[str, Any], cls: Any = Oracle, **theirs: Any) -> Oracle:
    words = "".join(f"{k}={v!r}, " for k, v in theirs.items())
    decay = ours.get("weight_decay", 0.0)
    words += f"decay {decay} before the step, " * bool(decay)
    run = functools.partial(wide_soap, decay, theirs)
    return cls("soap", ours, f"pytorch_optimizer.SOAP({words}in float64)", run, kind="tensors")


class Products(Slot):
    """The running means of products."""

    slot = "h"


def products(params: Tree, grads: Sequence[Tree]) -> Path:
    """SOAP's L and R, of a tensor those of all its axes, after each step."""
    means: dict[tuple[str, int], Any] = {}
    path = []
    for gs in grads:
        for k in sorted(gs):
            for i in range(gs[k].ndim if gs[k].ndim > 1 else 0):
                rows = np.moveaxis(gs[k], i, 0).reshape(gs[k].shape[i], -1)
                means[k, i] = 0.95 * means.get((k, i), 0.0) + 0.05 * rows @ rows.T
        path.append(np.concatenate([means[x].ravel() for x in sorted(means)]))
    return np.stack(path)


def late_adam(params: Tree, grads: Sequence[Tree]) -> Path:
    """SOAP of vectors, without eps: Adam from the second step on; still where no gradient was."""
    p, m, v, path = leaves(params), 0.0, 0.0, []
    for n, g in enumerate(map(leaves, grads)):
        if n:
            m, v = 0.95 * m + 0.05 * g, 0.95 * v + 0.05 * g**2
            root = np.sqrt(v / (1 - 0.95**n))
            p = p - 3e-3 * m / (1 - 0.95**n) / np.where(root == 0, 1.0, root)
        path.append(p)
    return np.stack(path)


class Flat(Vectors):
    """Vectors alone."""

    def problem(self) -> Problem:
        params, grads = super().problem()
        return {"b": params["b"]}, [{"b": g["b"]} for g in grads]


SOAP = [
    Products("soap", {}, "running means of products, by hand", products, kind="tensors"),
    Flat("soap", {"eps": 0.0}, "Adam from the second step on, by hand", late_adam),
    soap({}),
    soap({"lr": 0.1, "weight_decay": 0.07, "frequency": 3}, lr=0.1, precondition_frequency=3),
    soap({"b1": 0.8, "b2": 0.9, "frequency": 1}, betas=(0.8, 0.9), precondition_frequency=1),
    soap({"shampoo_beta": 0.6, "eps": 0.3}, shampoo_beta=0.6, eps=0.3),
    soap({"max_size": 3, "frequency": 4}, max_precondition_dim=3, precondition_frequency=4),
    soap({"precondition_1d": True}, Short, precondition_1d=True),
    torch_oracle(
        "soap",
        {"frequency": 5},
        "pytorch_optimizer:SOAP",
        {"lr": 3e-3, "weight_decay": 0.0, "precondition_frequency": 5},
        kind="tensors",
        bound=1e-5,
        why="they take the qr in float32",
    ),
]


ORACLES = [*MUON, *ADAFACTOR, *SM3, *SHAMPOO, *SOAP]

ONE_LENGTH = "all of one length"
LONG = "no axis in the tests is so long"
SEEN = "on torch, in test_matrix_rules.py"
EQUIVALENT = [
    ("muon", "rows > columns", "rows >= columns", "turned or not, only the cost differs"),
    ("muon", "rows > columns", "rows <= columns", "turned or not, only the cost differs"),
    ("muon", "xp.astype(x, _bfloat16(xp)) if bfloat16 else x", "x", SEEN),
    ("muon", "ELEMENTWISE = False", "ELEMENTWISE = True", "on blocks, in test_matrix_rules.py"),
    ("muon", "(param.shape[0], -1)", "(param.shape[0], -2)", "to NumPy -2 is -1"),
    ("muon", "(-1, param.shape[-1])", "(-2, param.shape[-1])", "to NumPy -2 is -1"),
    ("sm3", "strict=True", "strict=False", ONE_LENGTH),
    ("shampoo", "strict=True", "strict=False", ONE_LENGTH),
    ("shampoo", "axes=((0,), (0,))", "axes=((0,), (1,))", "a root is symmetric"),
    ("shampoo", "max_size=8192.0", "max_size=7680.0", LONG),
    ("soap", "h, i in zip(H, axes, strict=True)", "h, i in zip(H, axes, strict=False)", ONE_LENGTH),
    ("soap", "zip(axes, H, Q, strict=True)", "zip(axes, H, Q, strict=False)", ONE_LENGTH),
    ("soap", "max_size=10000.0", "max_size=9375.0", LONG),
    ("soap", "pick(first, 1, t - 1", "pick(first, 2, t - 1", "m is 0 at the first step"),
    ("soap", "pick(first, 1, t - 1", "pick(first, 0.9375, t - 1", "m is 0 at the first step"),
    ("soap", "pick(first, state.m,", "pick(first, state.v,", "both are 0"),
    ("adafactor", "min_size=1.0", "min_size=0.9375", "a length is a whole number"),
    ("adafactor", "State(kept, ())", "State(kept, state.m)", "it is ()"),
    ("adafactor", "v = xp.zeros_like(param)", "v = xp.ones_like(param)", "w is 1 at first"),
    (
        "adafactor",
        "mean = xp.maximum(mean, eps1) if eps_in_max else mean",
        "mean = xp.maximum(mean, eps1)",
        "eps1 is a part of what it is the mean of",
    ),
]
