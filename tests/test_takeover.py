"""Runs of every optimizer of torch.optim and optax that has a rule here, taken over half way.

The tables of ``arrayopt/_like`` say which there are: a new row is tested by itself, with the
options that test_like.py has for it.
"""

import contextlib
import copy
import functools
import warnings
from typing import Any
from unittest import mock

import numpy as np
import optree
import pytest
from oracle import leaves, losses, problem, run_optax, run_torch
from test_like import BOUNDS, CASES, needed, original, reads_loss, start

import arrayopt as ao
from arrayopt._from_optax import OPTAX
from arrayopt._like import load

torch, optax = pytest.importorskip("torch"), pytest.importorskip("optax")
jax = pytest.importorskip("jax")
STEPS, HALF = 10, 5
# Rules that estimate a distance, and a rate with which they go farther than at first estimated.
FAR = {"dadapt_adam": 0.5, "dog": 4.0, "dowg": 4.0, "prodigy": 4.0}


def cases(framework: str) -> list[Any]:
    """Every row, with options that are not the defaults."""
    return [
        pytest.param(name, options | far, id=f"{name}-{i}")
        for name, row in load(framework).rows.items()
        for far in [{"learning_rate": FAR[row.rule]} if row.rule in FAR else {}]
        for i, options in enumerate(CASES.get((framework, name), [needed(row)]))
    ]


def problem_of(framework: str, name: str) -> Any:
    """Parameters and gradients; those that an estimate of a distance grows by, where there is."""
    params, grads = start(framework, name, STEPS)
    if load(framework).rows[name].rule not in FAR:
        return params, grads
    return params, [{k: np.sign(params[k]) * np.abs(x) for k, x in g.items()} for g in grads]


class Look:
    """The state and the parameters after half of the steps, and after all."""

    def __init__(self) -> None:
        self.steps = 0
        self.found: list[Any] = []

    def __call__(self, state: Any, params: Any) -> Any:
        self.steps += 1
        if self.steps in (HALF, STEPS):
            there = {k: np.asarray(x).copy() for k, x in params.items()}
            self.found.append((copy.deepcopy(state), there))
        return params


def torch_run(name: str, options: dict[str, Any], params: Any, grads: Any) -> Any:
    """What was after half of the steps, and at the end; every element after each."""
    look = Look()

    def detached(opt: Any, tensors: Any) -> Any:
        look(opt.state_dict(), {k: x.detach().numpy() for k, x in tensors.items()})
        return tensors

    exact = mock.patch.object(torch.Tensor, "bfloat16", lambda x: x.clone())
    with exact if name == "Muon" else contextlib.nullcontext():
        path = run_torch(name, options, params, grads, wide=True, look=detached)
    return *look.found, path


def optax_run(make: Any, params: Any, grads: Any, **each: Any) -> Any:
    look = Look()

    def jitted(_: Any) -> Any:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            made = make()
        return made._replace(update=jax.jit(made.update))

    path = run_optax(jitted, params, grads, look=look, **each)
    return *look.found, path


def goes_on(taken: list[Any], grads: Any, path: Any, bound: float = 1e-12) -> None:
    """Ours, from what was taken over at half, has the parameters of theirs after each step, and at
    the end the state that is taken over there.
    """
    (opt, params, state), end = taken
    each = losses(STEPS) if "value" in ao.hyperparameters(opt.rule) else None
    for k in range(HALF, STEPS):
        extra = {} if each is None else {"value": each[k]}
        params, state = opt.step(params, grads[k], state, **extra)
        apart = np.abs(leaves(params) - path[k]) / np.max(np.abs(path), axis=0)
        assert np.max(apart) < bound, k + 1
    opt, _, want = end
    assert int(want.step) in (1, STEPS)  # 1 where theirs counts none
    assert int(state.step) - HALF in (1, HALF)
    shared = OPTAX[opt.name].shared if want.shared != () else {}
    for name, ours, theirs in [
        *((f, getattr(state.slots, f), getattr(want.slots, f)) for f in want.slots._fields),
        *((f, getattr(state.shared, f), getattr(want.shared, f)) for f in shared),
    ]:
        for x, y in zip(optree.tree_leaves(ours), optree.tree_leaves(theirs), strict=True):
            assert np.max(np.abs(x - y)) <= bound * np.max(np.abs(y)), name


@pytest.mark.parametrize(("name", "options"), cases("torch"))
def test_from_torch(name: str, options: dict[str, Any]) -> None:
    params, grads = problem_of("torch", name)
    *found, path = torch_run(name, options, params, grads)
    taken = []
    for state_dict, there in found:
        opt, state = ao.from_torch_state_dict(state_dict, there)
        taken.append((opt, there, state))
    goes_on(taken, grads, path)


@pytest.mark.parametrize(("name", "options"), cases("optax"))
def test_from_optax(name: str, options: dict[str, Any]) -> None:
    params, grads = problem_of("optax", name)
    each = {"value": losses(STEPS)} if reads_loss(load("optax").rows[name]) else {}
    make = functools.partial(original("optax", name), **options)
    with jax.enable_x64(True):
        *found, path = optax_run(make, params, grads, **each)
        taken = []
        for opt_state, there in found:
            rule = ao.like("optax", name, **options)
            opt, state = ao.from_optax_state(opt_state, there, rule=rule)
            taken.append((opt, there, state))
    goes_on(taken, grads, path, BOUNDS.get(("optax", name), (1e-12,))[0])


# By names, with our keywords

RATE = {"lr": 0.1}
NAMED: dict[str, tuple[Any, dict[str, Any]]] = {
    "adagrad": (lambda: optax.adagrad(0.1), RATE),  # told by its state; optax's defaults
    "lars": (lambda: optax.lars(0.1, momentum=0.8), RATE | {"rule": "lars", "momentum": 0.8}),
    "adamw": (lambda: optax.adamw(0.1), RATE | {"rule": "adamw"}),  # its decay, and how it acts
    "nadam": (lambda: optax.adam(0.1, nesterov=True), RATE | {"rule": "nadam"}),
    "dadapt_adam": (lambda: optax.contrib.dadapt_adamw(0.5), {"rule": "dadapt_adam", "lr": 0.5}),
    "ours": (lambda: optax.novograd(0.1), RATE | {"rule": ao.novograd}),
    "injected": (
        lambda: optax.inject_hyperparams(optax.rmsprop)(0.1, decay=0.7, momentum=0.6),
        {},
    ),
    "decayed": (
        lambda: optax.chain(optax.add_decayed_weights(0.2), optax.amsgrad(0.1)),
        RATE | {"weight_decay": 0.2, "decay": "coupled"},
    ),
    "override": (
        lambda: optax.adan(0.1),
        {"rule": ao.like("optax", "adan", learning_rate=0.3), "lr": 0.1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", NAMED)
def test_from_optax_by_name(kind: str) -> None:
    make, said = NAMED[kind]
    params, grads = problem(STEPS)
    with jax.enable_x64(True):
        *found, path = optax_run(make, params, grads)
        taken = []
        for opt_state, there in found:
            opt, state = ao.from_optax_state(opt_state, there, **said)
            taken.append((opt, there, state))
    goes_on(taken, grads, path)


@pytest.mark.parametrize(
    ("make", "said", "message"),
    [
        (lambda: optax.adabelief(0.1), {}, "ScaleByBeliefState, which belongs to acprop or adab"),
        (lambda: optax.lion(0.1), {"rule": "adam"}, "ScaleByLionState, which belongs to lion: say"),
        (lambda: optax.lion(0.1), {}, "does not store the learning rate: give lr="),
        (lambda: optax.rprop(0.1), {}, "holds ScaleByRpropState, which arrayopt cannot take up"),
        (lambda: optax.adam(0.1), {"rule": "rprop"}, "optax's rprop has no counterpart here"),
        (lambda: optax.adam(0.1), {"rule": "madam"}, "no optimizer 'madam' known here"),
        (lambda: optax.signum(0.1), RATE, "has EmaState, which belongs to signum: say rule="),
        (lambda: optax.fromage(0.1), RATE, "no state of a rule, which belongs to fromage or lars"),
        (
            lambda: optax.rmsprop(0.1, momentum=0.9),
            RATE,
            "holds trace, for which rmsprop has no slot: .*centered= or .*momentum=",
        ),
        (
            lambda: optax.rmsprop(0.1),
            RATE | {"momentum": 0.9},
            r"the slot 'm' of \['b'\], which rmsprop has with these options, is not in the state",
        ),
        (
            lambda: optax.rmsprop(0.1, momentum=0.9),
            {"lr": lambda k: 0.1, "momentum": 0.9},
            "lr must be a number, not 0",
        ),
        (
            lambda: optax.contrib.schedule_free_sgd(0.1),
            {"lr": lambda k: 0.1},
            "weighs each step by the rate of the next",
        ),
        (
            lambda: optax.contrib.muon(0.1),
            {"rule": "muon"} | RATE,
            "holds MuonState, ScaleByAdamState, which arrayopt cannot take up",
        ),
        (
            lambda: optax.inject_hyperparams(optax.amsgrad)(0.1),
            {"rule": ao.like("optax", "lion", learning_rate=0.1)},
            "ScaleByAmsgradState, which belongs to amsgrad",
        ),
    ],
)
def test_what_optax_does_not_tell(make: Any, said: dict[str, Any], message: str) -> None:
    params, _ = problem(1)
    params = {k: params[k] for k in "wb"}
    with jax.enable_x64(True):
        opt_state = make().init({k: jax.numpy.asarray(x) for k, x in params.items()})
        with pytest.raises(ao.CheckpointError, match=message):
            ao.from_optax_state(opt_state, params, **said)


def stepped(make: Any) -> tuple[Any, Any]:
    """A state dict after one step, and the parameter."""
    x = torch.nn.Parameter(torch.ones((3, 2), dtype=torch.float64))
    opt = make([x])
    x.grad = torch.ones_like(x)
    opt.step()
    return opt.state_dict(), [x.detach().numpy()]


def test_what_torch_does_not_tell() -> None:
    state_dict, params = stepped(torch.optim.RAdam)
    group = state_dict["param_groups"][0]
    assert ao.from_torch_state_dict(state_dict, params)[0].name == "radam"
    del group["decoupled_weight_decay"]  # as in an older torch
    with pytest.raises(ao.CheckpointError, match=r"cannot tell which optimizer .*say rule="):
        ao.from_torch_state_dict(state_dict, params)
    assert ao.from_torch_state_dict(state_dict, params, rule="radam")[0].hyper["eps_hat"]
    state_dict, params = stepped(torch.optim.RMSprop)
    state_dict["param_groups"][0]["lr_in_momentum"] = True  # some other RMSprop
    with pytest.raises(ao.CheckpointError, match=r"known are ASGD, .*lr_in_momentum"):
        ao.from_torch_state_dict(state_dict, params)
    assert ao.from_torch_state_dict(state_dict, params, rule="rmsprop")[0].name == "rmsprop"
    lost = state_dict | {"state": {0: {"step": 1, "momentum_buffer": params[0]}}}
    with pytest.raises(ao.CheckpointError, match=r"'v' of \[0\], which rmsprop has with these"):
        ao.from_torch_state_dict(lost, params, rule="rmsprop")
    state_dict, params = stepped(lambda p: torch.optim.Adafactor(p, weight_decay=0.1))
    with pytest.raises(ao.CheckpointError, match=r"torch.optim.Adafactor: weight_decay=0.1 cannot"):
        ao.from_torch_state_dict(state_dict, params)
    state_dict, params = stepped(torch.optim.Adam)
    with pytest.raises(ao.CheckpointError, match="the state dict is of adam, not of amsgrad"):
        ao.from_torch_state_dict(state_dict, params, rule="amsgrad")


def test_half_precision_of_torch_goes_on_in_jax() -> None:
    x = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    made = torch.optim.RMSprop([x])
    x.grad = torch.full_like(x, 3.0)
    made.step()
    params = [jax.numpy.asarray(x.detach().float().numpy(), dtype="bfloat16")]
    opt, state = ao.from_torch_state_dict(made.state_dict(), params)
    assert state.slots.v[0].dtype == "float32"
    assert np.array_equal(state.slots.v[0], made.state[x]["square_avg"].float().numpy())
    assert opt.step(params, params, state)[0][0].dtype == "bfloat16"
