"""JAX arrays; every rule as an optax transformation; a jitted step that donates its buffers.

optax is needed only by :func:`transformation` and by the factories, one for each rule, that are
attributes of this module by the rule's name: ``adamax(learning_rate, b1, b2, ...)``.
"""

import contextlib
import functools
import inspect
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

import arrayopt as ao
from arrayopt._namespace import cast, compute_dtype
from arrayopt._options import DECAYS
from arrayopt._schema import Hyper, each_step, hyperparameters, name_of
from arrayopt._step import is_off

from ._common import extra, settle, usable

with extra("jax"):
    import jax
    import jax.numpy as jnp

__all__ = [
    "DTYPES",
    "TransformationState",
    "about",
    "asarray",
    "asnumpy",
    "compiled",
    "engines",
    "session",
    "settle",
    "step",
    "transformation",
    "usable",
]
DTYPES = ("float16", "bfloat16", "float32", "float64")
F = TypeVar("F")
LAST = 2**31 - 2  # the counter stays at the largest int32 once it is there


def session(dtype: str) -> contextlib.AbstractContextManager[Any]:
    """64-bit mode for float64."""
    return jax.enable_x64(dtype == "float64")


def compiled(function: F) -> F:
    """The function under ``jax.jit``."""
    return jax.jit(function)


def asarray(x: np.ndarray) -> jax.Array:
    return jax.numpy.array(x)


def asnumpy(x: jax.Array) -> np.ndarray:
    return np.asarray(x)


def about() -> str:
    return f"jax {jax.__version__}, {jax.default_backend()}"


def engines(optimizer: ao.Optimizer) -> dict[str, str | None]:
    """What can carry out steps, the preferred first: see :func:`step`."""
    return {"jit": None, "eager": None}


def step(optimizer: ao.Optimizer) -> Any:
    """``optimizer.step`` under ``jax.jit``, updating parameters and state in their own memory.

    The function that is returned is called like ``Optimizer.step``. It is given the buffers of
    ``params`` and ``state`` ("donated"): use what it returns, for those arrays are gone, under any
    other name too. Gradients stay. A hyperparameter given to a single step (``lr=0.1``) is traced,
    so that another value compiles nothing; options and choices are static.

    >>> import arrayopt as ao, jax.numpy as jnp
    >>> optimizer = ao.Optimizer("sgd", lr=0.5)
    >>> params = {"w": jnp.ones(2)}
    >>> state, advance = optimizer.init(params), step(optimizer)
    >>> params, state = advance(params, {"w": jnp.asarray([1.0, 0.0])}, state)
    >>> params["w"].tolist()
    [0.5, 1.0]
    """
    static = [k for k, h in hyperparameters(optimizer.rule).items() if isinstance(h.legal, tuple)]
    return jax.jit(optimizer.step, donate_argnames=("params", "state"), static_argnames=static)


class TransformationState(NamedTuple):
    """State of an optax transformation; ``arrayopt.State(*it)`` is that of the optimizer."""

    count: Any  # number of steps taken: 0-d, int32
    shared: Any  # the rule's Shared, of 0-d arrays; () if it has none
    slots: Any  # the rule's State; each slot a tree like the parameters, or () if it is off


def transformation(rule: Any, *, mask: Any = None, **options: Any) -> Any:
    """A rule as an ``optax.GradientTransformationExtraArgs``.

    Args:
        rule: a module such as ``arrayopt.adamax``, or its name.
        mask: which parameters decay: a tree of bools like the parameters or a prefix of it, or a
            function that makes one from them. All do if it is None.
        options: ``weight_decay``, ``decay`` and the rule's hyperparameters, as for
            :class:`arrayopt.Optimizer`. Each may be traced, or a schedule of the count.

    ``update(grads, state, params)`` needs the parameters, and returns in each gradient's dtype what
    ``optax.apply_updates`` adds to them; None where the gradient is None. Arguments that it does
    not know are ignored. ``init`` of ``jax.ShapeDtypeStruct`` leaves gives a state of such.

    A rule gives the new parameter, so that the update is ``new - old``: it is off by up to half an
    ulp of the larger one, and so is their sum, where ``Optimizer.step`` rounds once. With float16
    and bfloat16 parameters the difference is that of float32 numbers, and then rounded to the
    gradient's dtype; state is float32. ``optax.inject_hyperparams`` turns hyperparameters into the
    parameters' dtype, and 0.999 into 1 in bfloat16: give it ``hyperparam_dtype=jnp.float32`` then.

    A rule with state of the whole optimizer (MADA) sums over the parameters that it is given: with
    ``optax.partition`` and ``optax.masked``, over those of its own part.
    """
    optax = _optax()
    for name in ("decay_mask", "maximize", "nonfinite"):
        if name in options:
            instead = {"decay_mask": "mask", "nonfinite": "optax.apply_if_finite"}
            hint = instead.get(name, "optax.scale(-1.0) before it")
            who = rule if isinstance(rule, str) else name_of(rule)
            raise TypeError(f"{who}: a transformation takes no {name}; use {hint}")
    choose = None if mask is None else functools.partial(_spread, mask)
    opt = ao.Optimizer(rule, decay_mask=choose, **options)

    def init(params: Any) -> TransformationState:
        params = jax.tree.map(_strong, params)
        leaves = jax.tree.leaves(params)
        if not leaves:
            return _without_leaves(opt, params)
        if any(isinstance(x, jax.ShapeDtypeStruct) for x in leaves):
            return jax.eval_shape(init, params)
        return TransformationState(*opt.init(params))

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        if params is None:
            raise ValueError(f"{opt.name}: give the parameters too: update(grads, state, params)")
        if getattr(state, "_fields", None) != TransformationState._fields:
            got = type(state).__name__
            raise TypeError(f"{opt.name}: state must be what init or update gave, got {got}")
        params, grads = jax.tree.map(_strong, params), jax.tree.map(_strong, grads)
        count = jnp.minimum(state.count, LAST)
        if not jax.tree.leaves(params):
            return grads, state._replace(count=count + 1)
        given = {k: extra[k] for k in each_step(opt.rule) if k in extra}
        todo = opt.plan(params, grads, ao.State(count, state.shared, state.slots), given)
        updates: list[Any] = [None] * len(todo.slots)
        slots = list(todo.slots)
        wide = [cast(x.param, compute_dtype(x.param.dtype, jnp), jnp) for x in todo.parts]
        parts = [part._replace(param=old) for part, old in zip(todo.parts, wide, strict=True)]
        moved, shared = opt.moved(parts, state.shared, jnp)
        for i, part, (new, after) in zip(todo.places, parts, moved, strict=True):
            updates[i], slots[i] = cast(new - part.param, part.grad.dtype, jnp), after
        after = TransformationState(count + 1, shared, opt.trees(todo.tree, slots))
        return todo.tree.join(updates), after

    return optax.GradientTransformationExtraArgs(init, update)


def _strong(x: Any) -> Any:
    """A number or array as an array of JAX without weak type, which no state could keep."""
    if isinstance(x, int | float | np.ndarray | np.generic):
        x = jnp.asarray(x)
    return x.astype(x.dtype) if getattr(x, "weak_type", False) else x


def _spread(mask: Any, params: Any) -> Any:
    """The mask as a tree like the parameters."""
    found = jax.tree.leaves(mask)
    if found and all(map(callable, found)):  # as in optax: a callable module may be a tree of bools
        mask = mask(params)

    def whole(m: Any, part: Any) -> Any:
        m = bool(m) if str(getattr(m, "dtype", "")) == "bool" else m
        return jax.tree.map(lambda _: m, part)

    return jax.tree.map(whole, mask, params)


def _without_leaves(opt: ao.Optimizer, params: Any) -> TransformationState:
    """The state for a tree without arrays: all are masked, or optax asks for a state's layout.

    In the latter (``optax.tree.map_params``) a slot of 0-d arrays is none of the trees that are
    shaped, and so sharded, like the parameters.
    """
    step, shared, slots = opt.init(jnp.ones(2, jnp.float32))
    layout = type(params).__name__ == "_ParamsPlaceholder"
    trees = [s if is_off(s) or (layout and s.shape == ()) else params for s in slots]
    return TransformationState(step, shared, type(slots)(*trees))


def _optax() -> Any:
    try:
        import optax
    except ImportError as error:
        raise ImportError(f'this needs optax: pip install "arrayopt[jax]" ({error})') from error
    return optax


@functools.cache
def _factory(name: str) -> Any:
    """A function of the rule's hyperparameters that makes its transformation."""
    rule, optax = ao.rules.find(name), _optax()
    known = {k: h for k, h in hyperparameters(rule).items() if not h.each_step}
    found = {"learning_rate" if k == "lr" else k: _parameter(h) for k, h in known.items()}
    how = getattr(rule, "DECAY", "decoupled")
    found |= {"weight_decay": (0.0, optax.ScalarOrSchedule), "mask": (None, Any)}
    found["decay"] = (how, Literal[DECAYS])
    signature = inspect.Signature(
        [
            inspect.Parameter(k, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=d, annotation=a)
            for k, (d, a) in sorted(found.items(), key=lambda p: p[0] != "learning_rate")
        ],
        return_annotation=optax.GradientTransformationExtraArgs,
    )

    def make(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        options = {"lr" if k == "learning_rate" else k: v for k, v in bound.arguments.items()}
        return transformation(rule, **options)

    choices = [k for k, h in known.items() if isinstance(h.legal, tuple)]
    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"{inspect.getdoc(rule)}\n\n{_NOTES}"
    make.__signature__ = signature  # type: ignore[attr-defined]
    make.static_args = (*choices, "mask", "decay")  # type: ignore[attr-defined]
    return make


_NOTES = """
As an optax transformation; see :func:`arrayopt.backends.jax.transformation`. ``learning_rate`` is
``lr``. For ``optax.inject_hyperparams`` the static arguments are this function's ``static_args``.
""".strip()


def _parameter(hyper: Hyper) -> tuple[Any, Any]:
    """Default and type of a factory's argument."""
    if isinstance(hyper.legal, tuple):
        return hyper.default, bool if hyper.legal == (False, True) else Literal[hyper.legal]
    kind = jax.typing.ArrayLike if hyper.start else _optax().ScalarOrSchedule
    return hyper.default, kind | None if hyper.optional else kind


def __getattr__(name: str) -> Any:  # a rule's factory, made on first use
    if name in ao.rules.names():
        return globals().setdefault(name, _factory(name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *ao.rules.names()])
