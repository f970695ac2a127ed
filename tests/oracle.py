"""What rules are compared with: the frameworks' own optimizers, in float64, step by step.

A file ``oracles_<family>.py`` lists ``ORACLES`` for its rules; ``test_catalogue.py`` runs them all,
``python tests/test_catalogue.py`` writes docs/oracles.md, and ``mutants.py`` breaks the rules and
expects them to fail.
"""

import functools
import importlib
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest

from arrayopt import Optimizer

os.environ.setdefault("KERAS_BACKEND", "jax")
STEPS = 30
TOLERANCE = 1e-12  # of the largest value the element had
SHAPES = {"w": (6, 5), "b": (9,), "s": ()}
MATRICES = {"w": (6, 5), "v": (3, 7), "b": (9,)}  # for rules that look at rows and columns
TENSORS = {"w": (5, 4), "v": (3, 4), "b": (9,), "s": (), "c": (4, 2, 3)}  # for those with spectra
Tree = dict[str, np.ndarray]
Problem = tuple[Tree, list[Tree]]
Path = np.ndarray  # every element of every parameter after each step, (steps, elements)


def frozen(x: np.ndarray) -> np.ndarray:
    x.flags.writeable = False
    return x


@functools.cache
def problem(steps: int = STEPS, kind: str = "pauses", seed: int = 20) -> Problem:
    """Read-only parameters and gradients that ask for everything at once.

    Elements of 1e-6 to 1e3, each within a factor of 10 of itself and of random sign; a third are 0
    in step 1, one of each array stays 0 for ever, and a few pause now and then. Parameters are
    small beside what they move, so that an error in the move shows.

    Args:
        kind: "pauses"; "dense", where no gradient is 0; "matrices", of other shapes and dense; or
            "tensors", of yet others, dense and all of one magnitude.
    """
    rng = np.random.default_rng(seed)
    params: Tree = {}
    grads: list[Tree] = [{} for _ in range(steps)]
    for name, shape in {"matrices": MATRICES, "tensors": TENSORS}.get(kind, SHAPES).items():
        scale = 10 ** rng.uniform(-5.5, 2.5, shape)
        scale = np.ones(shape) if kind == "tensors" else scale
        params[name] = frozen(np.asarray(0.1 * rng.standard_normal(shape)))
        first, dead = rng.random(shape) < 1 / 3, np.arange(math.prod(shape)).reshape(shape) == 1
        for t in range(steps):
            wobble = rng.choice([-1.0, 1.0], shape) * 10 ** rng.uniform(-0.5, 0.5, shape)
            zero = dead | (first if t == 0 else rng.random(shape) < 0.1)
            zero &= kind == "pauses"
            grads[t][name] = frozen(np.asarray(np.where(zero, 0.0, scale * wobble)))
    return params, grads


def losses(steps: int = STEPS) -> list[float]:
    """A loss for every step, for rules that read it."""
    return [2.0 + math.cos(k) + 3.0 / (k + 1) for k in range(steps)]


def leaves(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(tree[k]).ravel() for k in sorted(tree)])


def run(
    rule: Any, options: dict[str, Any], params: Tree, grads: Sequence[Tree], **each: Sequence[Any]
) -> Path:
    """Ours: the parameters after each step; ``each`` holds keywords of every step."""
    opt = Optimizer(rule, **options)
    state, path = opt.init(params), []
    for k, g in enumerate(grads):
        params, state = opt.step(params, g, state, **{name: x[k] for name, x in each.items()})
        path.append(leaves(params))
    return np.stack(path)


def run_torch(
    cls: Any,
    options: dict[str, Any],
    params: Tree,
    grads: Sequence[Tree],
    scheduler: Any = None,
    *,
    wide: bool = False,
    before: Callable[[Any, dict[str, Any]], Any] | None = None,
    look: Callable[[Any, dict[str, Any]], dict[str, Any]] = lambda opt, tensors: tensors,
) -> Path:
    """The same by a torch.optim.Optimizer, a name in torch.optim or in ``"module:Class"``.

    Args:
        wide: with float64 as torch's default dtype, in which some hold what is one number.
        before: called with the optimizer and its parameters before each step.
        look: called so after each; gives what is compared in the parameters' place.
    """
    torch = pytest.importorskip("torch")
    if isinstance(cls, str):
        module, _, name = cls.rpartition(":")
        cls = getattr(importlib.import_module(module or "torch.optim"), name)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if wide else default)
    try:
        tensors = {k: torch.nn.Parameter(torch.tensor(p.copy())) for k, p in params.items()}
        opt = cls(list(tensors.values()), **options)
        schedule = None if scheduler is None else scheduler(opt)
        path = []
        for g in grads:
            if before is not None:
                before(opt, tensors)
            for k, p in tensors.items():
                p.grad = torch.tensor(g[k].copy())
            opt.step()
            if schedule is not None:
                schedule.step()
            path.append(leaves({k: x.detach().numpy() for k, x in look(opt, tensors).items()}))
    finally:
        torch.set_default_dtype(default)
    return np.stack(path)


def run_optax(
    make: Callable[[Any], Any],
    params: Tree,
    grads: Sequence[Tree],
    *,
    look: Callable[[Any, Any], Any] = lambda state, params: params,
    **each: Sequence[Any],
) -> Path:
    """The same by the transformation that ``make(optax)`` gives, in 64-bit mode; ``look`` of its
    state and parameters is what is compared in the parameters' place.
    """
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
    compiled = jax.lax.cond

    def cond(choice: Any, yes: Any, no: Any, *args: Any, **named: Any) -> Any:
        """By hand: functions that are made in each step would be compiled in each."""
        if isinstance(choice, jax.core.Tracer):
            return compiled(choice, yes, no, *args, **named)
        return (yes if choice else no)(*args, *named.values())

    with jax.enable_x64(True), mock.patch.object(jax.lax, "cond", cond):
        transform = make(optax)
        params = {k: jax.numpy.array(p) for k, p in params.items()}
        state, path = transform.init(params), []
        for k, g in enumerate(grads):
            g = {k: jax.numpy.array(x) for k, x in g.items()}
            extra = {name: jax.numpy.asarray(x[k]) for name, x in each.items()}
            updates, state = transform.update(g, state, params, **extra)
            params = optax.apply_updates(params, updates)
            assert all(p.dtype == "float64" for p in params.values())
            path.append(leaves(look(state, params)))
    return np.stack(path)


def run_keras(cls: str, options: dict[str, Any], params: Tree, grads: Sequence[Tree]) -> Path:
    """The same by a class of keras.optimizers on its JAX backend, in 64-bit mode.

    Keras computes means and norms in float32 even then, unless a table of its own says otherwise.
    """
    jax, keras = pytest.importorskip("jax"), pytest.importorskip("keras")
    table = importlib.import_module("keras.src.backend.common.dtypes").BIT64_TO_BIT32_DTYPE
    with jax.enable_x64(True), mock.patch.dict(table, {"float64": "float64"}):
        before = keras.config.floatx()
        keras.config.set_floatx("float64")
        try:
            variables = {k: keras.Variable(p.copy(), dtype="float64") for k, p in params.items()}
            opt = getattr(keras.optimizers, cls)(**options)
            opt.build(list(variables.values()))
            path = []
            for g in grads:
                opt.apply([jax.numpy.array(g[k]) for k in variables], list(variables.values()))
                path.append(leaves({k: np.asarray(v.value) for k, v in variables.items()}))
        finally:
            keras.config.set_floatx(before)
    return np.stack(path)


def deviation(ours: Path, theirs: Path) -> float:
    """The largest difference of any element in any step, in units of its own largest value."""
    size = np.max(np.abs(theirs), axis=0)
    assert ours.shape == theirs.shape
    assert np.all(np.isfinite(theirs))
    return float(np.max(np.abs(ours - theirs) / size))


class Oracle(NamedTuple):
    """A rule beside somebody else's optimizer.

    ``theirs`` is called with the problem, and with ``value``, the losses, if ``value`` is set. It
    must move on its own: nothing of this library may run in it.
    """

    rule: str
    options: dict[str, Any]  # ours
    against: str  # as the documentation calls it: "torch.optim.RMSprop(centered=True)"
    theirs: Callable[..., Path]
    kind: str = "pauses"  # of the problem
    steps: int = STEPS
    value: bool = False  # whether both read a loss in every step
    bound: float = TOLERANCE
    why: str = ""  # where the bound is another one

    def problem(self) -> Problem:
        return problem(self.steps, self.kind)

    def each(self) -> dict[str, Sequence[Any]]:
        return {"value": losses(self.steps)} if self.value else {}

    def error(self) -> float:
        """How far apart the two are."""
        ours = run(self.rule, self.options, *self.problem(), **self.each())
        return deviation(ours, self._expected())

    def _expected(self) -> Path:
        key = id(self.theirs), self.kind, self.steps
        if key not in _KNOWN:  # mutants are many, and theirs is the same each time
            _KNOWN[key] = self.theirs(*self.problem(), **self.each()), self.theirs
        return _KNOWN[key][0]


_KNOWN: dict[Any, tuple[Path, Any]] = {}


def words_of(options: dict[str, Any]) -> str:
    """Options as one writes them in a call."""
    return ", ".join(f"{k}={v!r}" for k, v in options.items())


def torch_oracle(
    rule: str, ours: dict[str, Any], cls: str, theirs: dict[str, Any], **more: Any
) -> Oracle:
    """Beside a class of torch.optim, or ``"module:Class"``."""
    module, _, name = cls.rpartition(":")
    against = f"{module or 'torch.optim'}.{name}({words_of(theirs)})"
    return Oracle(rule, ours, against, functools.partial(run_torch, cls, theirs), **more)


def optax_oracle(
    rule: str, ours: dict[str, Any], against: str, make: Callable[[Any], Any], **more: Any
) -> Oracle:
    """Beside an optax transformation; ``against`` is its spelling."""
    return Oracle(rule, ours, against, functools.partial(run_optax, make), **more)


def keras_oracle(
    rule: str, ours: dict[str, Any], cls: str, theirs: dict[str, Any], **more: Any
) -> Oracle:
    """Beside a class of keras.optimizers."""
    against = f"keras.optimizers.{cls}({words_of(theirs)})"
    return Oracle(rule, ours, against, functools.partial(run_keras, cls, theirs), **more)
