"""Runs begun with torch.optim or optax go on here, in any library, to 1e-12 in float64."""

import copy
import functools
from typing import Any

import numpy as np
import pytest
from conftest import adapter

import arrayopt as ao

T, J = adapter("torch"), adapter("jax")
torch, jax = T.torch, J.jax
optax = pytest.importorskip("optax")

LIBRARIES = ("numpy", "torch", "jax", "dask", "strict")
STEPS = 6
NAMES = ("stem.weight", "stem.bias", "head")


def problem() -> Any:
    rng = np.random.default_rng(3)
    shapes = {"stem.weight": (2, 3), "stem.bias": (3,), "head": (3,)}
    params = {k: rng.uniform(0.5, 2, s) for k, s in shapes.items()}
    grads = [
        {k: c * rng.standard_normal(s) for k, s in shapes.items()} for c in (1, -5, 0.1, 2, 1, 3)
    ]
    return params, grads


def nest(flat: Any) -> Any:
    """The names as a tree, in another order than torch's."""
    return {
        "head": flat["head"],
        "stem": {"bias": flat["stem.bias"], "weight": flat["stem.weight"]},
    }


def flat(tree: Any) -> Any:
    return {
        "stem.weight": tree["stem"]["weight"],
        "stem.bias": tree["stem"]["bias"],
        "head": tree["head"],
    }


def near(got: Any, want: Any) -> None:
    for k, x in want.items():
        np.testing.assert_allclose(got[k], x, rtol=1e-12, atol=0, err_msg=k)


def torch_run(make: Any, steps: int = STEPS, grads: Any = None, named: bool = True) -> Any:
    """The optimizer's state after half of the steps, the parameters then and at the end."""
    params, given = problem()
    grads = given if grads is None else grads
    tensors = {k: torch.nn.Parameter(torch.tensor(params[k])) for k in NAMES}
    opt = make([*tensors.items()] if named else [*tensors.values()])
    half: Any = None
    for i, g in enumerate(grads[:steps]):
        if i == steps // 2:
            half = (
                copy.deepcopy(opt.state_dict()),
                {k: x.detach().numpy().copy() for k, x in tensors.items()},
            )
        for k, x in tensors.items():
            x.grad = None if g[k] is None else torch.tensor(g[k])
        opt.step()
    return *half, {k: x.detach().numpy() for k, x in tensors.items()}


def go_on(library: Any, opt: Any, params: Any, state: Any, grads: Any) -> Any:
    for g in grads:
        g = {k: library.asarray(np.asarray(x)) for k, x in g.items()}
        params, state = library.settle(opt.step(params, nest(g), state))
    return {k: library.asnumpy(x) for k, x in flat(params).items()}


TORCH = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1),
    "adam plain": lambda p: torch.optim.Adam(p),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True, maximize=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.3, foreach=True),
    "adamw amsgrad": lambda p: torch.optim.AdamW(
        p, lr=torch.tensor(0.1, dtype=torch.float64), amsgrad=True
    ),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.1, eps=0.5, weight_decay=0.1),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, maximize=True),
    "dampening": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
}


@pytest.mark.parametrize("to", LIBRARIES)
@pytest.mark.parametrize("kind", TORCH)
def test_from_torch(kind: str, to: str) -> None:
    state_dict, params, want = torch_run(TORCH[kind])
    library = adapter(to)
    with library.session("float64"):
        there = nest({k: library.asarray(x) for k, x in params.items()})
        opt, state = ao.from_torch_state_dict(state_dict, there)
        assert int(state.step) == (0 if kind == "sgd" else 1 if opt.name == "sgd" else STEPS // 2)
        near(go_on(library, opt, there, state, problem()[1][STEPS // 2 :]), want)


@pytest.mark.parametrize("kind", TORCH)
def test_from_torch_before_the_first_step(kind: str) -> None:
    params, _ = problem()
    opt = TORCH[kind]([(k, torch.nn.Parameter(torch.tensor(params[k]))) for k in NAMES])
    rule = "adamax" if kind == "adamax" else None
    core, state = ao.from_torch_state_dict(opt.state_dict(), nest(params), rule=rule)
    _, _, want = torch_run(TORCH[kind])
    near(go_on(adapter("numpy"), core, nest(params), state, problem()[1]), want)
    if rule:
        with pytest.raises(ao.CheckpointError, match="no state yet"):
            ao.from_torch_state_dict(opt.state_dict(), nest(params))


OURS = {
    "adam": ("Adam", {"weight_decay": 0.1, "decay": "decoupled"}),
    "adamax": ("Adamax", {"betas": (0.8, 0.9), "maximize": True}),
    "adan": ("Adan", {}),
    "mada": ("MADA", {"hyper_momentum": 0.5}),
    "madam": ("Madam", {}),
    "maxva_madam": ("MAdam", {"amsgrad": True}),
    "sgd": ("SGD", {"momentum": 0.9}),
    "sgd plain": ("SGD", {}),
    "simplified_ademamix": ("SimplifiedAdEMAMix", {"alpha": 2.0}),
}


@pytest.mark.parametrize("to", ["numpy", "jax"])
@pytest.mark.parametrize("kind", OURS)
def test_from_our_torch_classes(kind: str, to: str) -> None:
    rule, (name, options) = kind.split()[0], OURS[kind]
    state_dict, params, want = torch_run(lambda p: getattr(T, name)(p, **options))
    library = adapter(to)
    with library.session("float64"):
        there = nest({k: library.asarray(x) for k, x in params.items()})
        opt, state = ao.from_torch_state_dict(state_dict, there, rule=rule)
        assert int(state.step) == STEPS // 2
        near(go_on(library, opt, there, state, problem()[1][STEPS // 2 :]), want)
        with pytest.raises(ao.CheckpointError, match="of a class of arrayopt: name its rule="):
            ao.from_torch_state_dict(state_dict, there)


def test_order_of_torch() -> None:
    state_dict, params, _ = torch_run(TORCH["adam"], named=False)
    with pytest.raises(
        ao.CheckpointError, match="numbers its parameters and params is nested: give order="
    ):
        ao.from_torch_state_dict(state_dict, nest(params))
    want = state_dict["state"][0]["exp_avg"].numpy()
    slots = ao.from_torch_state_dict(state_dict, nest(params), order=NAMES)[1].slots
    assert np.array_equal(slots.m["stem"]["weight"], want)
    slots = ao.from_torch_state_dict(state_dict, {k: params[k] for k in NAMES})[1].slots
    assert np.array_equal(slots.m["stem.weight"], want)
    slots = ao.from_torch_state_dict(state_dict, tuple(params[k] for k in NAMES))[1].slots
    assert np.array_equal(slots.m[0], want)
    by_name = {
        "state": dict(zip(NAMES, state_dict["state"].values(), strict=True)),
        "param_groups": [state_dict["param_groups"][0] | {"params": [*NAMES]}],
    }
    slots = ao.from_torch_state_dict(by_name, nest(params))[1].slots
    assert np.array_equal(slots.m["stem"]["weight"], want)
    with pytest.raises(
        ao.CheckpointError, match=r"slot 'm' of \['stem'\]\['bias'\] must have shape \(3,\)"
    ):
        ao.from_torch_state_dict(state_dict, nest(params), order=[NAMES[1], NAMES[0], NAMES[2]])
    with pytest.raises(ao.CheckpointError, match="3 parameters, but there are 2 names"):
        ao.from_torch_state_dict(state_dict, nest(params), order=NAMES[:2])
    with pytest.raises(
        ao.CheckpointError, match=r"\['stem.bias'\] is in params only, \['x'\] in torch"
    ):
        ao.from_torch_state_dict(state_dict, nest(params), order=[NAMES[0], "x", NAMES[2]])


def test_groups_of_torch() -> None:
    def two(p: Any, **other: Any) -> Any:
        return torch.optim.AdamW(
            [{"params": p[:1]}, {"params": p[1:], **other}], lr=0.1, weight_decay=0.2
        )

    state_dict, params, want = torch_run(lambda p: two(p, weight_decay=0.0))
    opt, state = ao.from_torch_state_dict(state_dict, nest(params))
    assert opt.decay_mask == {"head": False, "stem": {"bias": False, "weight": True}}
    near(go_on(adapter("numpy"), opt, nest(params), state, problem()[1][STEPS // 2 :]), want)
    state_dict, params, _ = torch_run(lambda p: two(p, lr=0.3, weight_decay=0.5))
    with pytest.raises(ao.CheckpointError, match=r"differ in lr, 0.1 and 0.3.*give lr="):
        ao.from_torch_state_dict(state_dict, nest(params))
    with pytest.raises(ao.CheckpointError, match=r"differ in weight_decay, 0.2 and 0.5"):
        ao.from_torch_state_dict(state_dict, nest(params), lr=0.1)
    opt, _ = ao.from_torch_state_dict(state_dict, nest(params), lr=0.1, weight_decay=0.0)
    assert opt.decay_mask is None
    state_dict["param_groups"].reverse()
    state_dict["param_groups"][0]["weight_decay"] = 0.0
    opt, _ = ao.from_torch_state_dict(state_dict, nest(params), lr=0.1)
    assert opt.hyper["weight_decay"] == 0.2
    assert opt.decay_mask == {"head": False, "stem": {"bias": False, "weight": True}}


@pytest.mark.parametrize("absent", [1, STEPS])
def test_counts_that_differ(absent: int) -> None:
    grads = [g | ({"head": None} if i < absent else {}) for i, g in enumerate(problem()[1])]
    state_dict, params, _ = torch_run(TORCH["adam"], grads=grads)
    fewer = max(STEPS // 2 - absent, 0)
    with pytest.raises(
        ao.CheckpointError, match=rf"counted {fewer} steps of \['head'\], but 3 of .*step="
    ):
        ao.from_torch_state_dict(state_dict, nest(params))
    assert ao.from_torch_state_dict(state_dict, nest(params), step=3)[1].step == 3


def test_momentum_that_starts_late() -> None:
    grads = [g | ({"head": None} if i < 4 else {}) for i, g in enumerate(problem()[1])]
    state_dict, params, want = torch_run(TORCH["momentum"], grads=grads)
    opt, state = ao.from_torch_state_dict(state_dict, nest(params))
    library = adapter("numpy")
    p = nest(params)
    for g in grads[STEPS // 2 :]:
        p, state = opt.step(p, nest(g), state)
    near({k: library.asnumpy(x) for k, x in flat(p).items()}, want)
    state_dict, params, _ = torch_run(TORCH["dampening"], grads=grads)
    with pytest.raises(ao.CheckpointError, match="counted 0 steps"):
        ao.from_torch_state_dict(state_dict, nest(params))


def test_what_torch_has_and_we_have_not() -> None:
    params, _ = problem()
    named = [(k, torch.nn.Parameter(torch.tensor(params[k]))) for k in NAMES]
    state_dict = torch.optim.SparseAdam(named).state_dict()
    with pytest.raises(ao.CheckpointError, match="cannot tell which optimizer of torch"):
        ao.from_torch_state_dict(state_dict, nest(params))
    state_dict, params, _ = torch_run(lambda p: torch.optim.NAdam(p))
    with pytest.raises(ao.CheckpointError, match=r"adam has the slots m, v, but .* mu_product"):
        ao.from_torch_state_dict(state_dict, nest(params), rule="adam")
    state_dict, params, _ = torch_run(TORCH["adamax"])
    with pytest.raises(ao.CheckpointError, match="exp_inf"):
        ao.from_torch_state_dict(state_dict, nest(params), rule="adam")
    with pytest.raises(ao.CheckpointError, match="madam has the slots"):
        ao.from_torch_state_dict(state_dict, nest(params), rule="madam")
    with pytest.raises(ao.CheckpointError, match="not a torch optimizer's state dict"):
        ao.from_torch_state_dict({"w": torch.ones(2)}, nest(params))
    with pytest.raises(ao.CheckpointError, match="is float64, but the parameter, float32"):
        ao.from_torch_state_dict(state_dict, nest({k: x.astype("f4") for k, x in params.items()}))


def test_an_older_torch_does_not_tell_adam_from_adamw() -> None:
    state_dict, params, want = torch_run(TORCH["adamw"])
    del state_dict["param_groups"][0]["decoupled_weight_decay"]
    with pytest.raises(ao.CheckpointError, match="does not tell Adam from AdamW"):
        ao.from_torch_state_dict(state_dict, nest(params))
    opt, state = ao.from_torch_state_dict(state_dict, nest(params), decay="decoupled")
    near(go_on(adapter("numpy"), opt, nest(params), state, problem()[1][STEPS // 2 :]), want)


def test_half_precision_state_of_torch_becomes_float32() -> None:
    x = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    opt = torch.optim.Adam([x])
    x.grad = torch.ones_like(x)
    opt.step()
    state = ao.from_torch_state_dict(opt.state_dict(), [x])[1]
    assert state.slots.m[0].dtype == torch.float32
    assert not state.slots.m[0].requires_grad
    assert int(state.step) == 1


def test_import_save_load(tmp_path: Any) -> None:
    """From torch to a file, and from there to JAX."""
    state_dict, params, want = torch_run(TORCH["amsgrad"])
    opt, state = ao.from_torch_state_dict(state_dict, nest(params))
    ao.save(tmp_path / "run", opt, nest(params), state)
    with J.session("float64"):
        opt, there, state = ao.load(tmp_path / "run", namespace="jax")
        near(go_on(J, opt, there, state, problem()[1][STEPS // 2 :]), want)


# --- optax -------------------------------------------------------------------------------------


@functools.cache
def optax_run(make: Any) -> Any:
    """State and parameters of half of the steps, and parameters of all."""
    params, grads = problem()
    with J.session("float64"):
        tree = jax.tree.map(jax.numpy.asarray, nest(params))
        t = make()
        state, update = t.init(tree), t.update
        half: Any = None
        for i, g in enumerate(grads):
            if i == STEPS // 2:
                half = state, {k: np.array(x) for k, x in flat(tree).items()}
            updates, state = update(nest(g), state, tree)
            tree = optax.apply_updates(tree, updates)
        return *half, {k: np.asarray(x) for k, x in flat(tree).items()}


def rate(count: Any) -> Any:
    return 0.1 / (1 + count)


DECOUPLED = {"weight_decay": 0.2, "decay": "decoupled"}
MASK = {"head": True, "stem": {"bias": False, "weight": True}}
OPTAX = {
    "sgd": (lambda: optax.sgd(0.1), {"rule": "sgd", "lr": 0.1}),
    "momentum": (lambda: optax.sgd(0.1, 0.9), {"lr": 0.1, "momentum": 0.9}),
    "nesterov": (
        lambda: optax.sgd(rate, 0.9, nesterov=True),
        {"lr": rate, "momentum": 0.9, "nesterov": True},
    ),
    "decayed sgd": (
        lambda: optax.chain(optax.add_decayed_weights(0.2), optax.sgd(0.1, 0.9)),
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2, "decay": "coupled"},
    ),
    "adam": (
        lambda: optax.adam(0.1, 0.8, 0.9, 1e-3, 1e-5),
        {"rule": "adam", "lr": 0.1, "b1": 0.8, "b2": 0.9, "eps": 1e-3, "eps_root": 1e-5},
    ),
    "scheduled adam": (lambda: optax.adam(rate), {"rule": "adam", "lr": rate}),
    "adamw": (lambda: optax.adamw(0.1, weight_decay=0.2), {"rule": "adam", "lr": 0.1, **DECOUPLED}),
    "masked adamw": (
        lambda: optax.adamw(0.1, weight_decay=0.2, mask=MASK),
        {"rule": "adam", "lr": 0.1, "decay_mask": MASK, **DECOUPLED},
    ),
    "adamax": (lambda: optax.adamax(0.1, eps=0.5), {"rule": "adamax", "lr": 0.1, "eps": 0.5}),
    "adamaxw": (
        lambda: optax.adamaxw(0.1, weight_decay=0.2),
        {"rule": "adamax", "lr": 0.1, **DECOUPLED},
    ),
    "yogi": (lambda: optax.yogi(0.1), {"rule": "yogi", "lr": 0.1}),
    "simplified_ademamix": (
        lambda: optax.contrib.simplified_ademamix(0.1, alpha=2.0),
        {"lr": 0.1, "alpha": 2.0, "weight_decay": 0.0},
    ),
    "injected": (
        lambda: optax.inject_hyperparams(optax.adamw)(0.1, b1=0.8, weight_decay=0.2),
        {"rule": "adam", "decay": "decoupled"},
    ),
    "wrapped": (
        lambda: optax.apply_if_finite(
            optax.MultiSteps(optax.chain(optax.identity(), optax.adam(0.1)), 1), 3
        ),
        {"rule": "adam", "lr": 0.1, "weight_decay": 0},
    ),
}


@pytest.mark.parametrize("to", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("kind", OPTAX)
def test_from_optax(kind: str, to: str) -> None:
    make, said = OPTAX[kind]
    opt_state, params, want = optax_run(make)
    library = adapter(to)
    with J.session("float64"):
        there = nest({k: library.asarray(x) for k, x in params.items()})
        opt, state = ao.from_optax_state(opt_state, there, **said)
        uncounted = kind in ("sgd", "momentum", "decayed sgd")
        assert int(state.step) == (1 if uncounted else STEPS // 2)
        near(go_on(library, opt, there, state, problem()[1][STEPS // 2 :]), want)


@pytest.mark.parametrize(
    ("make", "said", "message"),
    [
        (lambda: optax.adam(0.1), {}, r"belongs to adam or adamax or .*yogi: say rule="),
        (lambda: optax.adam(0.1), {"rule": "sgd"}, "ScaleByAdamState, which belongs to adam or"),
        (
            lambda: optax.sgd(0.1),
            {"lr": 1.0},
            r"no state of a rule, which belongs to .*sgd or signum: say rule=",
        ),
        (lambda: optax.adam(0.1), {"rule": "adam"}, "does not store the learning rate: give lr="),
        (lambda: optax.sgd(0.1, 0.9), {"lr": 0.1}, "does not store the momentum: give momentum="),
        (
            lambda: optax.adamw(0.1),
            {"rule": "adam", "lr": 0.1},
            "may be weight decay: give weight_decay=",
        ),
        (
            lambda: optax.adamw(0.1),
            {"rule": "adam", "lr": 0.1, "weight_decay": 1e-4},
            'say decay="decoupled"',
        ),
        (
            lambda: optax.lion(0.1),
            {"rule": "adam"},
            "has ScaleByLionState, which belongs to lion: say rule=",
        ),
        (lambda: optax.rprop(0.1), {"rule": "adam"}, "holds ScaleByRpropState, which arrayopt"),
        (lambda: optax.adabelief(0.1), {"rule": "adam"}, "has ScaleByBeliefState, which belongs"),
        (lambda: optax.chain(optax.ema(0.9), optax.adam(0.1)), {"rule": "adam"}, "holds EmaState"),
        (
            lambda: optax.chain(optax.trace(0.9), optax.adam(0.1)),
            {"rule": "adam"},
            "holds TraceState, ScaleByAdamState, which arrayopt cannot",
        ),
        (
            lambda: optax.MultiSteps(optax.adam(0.1), 2),
            {"rule": "adam"},
            "has summed 1 gradients for its next step",
        ),
        (
            lambda: optax.partition({"a": optax.adam(0.1)}, {"head": "a", "stem": "a"}),
            {"rule": "adam"},
            "holds PartitionState",
        ),
        (
            lambda: optax.masked(optax.adam(0.1), {"head": True, "stem": False}),
            {"rule": "adam", "lr": 0.1},
            r"optax's mu has not the paths of params: \['stem'\]\['bias'\] is in params only",
        ),
    ],
)
def test_what_optax_does_not_tell(make: Any, said: Any, message: str) -> None:
    opt_state, params, _ = optax_run(make)
    with J.session("float64"), pytest.raises(ao.CheckpointError, match=message):
        ao.from_optax_state(opt_state, nest(params), **said)
