"""Rules that find their rate by themselves, and rules that need no schedule."""

import functools

import numpy as np
import pytest
from oracle import (
    Oracle,
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
from oracles_layerwise import rates
from oracles_sgd import Averaged, torch_slots


class Drift(Oracle):
    """Every element's gradient keeps its sign, so that estimates of a distance grow."""

    first = 0  # how many gradients are all 0, to begin with

    def problem(self):
        params, grads = problem(self.steps, "dense")
        signs = {k: np.sign(p) for k, p in params.items()}
        return params, [
            {k: frozen(np.asarray((t >= self.first) * signs[k] * abs(g[k]))) for k in g}
            for t, g in enumerate(grads)
        ]


class Late(Drift):
    """Every element's gradient keeps its sign, after three steps without any."""

    first = 3


class Faint(Drift):
    """The gradient's squared norm is a little below what is divided by, later a little above."""

    def problem(self):
        params, grads = super().problem()
        sizes = [1.6e-16 if t < 3 else 4e-16 for t in range(self.steps)]
        norms = [np.linalg.norm(leaves(g)) for g in grads]
        return params, [
            {k: frozen(np.asarray(x * size**0.5 / norm)) for k, x in g.items()}
            for g, size, norm in zip(grads, sizes, norms, strict=True)
        ]


class Edge(Oracle):
    """The gradient's squared norm is what is just no longer divided by."""

    size = 2.0**-26

    def problem(self):
        grad = {"w": frozen(np.array([self.size]))}
        return {"w": frozen(np.array([0.1]))}, [grad] * self.steps


class EdgeAdam(Edge):
    size = 2.0**-50


class Level(Oracle):
    """The estimate of the loss is to the bit the lower bound, and what is divided by is not 0."""

    faint = 2.0**-27  # the first gradient, too small for a step

    def problem(self):
        grads = [self.faint] + [2.0**-10] * (self.steps - 1)
        return {"w": frozen(np.array([0.5]))}, [{"w": frozen(np.array([g]))} for g in grads]

    def each(self):
        return {"value": [2.0] * self.steps}


class LevelAdam(Level):
    faint = 2.0**-53


def coupled(x):
    return f"g += {x} p, then {{}}", lambda o, made: o.chain(o.add_decayed_weights(x), made)


def decoupled(x):
    return f"{{}} and p -= {x} p", lambda o, made: o.chain(made, o.add_decayed_weights(-x))


def scaled(x):
    return f"{x} times {{}}", lambda o, made: o.chain(made, o.scale(x))


PLAIN = "{}", lambda optax, made: made


def optax_free(rule, ours, name, theirs, kind=Oracle, around=PLAIN, value=False):
    """Beside optax' rule of that name, and what is done around it."""
    words = words_of({k: "schedule" if v is rates else v for k, v in theirs.items()})
    where = "optax" if name == "polyak_sgd" else "optax.contrib"
    against = around[0].format(f"{where}.{name}({words})")

    def make(optax):
        module = optax if name == "polyak_sgd" else optax.contrib
        return around[1](optax, getattr(module, name)(**theirs))

    return kind(*optax_oracle(rule, ours, against, make, value=value))


def torch_wide(rule, ours, cls, theirs, kind=Oracle):
    """Beside a class of pytorch_optimizer, where float64 is torch's default dtype."""
    against = f"pytorch_optimizer.{cls}({words_of(theirs)}, in float64)"
    run = functools.partial(torch_slots, f"pytorch_optimizer:{cls}", "", theirs)
    return kind(rule, ours, against, run)


def averaged(make, params, grads):
    """The parameters to evaluate with of a transformation of optax.contrib."""
    contrib = pytest.importorskip("optax").contrib
    return run_optax(make, params, grads, look=contrib.schedule_free_eval_params)


def average(rule, ours, against, make):
    return Averaged(rule, ours, against, functools.partial(averaged, make))


dadapt = functools.partial(optax_free, "dadapt_adam", name="dadapt_adamw")
prodigy = functools.partial(optax_free, "prodigy", name="prodigy")
dog = functools.partial(optax_free, "dog", name="dog")
dowg = functools.partial(optax_free, "dowg", name="dowg")
polyak = functools.partial(optax_free, "polyak_sgd", name="polyak_sgd", value=True)
momo = functools.partial(optax_free, "momo", name="momo", value=True)
momo_adam = functools.partial(optax_free, "momo_adam", name="momo_adam", value=True)
torch_dadapt = functools.partial(torch_wide, "dadapt_adam", cls="DAdaptAdam")
torch_prodigy = functools.partial(torch_wide, "prodigy", cls="Prodigy")


def same(make, kind=Oracle, **options):
    """Options that both sides spell alike; lr and weight_decay are translated."""
    words = {"lr": "learning_rate", "inner_decay": "weight_decay"}
    return make(options, theirs={words.get(k, k): v for k, v in options.items()}, kind=kind)


RAW = {"bias_correction": False}
ORACLES = [
    dadapt({}, theirs={}),
    dadapt({}, theirs={}, kind=Drift),
    dadapt({"eps": 0.0}, theirs={"eps": 1e-300}),
    dadapt(
        {"lr": 0.5, "b1": 0.7, "b2": 0.9, "eps": 0.3, "d0": 1e-3},
        theirs={"learning_rate": 0.5, "betas": (0.7, 0.9), "eps": 0.3, "estim_lr0": 1e-3},
        kind=Drift,
    ),
    dadapt(
        {"d0": 1e-4, "inner_decay": 0.1},
        theirs={"estim_lr0": 1e-4, "weight_decay": 0.1},
        kind=Drift,
    ),
    dadapt(
        {"d0": 1e-2, "lr": rates}, theirs={"estim_lr0": 1e-2, "learning_rate": rates}, kind=Drift
    ),
    dadapt({"d0": 1e-2, "weight_decay": 0.01}, theirs={"estim_lr0": 1e-2}, around=coupled(0.01)),
    torch_dadapt(RAW, theirs={}),
    torch_dadapt(RAW | {"d0": 1e-2}, theirs={"d0": 1e-2}, kind=Drift),
    torch_dadapt(RAW | {"d0": 1e-2}, theirs={"d0": 1e-2}, kind=Late),
    torch_dadapt(
        {"d0": 1e-2, "growth_rate": 1.05},
        theirs={"d0": 1e-2, "growth_rate": 1.05, "bias_correction": True},
        kind=Drift,
    ),
    torch_dadapt(
        RAW | {"d0": 1e-2, "weight_decay": 0.1},
        theirs={"d0": 1e-2, "weight_decay": 0.1},
        kind=Drift,
    ),
    torch_dadapt(
        RAW | {"d0": 1e-2, "inner_decay": 0.1},
        theirs={"d0": 1e-2, "weight_decay": 0.1, "weight_decouple": True},
        kind=Drift,
    ),
    prodigy({}, theirs={}),
    prodigy({}, theirs={}, kind=Drift),
    prodigy({"eps": 0.0}, theirs={"eps": 1e-300}),
    prodigy(
        {"lr": 0.5, "b1": 0.7, "b2": 0.9, "eps": 0.3, "d0": 1e-3, "d_coef": 0.7},
        theirs={
            "learning_rate": 0.5,
            "betas": (0.7, 0.9),
            "eps": 0.3,
            "estim_lr0": 1e-3,
            "estim_lr_coef": 0.7,
        },
        kind=Drift,
    ),
    prodigy(
        {"d0": 1e-2, "b3": 0.8, "inner_decay": 0.1},
        theirs={"estim_lr0": 1e-2, "beta3": 0.8, "weight_decay": 0.1},
        kind=Drift,
    ),
    prodigy(
        {"d0": 1e-2, "lr": 0.3, "safeguard_warmup": True, "d_coef": 10.0},
        theirs={
            "estim_lr0": 1e-2,
            "learning_rate": 0.3,
            "safeguard_warmup": True,
            "estim_lr_coef": 10.0,
        },
        kind=Drift,
    ),
    prodigy(
        {"d0": 1e-2, "lr": rates}, theirs={"estim_lr0": 1e-2, "learning_rate": rates}, kind=Drift
    ),
    prodigy({"d0": 1e-2, "weight_decay": 0.01}, theirs={"estim_lr0": 1e-2}, around=coupled(0.01)),
    torch_prodigy(RAW, theirs={}),
    torch_prodigy(RAW | {"d0": 1e-2}, theirs={"d0": 1e-2}, kind=Drift),
    torch_prodigy(RAW | {"d0": 1e-2}, theirs={"d0": 1e-2}, kind=Late),
    torch_prodigy(
        {"d0": 1e-2, "growth_rate": 1.05},
        theirs={"d0": 1e-2, "growth_rate": 1.05, "bias_correction": True},
        kind=Drift,
    ),
    torch_prodigy(
        RAW | {"d0": 1e-2, "inner_decay": 0.1, "growth_rate": 1.2},
        theirs={"d0": 1e-2, "weight_decay": 0.1, "growth_rate": 1.2},
        kind=Drift,
    ),
    dog({}, theirs={}),
    dog({}, theirs={}, kind=Drift),
    dog(
        {"init_step": "distance", "r_eps": 0.03, "eps": 1e4, "lr": 0.5},
        theirs={"init_step": ("distance", 0.03), "eps": 1e4, "learning_rate": 0.5},
        kind=Drift,
    ),
    dog(
        {"init_step": "learning_rate", "r_eps": 0.5},
        theirs={"init_step": ("learning_rate", 0.5)},
        kind=Faint,
    ),
    dog(
        {"init_step": "learning_rate", "r_eps": 1e-5},
        theirs={"init_step": ("learning_rate", 1e-5)},
        kind=Drift,
    ),
    dog(
        {"r_eps": 0.03, "eps": 0.0},
        theirs={"init_step": ("heuristic", 0.03), "eps": 1e-300},
        kind=Late,
    ),
    dog(
        {"r_eps": 0.03, "weight_decay": 30.0},
        theirs={"init_step": ("heuristic", 0.03), "weight_decay": 30.0},
    ),
    dowg({}, theirs={}),
    dowg({}, theirs={}, kind=Drift),
    dowg(
        {"initial_sq_dist": 0.03, "eps": 100.0, "lr": 0.5},
        theirs={"init_estim_sq_dist": 0.03, "eps": 100.0, "learning_rate": 0.5},
        kind=Drift,
    ),
    dowg(
        {"initial_sq_dist": 0.03, "eps": 0.0},
        theirs={"init_estim_sq_dist": 0.03, "eps": 1e-300},
        kind=Late,
    ),
    dowg({"weight_decay": 30.0}, theirs={"weight_decay": 30.0}),
    polyak({}, theirs={}),
    polyak({}, theirs={}, kind=Faint),
    polyak({}, theirs={}, kind=Edge),
    polyak({}, theirs={}, kind=Late),
    polyak(
        {"lr": 0.5, "f_min": 2.0, "eps": 1e6},
        theirs={"f_min": 2.0, "eps": 1e6},
        around=scaled(0.5),
    ),
    polyak(
        {"f_min": 2.0, "variant": "sps+"},
        theirs={"f_min": 2.0, "variant": "sps+"},
    ),
    polyak({"max_lr": 3e-7}, theirs={"max_learning_rate": 3e-7}),
    polyak({"weight_decay": 30.0}, theirs={}, around=coupled(30.0)),
]
for kind in (Oracle, Drift, Faint, Late):
    for make, more in ((momo, {"beta": 0.6}), (momo_adam, {"b1": 0.6, "b2": 0.8, "eps": 0.3})):
        low = {"adapt_lower_bound": True, "lower_bound": -1.0}
        ORACLES += [
            same(make, kind),
            same(make, kind, lower_bound=2.0, lr=0.5, **more),
            same(make, kind, inner_decay=0.7, lr=0.1),
            same(make, kind, adapt_lower_bound=True),
            same(make, kind, adapt_lower_bound=True, lower_bound=2.0),
            same(make, kind, inner_decay=0.7, lr=0.3, **low, **more),
        ]
ORACLES += [
    same(momo, Edge),
    same(momo, Level, beta=0.5, adapt_lower_bound=True),
    same(momo_adam, EdgeAdam, b1=0.5, b2=0.0, eps=0.0),
    same(momo_adam, LevelAdam, b1=0.0, b2=0.0, eps=0.0, adapt_lower_bound=True),
    momo({"lr": 0.1, "weight_decay": 0.3}, theirs={"learning_rate": 0.1}, around=decoupled(0.03)),
    momo_adam(
        {"lr": 0.1, "weight_decay": 0.3}, theirs={"learning_rate": 0.1}, around=decoupled(0.03)
    ),
    momo_adam({"eps": 0.0}, theirs={"eps": 1e-300}),
]
INNER = {"inner_decay": 0.7, "eps_root": 1e-15}
SFS, SFA = "schedule_free_sgd", "schedule_free_adamw"


def warm(k):
    """A rate that rises for five steps."""
    return 0.1 * min(1.0, (k + 1) / 5)


def free(rule, ours, theirs):
    """Beside ``optax.contrib.<rule>``: the parameters, and those to evaluate with."""
    words = words_of(theirs)

    def make(optax):
        return getattr(optax.contrib, rule)(**theirs)

    return [
        optax_oracle(rule, ours, f"optax.contrib.{rule}({words})", make),
        average(rule, ours, f"optax.contrib.schedule_free_eval_params of {rule}({words})", make),
    ]


def evaluated(cls, theirs, params, grads):
    """The parameters of a class of pytorch_optimizer after ``eval()``."""

    def look(opt, tensors):
        opt.eval()
        return tensors

    name = f"pytorch_optimizer:{cls}"
    return run_torch(name, theirs, params, grads, before=lambda opt, _: opt.train(), look=look)


def torch_free(rule, ours, cls, theirs):
    """Beside a class of pytorch_optimizer: the parameters, and those to evaluate with."""
    against = f"pytorch_optimizer.{cls}({words_of(theirs)}), after eval()"
    return [
        torch_oracle(rule, ours, f"pytorch_optimizer:{cls}", theirs),
        Averaged(rule, ours, against, functools.partial(evaluated, cls, theirs)),
    ]


def uneven(k):
    """A rate that is 0 at first, and later falls."""
    return 0.1 * [0.0, 0.0, 0.3, 1.0, 0.5, 0.2][min(k, 5)]


def torch_uneven(rule, cls, ours, theirs):
    """Beside a class of pytorch_optimizer with that rate."""

    def scheduler(opt):
        scheduling = pytest.importorskip("torch.optim.lr_scheduler")
        return scheduling.LambdaLR(opt, lambda k: 10 * uneven(k))

    run = functools.partial(
        run_torch, f"pytorch_optimizer:{cls}", {"lr": 0.1} | theirs, scheduler=scheduler
    )
    against = f"pytorch_optimizer.{cls}(schedule, {words_of(theirs)})"
    return Oracle(rule, {"lr": uneven} | ours, against, run)


ORACLES += [
    torch_uneven(SFS, "ScheduleFreeSGD", {}, {}),
    torch_uneven(SFA, "ScheduleFreeAdamW", {"eps_root": 1e-15}, {}),
    *free(SFS, {}, {}),
    *free(SFS, {"lr": 0.1, "b1": 0.6}, {"learning_rate": 0.1, "b1": 0.6}),
    *free(SFS, {"lr": 0.1, "weight_decay": 0.7}, {"learning_rate": 0.1, "weight_decay": 0.7}),
    *torch_free(SFS, {}, "ScheduleFreeSGD", {}),
    *torch_free(
        SFS,
        {"lr": warm, "b1": 0.6, "weight_lr_power": 1.5, "r": 0.5, "weight_decay": 0.7},
        "ScheduleFreeSGD",
        {
            "lr": 0.1,
            "momentum": 0.6,
            "weight_lr_power": 1.5,
            "r": 0.5,
            "weight_decay": 0.7,
            "warmup_steps": 5,
        },
    ),
    *free(SFA, {}, {}),
    *free(SFA, {"lr": 0.1, "b1": 0.6, "b2": 0.8}, {"learning_rate": 0.1, "b1": 0.6, "b2": 0.8}),
    *free(SFA, {"lr": 0.1, "eps": 0.3}, {"learning_rate": 0.1, "eps": 0.3}),
    *free(SFA, {"lr": 0.1, "eps": 0.0}, {"learning_rate": 0.1, "eps": 1e-300}),
    *free(SFA, {"lr": 0.1, "inner_decay": 0.7}, {"learning_rate": 0.1, "weight_decay": 0.7}),
    *torch_free(SFA, {"eps_root": 1e-15}, "ScheduleFreeAdamW", {}),
    *torch_free(
        SFA,
        {"lr": warm, "b1": 0.6, "weight_lr_power": 1.5, "r": 0.5} | INNER,
        "ScheduleFreeAdamW",
        {
            "lr": 0.1,
            "betas": (0.6, 0.999),
            "weight_lr_power": 1.5,
            "r": 0.5,
            "weight_decay": 0.7,
            "warmup_steps": 5,
        },
    ),
    keras_oracle(SFA, {"weight_lr_power": 0.0}, "ScheduleFreeAdamW", {}),
    keras_oracle(
        SFA,
        {"weight_lr_power": 0.0, "lr": 0.1, "weight_decay": 0.7},
        "ScheduleFreeAdamW",
        {"learning_rate": 0.1, "weight_decay": 0.7},
    ),
    keras_oracle(
        SFA,
        {"weight_lr_power": 0.0, "lr": warm, "b1": 0.6, "b2": 0.8, "eps": 0.3},
        "ScheduleFreeAdamW",
        {
            "learning_rate": 0.1,
            "beta_1": 0.6,
            "beta_2": 0.8,
            "epsilon": 0.3,
            "warmup_steps": 5,
        },
    ),
]

GIVEN = "every step is given it; that it must be is tested elsewhere"
BEFORE = "nothing reads it before it is written"
EQUIVALENT = [
    ("dog", " if init_step == 'heuristic' else sums", "", "a sum that nobody reads"),
    ("polyak_sgd", "value=None", "value=0.5", GIVEN),
    ("polyak_sgd", "gamma=0.0", "gamma=0.0625", BEFORE),
    ("momo", "value=None", "value=0.5", GIVEN),
    ("momo", "tau=0.0", "tau=0.0625", BEFORE),
    ("momo", "gamma=0.0", "gamma=0.0625", BEFORE),
    ("momo", "zeros_like", "ones_like", BEFORE),
    ("momo_adam", "value=None", "value=0.5", GIVEN),
    ("momo_adam", "tau=0.0", "tau=0.0625", BEFORE),
    *(
        (rule, "CONTRACTED_EPS = 20", f"CONTRACTED_EPS = {x}", "the bound of another test")
        for rule in (SFS, SFA)
        for x in ("18.75", "21")
    ),
]
