"""The contestants of :mod:`arrayopt.bench`, each with parameters of its own.

A peer is here for the rules of which it computes the same numbers.
"""

import functools
import importlib.util
import inspect
from collections.abc import Callable, Container
from typing import Any

import numpy as np

from .. import rules
from .._schema import each_step
from .._step import is_elementwise
from ..optimizer import Optimizer
from .problem import Entry, Problem, roof

TORCH: dict[str, tuple[str, dict[str, Any]]] = {
    "adam": ("Adam", {}),
    "adamax": ("Adamax", {}),
    "amsgrad": ("Adam", {"amsgrad": True}),
    "sgd": ("SGD", {}),
}
KERAS = TORCH
OPTAX = ("adam", "adamax", "sgd", "simplified_ademamix", "yogi")
PYTORCH_OPTIMIZER = {"adamax": "AdaMax", "adan": "Adan", "laprop": "LaProp", "yogi": "Yogi"}


def in_place(problem: Problem, how: Any) -> Entry:
    """Our NumPy engines."""
    from ..backends.numpy import InPlace

    params, box = [x.copy() for x in problem.params], [problem.grads]
    optimizer = InPlace(params, problem.rule, engine=how, threads=problem.threads)

    def feed() -> None:
        box[0] = [x.copy() for x in box[0]]

    told = dict.fromkeys(each_step(optimizer.optimizer.rule), 1.0)
    return Entry(lambda: optimizer.step(box[0], **told), feed, lambda: params)


def whole(problem: Problem) -> Entry:
    """The rule as it is written, over whole NumPy arrays."""
    optimizer = Optimizer(problem.rule)
    box: list[Any] = [[x.copy() for x in problem.params], problem.grads]
    box.append(optimizer.init(box[0]))

    def step() -> None:
        box[0], box[2] = optimizer.step(*box)

    def feed() -> None:
        box[1] = [x.copy() for x in box[1]]

    return Entry(step, feed, lambda: box[0])


def our_torch(problem: Problem) -> Entry:
    from ..backends import torch as ours

    cls = next(c for c in ours.CLASSES.values() if c._form.core.name == problem.rule)
    return _of_torch(problem, functools.partial(cls, engine="fused"))


def of_torch_optim(problem: Problem, **mode: bool) -> Entry:
    """``torch.optim``, in one of its modes."""
    import torch

    name, more = TORCH[problem.rule]
    options = _options(problem, lr="lr", eps="eps") | more | mode
    return _of_torch(problem, functools.partial(getattr(torch.optim, name), **options))


def of_pytorch_optimizer(problem: Problem) -> Entry:
    import pytorch_optimizer

    cls = getattr(pytorch_optimizer, PYTORCH_OPTIMIZER[problem.rule])
    options = _options(problem, lr="lr", eps="eps")
    # its Adan writes into the gradients
    return _of_torch(problem, functools.partial(cls, **options), problem.tensors(problem.grads))


def _options(problem: Problem, **names: str) -> dict[str, Any]:
    """Our hyperparameters by a peer's names; ``betas`` together unless they are named."""
    hyper = problem.hyper
    found = {names[k]: hyper[k] for k in names if k in hyper}
    if "b1" in hyper and "b1" not in names:
        found["betas"] = tuple(hyper[k] for k in ("b1", "b2", "b3") if k in hyper)
    return found


def _of_torch(problem: Problem, make: Callable[[Any], Any], grads: Any = None) -> Entry:
    params = [x.requires_grad_() for x in problem.tensors(problem.params)]
    for p, g in zip(params, grads or problem.torch_grads, strict=True):
        p.grad = g
    optimizer = make(params)

    def feed() -> None:
        for p, g in [(p, p.grad.clone()) for p in params]:  # all new before any old one goes
            p.grad = g

    return Entry(
        lambda: optimizer.step() and None,
        feed,
        lambda: [p.detach().double().numpy() for p in params],
    )


def our_jax(problem: Problem) -> Entry:
    from ..backends import jax as ours

    optimizer = Optimizer(problem.rule)
    grads, params = problem.jax_grads, problem.jax_arrays(problem.params)
    step = ours.step(optimizer)
    return _of_jax(problem, lambda p, s, g: step(p, g, s), params, optimizer.init(params), grads)


def of_optax(problem: Problem) -> Entry:
    import optax

    jax = problem.jax()
    make = getattr(optax, problem.rule, None) or getattr(optax.contrib, problem.rule)
    names = {k: k for k in inspect.signature(make).parameters} | {"lr": "learning_rate"}
    if "b1" not in names:
        names["b1"] = "b1"  # that there are no betas
    given = {k: v for k, v in names.items() if v in inspect.signature(make).parameters}
    transformation = make(**_options(problem, **given))
    grads, params = problem.jax_grads, problem.jax_arrays(problem.params)

    def step(p: Any, s: Any, g: Any) -> Any:
        updates, s = transformation.update(g, s, p)
        return optax.apply_updates(p, updates), s

    step = jax.jit(step, donate_argnums=(0, 1))
    return _of_jax(problem, step, params, transformation.init(params), grads)


def of_keras(problem: Problem) -> Entry:
    """Keras on JAX, by its own function for jitted steps."""
    jax = problem.jax()
    import keras

    if keras.backend.backend() != "jax":
        raise ImportError(f"keras runs on {keras.backend.backend()} here, not on JAX")
    name, more = KERAS[problem.rule]
    names = {"lr": "learning_rate", "b1": "beta_1", "b2": "beta_2", "eps": "epsilon"}
    optimizer = getattr(keras.optimizers, name)(**_options(problem, **names), **more)
    variables = [keras.Variable(x) for x in problem.params]
    optimizer.build(variables)
    params, state = ([v.value for v in vs] for vs in (variables, optimizer.variables))
    step = jax.jit(lambda p, s, g: optimizer.stateless_apply(s, g, p), donate_argnums=(0, 1))
    return _of_jax(problem, step, params, state, problem.jax_grads)


def _of_jax(problem: Problem, update: Any, params: Any, state: Any, grads: Any) -> Entry:
    jax = problem.jax()
    box = [params, state, grads]

    def step() -> None:
        box[:2] = jax.block_until_ready(update(*box))

    def feed() -> None:
        box[2] = jax.block_until_ready([g.copy() for g in box[2]])

    return Entry(step, feed, lambda: [np.asarray(x) for x in box[0]])


OURS: dict[str, Callable[[Problem], Entry]] = {
    "arrayopt numpy fused": functools.partial(in_place, how="fused"),
    "arrayopt numpy blocks": functools.partial(in_place, how="blocks"),
    "arrayopt numpy eager": whole,
    "arrayopt torch": our_torch,
    "arrayopt jax": our_jax,
}
ROOFS: dict[str, Callable[[Problem], Entry]] = {
    "roof numpy": functools.partial(roof, torch=False),
    "roof torch": functools.partial(roof, torch=True),
}
PEERS: dict[str, Callable[[Problem], Entry]] = {
    "torch single": functools.partial(of_torch_optim, foreach=False),
    "torch foreach": functools.partial(of_torch_optim, foreach=True),
    "torch fused": functools.partial(of_torch_optim, fused=True),
    "pytorch_optimizer": of_pytorch_optimizer,
    "optax": of_optax,
    "keras": of_keras,
}
CONTESTANTS: dict[str, Callable[[Problem], Entry]] = {**OURS, **PEERS, **ROOFS}
NEEDS = {"torch": ("torch",), "jax": ("jax",), "optax": ("jax", "optax"), "keras": ("jax", "keras")}
NEEDS |= {"pytorch_optimizer": ("torch", "pytorch_optimizer")}  # by any word of the name


def missing(name: str) -> str | None:
    """The package that a contestant lacks here, if it does."""
    needed = [p for word in name.split() for p in NEEDS.get(word, ())]
    return next((p for p in needed if importlib.util.find_spec(p) is None), None)


def takes_part(name: str, rule: str, dtype: str) -> bool:
    """Whether a contestant has the rule and the dtype."""
    found = rules.find(rule)
    if each_step(found):  # there is no loss here
        return False
    if not is_elementwise(found) and name not in ("arrayopt numpy eager", "arrayopt jax"):
        return False  # the rest are loops over elements
    has: dict[str, Container[str]] = {"optax": OPTAX, "keras": KERAS}
    has |= {"pytorch_optimizer": PYTORCH_OPTIMIZER}
    has |= {"arrayopt jax": {*OPTAX, *KERAS}}  # alone it would show nothing
    if name.startswith("torch "):
        return rule in TORCH and not (name == "torch fused" and rule == "adamax")
    if name == "keras" and dtype != "float32":
        return False
    if dtype == "bfloat16" and "torch" not in name:
        return False
    return name not in has or rule in has[name]
