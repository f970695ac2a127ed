"""What is put around a rule, beside what torch, optax and Keras have for it."""

import functools
import math

import numpy as np
import pytest
import threefry
from oracle import (
    Oracle,
    deviation,
    frozen,
    keras_oracle,
    leaves,
    optax_oracle,
    problem,
    run_optax,
    run_torch,
    torch_oracle,
    words_of,
)
from oracles_sgd import Averaged

from arrayopt import Optimizer, hyperparameters, rules
from arrayopt._step import is_elementwise

SGD = {"lr": 1e-2, "momentum": 0.9}
ADAM = {"lr": 1e-2, "b1": 0.8, "b2": 0.9}
TORCH_ADAM = {"lr": 1e-2, "betas": (0.8, 0.9)}
DECAY = {"weight_decay": 0.1}


def around(wrapper, ours, make, *, kind="pauses", oracle=optax_oracle, rule="adam", **more):
    """adam inside the wrapper, beside ``make(optax)`` before optax.adam, for instance."""
    options = (ADAM if rule == "adam" else SGD) | ours
    return oracle(f"{rule}+{wrapper}", options, *make, kind=kind, **more)


def chained(words, make):
    """The words for it, and an optax chain that ends in adam."""
    return (
        f"optax.chain({words}, optax.adam(0.01, 0.8, 0.9))",
        lambda o: o.chain(make(o), o.adam(1e-2, 0.8, 0.9)),
    )


class Bad(Oracle):
    """With gradients that are not finite, now and then and some in a row."""

    def problem(self):
        params, grads = problem(self.steps, self.kind)
        found = []
        for t, g in enumerate(grads):
            g = {k: np.array(x) for k, x in g.items()}
            if t % 7 in (2, 3) and self.steps - t > 1:
                g["w"][t % 6, t % 5] = np.nan
            found.append({k: frozen(x) for k, x in g.items()})
        return params, found


def bad(wrapper, ours, words, make):
    found = around(wrapper, ours, (words, make))
    return Bad(*found)


def clipped(clip, cls, options, params, grads):
    """A class of torch.optim after a function of torch.nn.utils."""
    torch = pytest.importorskip("torch")

    class Clipped(getattr(torch.optim, cls)):
        def step(self):
            clip(torch.nn.utils, [p for group in self.param_groups for p in group["params"]])
            super().step()

    return run_torch(Clipped, options, params, grads)


def torch_clip(wrapper, ours, words, clip, cls, options, extra=None):
    theirs = functools.partial(clipped, clip, cls, options)
    against = f"torch.nn.utils.{words}, torch.optim.{cls}({words_of(options)})"
    rule = {"Adam": "adam", "SGD": "sgd"}[cls]
    return Oracle(f"{rule}+{wrapper}", ours, against, theirs)


def gathered(every, options, params, grads):
    """torch.optim.Adam every so many backward passes, with gradients that add up in between."""
    torch = pytest.importorskip("torch")

    class Gathered(torch.optim.Adam):
        passes, sums = 0, None

        def step(self):
            tensors = [p for group in self.param_groups for p in group["params"]]
            new = [p.grad for p in tensors]
            self.sums = (
                new if self.sums is None else [a + b for a, b in zip(self.sums, new, strict=True)]
            )
            self.passes += 1
            if self.passes % every == 0:
                for p, g in zip(tensors, self.sums, strict=True):
                    p.grad = g
                super().step()
                self.sums = None

    return run_torch(Gathered, options, params, grads)


def averaged(how, due, params, grads):
    """torch.optim.Adam and an AveragedModel of its parameters, updated where ``due(step)``."""
    torch = pytest.importorskip("torch")
    utils = torch.optim.swa_utils
    known, count = {}, [0]

    class Model(torch.nn.Module):
        def __init__(self, tensors):
            super().__init__()
            self.own = torch.nn.ParameterDict(tensors)

    def before(opt, tensors):
        if not known:
            known["model"] = Model(tensors)
            known["mean"] = utils.AveragedModel(known["model"], **how(utils))
            if due(0):
                known["mean"].update_parameters(known["model"])

    def look(opt, tensors):
        count[0] += 1
        if due(count[0]):
            known["mean"].update_parameters(known["model"])
            known["seen"] = True
        return dict(known["mean"].module.own) if "seen" in known else tensors

    return run_torch("Adam", TORCH_ADAM, params, grads, before=before, look=look)


def mean(wrapper, ours, words, how, due):
    theirs = functools.partial(averaged, how, due)
    against = f"torch.optim.swa_utils.AveragedModel({words}"
    return Averaged(f"adam+{wrapper}", ADAM | ours, against, theirs)


def looked_ahead(every, alpha, look, params, grads):
    """optax.lookahead around optax.adam; ``look`` says which of the two parameters."""
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
    with jax.enable_x64(True):
        transform = optax.lookahead(optax.adam(1e-2, 0.8, 0.9), every, alpha)
        both = optax.LookaheadParams.init_synced({k: jax.numpy.array(p) for k, p in params.items()})
        state, path = transform.init(both), []
        for g in grads:
            g = {k: jax.numpy.array(x) for k, x in g.items()}
            updates, state = transform.update(g, state, both)
            both = optax.apply_updates(both, updates)
            path.append(leaves(getattr(both, look)))
    return np.stack(path)


def ahead(kind, look, every=3, alpha=0.4):
    theirs = functools.partial(looked_ahead, every, alpha, look)
    ours = ADAM | {"lookahead_every": every, "lookahead_alpha": alpha}
    return kind("adam+lookahead", ours, f"optax.lookahead(adam, {every}, {alpha}).{look}", theirs)


def masked(floor, params, grads):
    """C-AdamW: Liang et al. (2024), Algorithm 1, with the mean of the authors' code."""
    p = {k: np.array(x) for k, x in params.items()}
    m = {k: np.zeros_like(x) for k, x in p.items()}
    v = {k: np.zeros_like(x) for k, x in p.items()}
    path = []
    for t, g in enumerate(grads, 1):
        for k in p:
            m[k] = 0.8 * m[k] + 0.2 * g[k]
            v[k] = 0.9 * v[k] + 0.1 * g[k] ** 2
            u = -1e-2 * (m[k] / (1 - 0.8**t)) / (np.sqrt(v[k] / (1 - 0.9**t)) + 1e-8)
            phi = (u * g[k] < 0).astype(float)
            p[k] = p[k] + u * phi / max(phi.mean(), floor)
        path.append(leaves(p))
    return np.stack(path)


def cautious(floor):
    ours = ADAM | {"cautious_floor": floor}
    words = f"the formula in NumPy, floor={floor}"
    return Oracle("adam+cautious", ours, words, functools.partial(masked, floor))


class Half(Oracle):
    """With float16 parameters and gradients of ordinary size; the slot or what is evaluated too."""

    seen = "p"

    def problem(self):
        params, grads = problem(self.steps, "tensors")
        return tuple(
            {k: frozen(np.asarray(x, np.float16)) for k, x in params.items()}
            if tree is params
            else [{k: frozen(np.asarray(x, np.float16)) for k, x in g.items()} for g in tree]
            for tree in (params, grads)
        )

    def error(self):
        opt = Optimizer(self.rule, **self.options)
        params, grads = self.problem()
        state, path = opt.init(params), []
        for g in grads:
            params, state = opt.step(params, g, state)
            seen = {
                "p": params,
                "lost": getattr(state.slots, "lost", None),
                "evaluated": opt.eval_params(params, state),
            }[self.seen]
            path.append(leaves(seen))
        return float(np.max(np.abs(np.stack(path) - self._expected())))


class Lost(Half):
    seen = "lost"


class Evaluated(Half):
    seen = "evaluated"


def rounded(kahan, seen, params, grads):
    """p - lr g in float32, with a copy of it in float32 or with what rounding took."""
    f32 = np.float32
    w = {k: np.asarray(x, f32) for k, x in params.items()}
    path = []
    for g in grads:
        lost = {}
        for k in w:
            q = w[k] - f32(1e-3) * np.asarray(g[k], f32)
            lost[k] = q - np.asarray(np.asarray(q, np.float16), f32)
            w[k] = np.asarray(np.asarray(q, np.float16), f32) + lost[k] if kahan else q
        held = lost if seen == "lost" else {k: np.asarray(x, np.float16) for k, x in w.items()}
        path.append(leaves(held))
    return np.stack(path)


def half(kind, wrapper):
    options = {"lr": 1e-3, "momentum": 0.0}
    words = f"p - lr g in float32, {kind.__name__.lower()}"
    return kind(
        f"sgd+{wrapper}", options, words, functools.partial(rounded, wrapper == "kahan", kind.seen)
    )


class Norms(Oracle):
    """The slots of the diagnostics."""

    def error(self):
        opt = Optimizer(self.rule, **self.options)
        params, grads = self.problem()
        state, path = opt.init(params), []
        assert not np.any([leaves(getattr(state.slots, k)) for k in NORMS])
        for g in grads:
            params, state = opt.step(params, g, state)
            path.append([leaves(getattr(state.slots, k)) for k in NORMS])
        return deviation(np.stack(path), self._expected())


NORMS = ("grad_norm", "param_norm", "update_norm")


def norms(params, grads):
    """Of sgd's."""
    p, path = dict(params), []
    for g in grads:
        row = []
        for k in sorted(p):
            u = -0.01 * g[k]
            p[k] = p[k] + u
            row.append([np.sqrt(np.sum(x * x)) for x in (g[k], p[k], u)])
        path.append(np.transpose(row))
    return np.stack(path)


def noisy(options, eta, gamma, seed, params, grads):
    """optax.sgd, its gradients with noise by the transcription of the generator."""
    keys = sorted(params)
    grads = [
        {k: g[k] + (eta / t**gamma) ** 0.5 * threefry.normal(seed, keys.index(k), t, g[k].shape)
         for k in keys}
        for t, g in enumerate(grads, 1)
    ]  # fmt: skip
    return run_optax(lambda o: o.sgd(**options), params, grads)


def noise(words, seed=0, eta=0.01, gamma=0.55):
    ours = {"lr": 0.1, "momentum": 0.0, "noise_seed": seed, "noise_eta": eta, "noise_gamma": gamma}
    theirs = functools.partial(noisy, {"learning_rate": 0.1}, eta, gamma, seed)
    against = f"optax.noisy_sgd(0.1{words}) with a NumPy transcription of Threefry"
    return Oracle("sgd+gradient_noise", ours, against, theirs)


class Rounded(Half):
    """With float16 parameters, stochastically."""


def either(seed, params, grads):
    """p - lr g in float32, then to one of its neighbours in float16."""
    f32, keys, path = np.float32, sorted(params), []
    for t, g in enumerate(grads, 1):
        for place, k in enumerate(keys):
            q = np.asarray(params[k], f32) - f32(1e-3) * np.asarray(g[k], f32)
            near = q.astype(np.float16)
            away = np.where(near < q, np.inf, -np.inf).astype(np.float16)
            other = np.where(near == q, near, np.nextafter(near, away))
            low, high = np.minimum(near, other).astype(f32), np.maximum(near, other).astype(f32)
            toward, back = np.where(q < 0, (low, high), (high, low))  # away from 0, and to it
            part = np.where(low == high, 0, (q - back) / np.where(low == high, 1, toward - back))
            word, _ = threefry.bits(seed, 2**32 - 1 - place, t, q.shape)
            u = ((word >> np.uint32(9)) + 0.5) / 2.0**23
            params = params | {k: np.where(u < part, toward, back).astype(np.float16)}
        path.append(leaves(params))
    return np.stack(path)


class Skipped(Bad):
    """With the numbers of what was skipped; and elements that are infinite in several steps."""

    def problem(self):
        params, grads = super().problem()
        grads = [dict(g) for g in grads]
        for t in range(12, 15):
            grads[t]["b"] = frozen(np.where(np.arange(9) == t % 9, np.inf, grads[t]["b"]))
        return params, grads

    def error(self):
        opt = Optimizer(self.rule, **self.options)
        params, grads = self.problem()
        state, path = opt.init(params), []
        for g in grads:
            params, state = opt.step(params, g, state)
            path.append([*leaves(params), 1 + float(state.shared.row)])
        assert (
            float(state.shared.skipped) == 10
        )  # the last of the 3 that are infinite is let through
        return deviation(np.stack(path), self._expected())


def skipped(o):
    inner = o.chain(o.clip(0.3), o.adam(1e-2, 0.8, 0.9))
    return o.apply_if_finite(inner, 2)


class Scaled(Bad):
    """Gradients of a loss that is multiplied by what the state says."""

    def error(self):
        opt = Optimizer(self.rule, **self.options)
        params, grads = self.problem()
        state, path = opt.init(params), []
        for g in grads:
            scale = float(state.shared.scale)
            params, state = opt.step(params, {k: scale * x for k, x in g.items()}, state)
            path.append([*leaves(params), float(state.shared.scale), 1 + float(state.shared.row)])
        return deviation(np.stack(path), self._expected())


def scaled(options, params, grads):
    """torch.amp.GradScaler around torch.optim.Adam: the parameters, and its scale."""
    torch = pytest.importorskip("torch")
    scaler, scales = torch.amp.GradScaler("cpu", **options), []
    scaler.scale(torch.zeros(()))  # makes what it keeps

    class Adam(torch.optim.Adam):
        def step(self, closure=None):
            if closure is not None:
                super().step()
                return
            for p in (p for group in self.param_groups for p in group["params"]):
                p.grad *= scaler.get_scale()
            scaler.step(Stepped(self))
            scaler.update()
            scales.append([scaler.get_scale(), 1 + scaler._get_growth_tracker()])

    class Stepped:
        def __init__(self, opt):
            self.opt, self.param_groups = opt, opt.param_groups

        def step(self):
            self.opt.step(closure=True)

    path = run_torch(Adam, TORCH_ADAM, params, grads)
    return np.column_stack([path, scales])


def scaler(**options):
    words = {"init_scale": "start", "growth_factor": "growth", "growth_interval": "every"}
    words |= {"backoff_factor": "backoff"}
    ours = ADAM | {f"scale_{words[k]}": v for k, v in options.items()}
    against = f"torch.amp.GradScaler({words_of(options)}), its scale and its tracker"
    theirs = functools.partial(scaled, options)
    return Scaled("adam+dynamic_loss_scale", ours, against, theirs)


def turned(o):
    """optax.adaptive_grad_clip over transposed parameters and gradients."""
    clip = o.adaptive_grad_clip(0.01, 1e-3)

    def flip(tree):
        return {k: x.T for k, x in tree.items()}

    def update(grads, state, params):
        grads, state = clip.update(flip(grads), state, flip(params))
        return flip(grads), state

    return o.GradientTransformation(clip.init, update)


class Defaults(Oracle):
    """What a wrapper's hyperparameters are unless given, and what it keeps before any step."""

    def error(self):
        rule = rules.find(self.rule)
        inner, *_ = self.rule.partition("+")
        own = hyperparameters(rule).items() - hyperparameters(rules.find(inner)).items()
        found = {k: h.default for k, h in own} | {"shared": ()}
        if hasattr(rule, "share"):
            found["shared"] = tuple(rule.share())
        found["elementwise"] = is_elementwise(rule)
        return float(found != self.theirs())


def defaults(wrapper, elementwise=True, shared=(), **values):
    words = f"defaults {words_of(values)}"
    known = values | {"shared": shared, "elementwise": elementwise}
    return Defaults(f"sgd+{wrapper}", {}, words, lambda: known)


def multi(every):
    return lambda o: o.MultiSteps(o.adam(1e-2, 0.8, 0.9), every).gradient_transformation()


ORACLES = [
    defaults("clip_by_value", clip_value=1.0),
    defaults("clip_by_norm", clip_param_norm=1.0),
    defaults("clip_by_global_norm", clip_norm=1.0, clip_eps=0.0, shared=(0.0,)),
    defaults("adaptive_clip", False, agc_clip=0.01, agc_eps=1e-3, agc_layout="in_out"),
    defaults("centralize", False),
    defaults("gradient_noise", False, noise_eta=0.01, noise_gamma=0.55, noise_seed=0),
    defaults("stochastic_rounding", False, rounding_seed=0),
    defaults("loss_scale", loss_scale=1.0),
    defaults(
        "dynamic_loss_scale",
        scale_start=65536.0,
        scale_growth=2.0,
        scale_backoff=0.5,
        scale_every=2000,
        shared=(65536.0, 65536.0, 0.0, 0.0, 0.0),
    ),
    scaler(init_scale=64.0, growth_factor=4.0, backoff_factor=0.25, growth_interval=3),
    scaler(),
    defaults("accumulate", accumulate_steps=1, accumulate_how="mean"),
    defaults("skip_nonfinite", skip_most=math.inf, shared=(0.0, 0.0, 0.0)),
    defaults("cautious", cautious_floor=1e-3),
    defaults("lookahead", lookahead_every=6, lookahead_alpha=0.5),
    defaults("ema", ema_decay=0.999),
    defaults("swa", swa_start=0, swa_every=1),
    around("clip_by_value", {"clip_value": 0.3}, chained("optax.clip(0.3)", lambda o: o.clip(0.3))),
    torch_clip(
        "clip_by_value",
        SGD | {"clip_value": 0.3} | DECAY,
        "clip_grad_value_(params, 0.3)",
        lambda u, ps: u.clip_grad_value_(ps, 0.3),
        "SGD",
        SGD | DECAY,
    ),
    *(
        around(
            "clip_by_global_norm",
            {"clip_norm": c},
            chained(f"optax.clip_by_global_norm({c})", lambda o, c=c: o.clip_by_global_norm(c)),
        )
        for c in (0.5, 500.0)
    ),
    torch_clip(
        "clip_by_global_norm",
        ADAM | {"clip_norm": 0.5, "clip_eps": 1e-6} | DECAY,
        "clip_grad_norm_(params, 0.5)",
        lambda u, ps: u.clip_grad_norm_(ps, 0.5),
        "Adam",
        TORCH_ADAM | DECAY,
    ),
    *(
        keras_oracle(
            "sgd+clip_by_norm",
            {"lr": 1e-2, "momentum": 0.0, "clip_param_norm": c},
            "SGD",
            {"learning_rate": 1e-2, "clipnorm": c},
        )
        for c in (0.5, 300.0)
    ),
    *(
        around(
            "adaptive_clip",
            {"agc_clip": c, "agc_eps": eps},
            chained(
                f"optax.adaptive_grad_clip({c}, {eps})",
                lambda o, c=c, eps=eps: o.adaptive_grad_clip(c, eps),
            ),
            kind=kind,
        )
        for c, eps, kind in ((0.01, 1e-3, "matrices"), (2.0, 0.3, "pauses"))
    ),
    around(
        "adaptive_clip",
        {"agc_layout": "out_in"},
        (
            "optax.adaptive_grad_clip(0.01, 0.001) of transposed arrays, adam",
            lambda o: o.chain(turned(o), o.adam(1e-2, 0.8, 0.9)),
        ),
        kind="matrices",
    ),
    around(
        "centralize", {}, chained("optax.centralize()", lambda o: o.centralize()), kind="tensors"
    ),
    around(
        "loss_scale",
        {"loss_scale": 37.0},
        chained("optax.scale(1 / 37)", lambda o: o.scale(1 / 37)),
    ),
    bad(
        "skip_nonfinite",
        {"skip_most": 2},
        "optax.apply_if_finite(adam, 2)",
        lambda o: o.apply_if_finite(o.adam(1e-2, 0.8, 0.9), 2),
    ),
    Skipped(
        "adam+clip_by_value+skip_nonfinite",
        ADAM | {"clip_value": 0.3, "skip_most": 2},
        "optax.apply_if_finite(optax.chain(optax.clip(0.3), adam), 2), its count",
        functools.partial(
            run_optax,
            skipped,
            look=lambda state, params: params | {"~": 1.0 + np.asarray(state.notfinite_count)},
        ),
    ),
    bad("zero_nonfinite", {}, *chained("optax.zero_nans()", lambda o: o.zero_nans())),
    around("accumulate", {"accumulate_steps": 1}, ("optax.MultiSteps(adam, 1)", multi(1))),
    around(
        "accumulate",
        {"accumulate_steps": 4},
        ("optax.MultiSteps(adam, 4)", multi(4)),
        bound=1e-6,
        why="optax gathers the gradients in float32",
    ),
    Oracle(
        "adam+accumulate",
        ADAM | {"accumulate_steps": 3, "accumulate_how": "sum"} | DECAY,
        "torch.optim.Adam, backward() three times for each step()",
        functools.partial(gathered, 3, TORCH_ADAM | DECAY),
    ),
    mean(
        "ema",
        {"ema_decay": 0.7},
        "model, multi_avg_fn=get_ema_multi_avg_fn(0.7))",
        lambda u: {"multi_avg_fn": u.get_ema_multi_avg_fn(0.7)},
        lambda t: True,
    ),
    mean("swa", {}, "model)", lambda u: {}, lambda t: t > 0),
    mean(
        "swa",
        {"swa_start": 5, "swa_every": 4},
        "model) after steps 9, 13, ...",
        lambda u: {},
        lambda t: t > 5 and (t - 5) % 4 == 0,
    ),
    ahead(Oracle, "fast"),
    ahead(Averaged, "slow"),
    optax_oracle(
        "lamb+clip_by_global_norm",
        {"lr": 1e-2, "clip_norm": 0.5},
        "optax.chain(optax.clip_by_global_norm(0.5), optax.lamb(0.01))",
        lambda o: o.chain(o.clip_by_global_norm(0.5), o.lamb(1e-2)),
    ),
    noise(""),
    noise(", eta=0.5, gamma=1.5, seed=7", seed=7, eta=0.5, gamma=1.5),
    torch_oracle("sgd+stochastic_rounding", SGD, "SGD", SGD),
    Rounded(
        "sgd+stochastic_rounding",
        {"lr": 1e-3, "momentum": 0.0, "rounding_seed": 3},
        "p - lr g in float32, then a neighbour in float16, in NumPy",
        functools.partial(either, 3),
    ),
    half(Half, "master"),
    half(Evaluated, "master"),
    half(Half, "kahan"),
    half(Lost, "kahan"),
    Norms("sgd+diagnostics", {"lr": 1e-2, "momentum": 0.0}, "the norms in NumPy", norms),
    cautious(1e-3),
    cautious(0.6),
]

COUNT = "of a step that is none, nothing is seen"
WHOLE = "it is a number of elements"
EQUIVALENT = [
    ("accumulate", "accumulate_steps - 1)", "accumulate_steps - 0.9375)", COUNT),
    ("skip_nonfinite", "skipped, 1,", "skipped, 0.9375,", COUNT),
    ("skip_nonfinite", "xp.zeros_like(grad), 1.0", "xp.zeros_like(grad), 0.9375", WHOLE),
    ("skip_nonfinite", "sums['bad'] > 0", "sums['bad'] > 0.0625", WHOLE),
    ("dynamic_loss_scale", "sums['bad'] > 0", "sums['bad'] > 0.0625", WHOLE),
    (
        "adaptive_clip",
        "-1 if",
        "1 if",
        "arrays here have two axes at most; test_wrappers.py has one of four",
    ),
    ("cautious", "0.0 * one", "0.0 / one", "a zero of one dtype or the other"),
    ("cautious", "0.0 * one", "0.0", "a zero of one dtype or the other"),
    ("swa", "t < swa_start + swa_every", "t <= swa_start + swa_every", "then the other holds"),
]
