"""Optimizers of complex arrays: as two reals each, or by their modulus."""

import sys
from typing import Any

import numpy as np

from ._modulus import Modulus, by_modulus, complex_of, is_complex, plain
from ._namespace import is_array, known, library, namespace
from ._plan import check_state, resolve, split
from ._schema import each_step
from ._tree import Tree
from ._types import Array


def pairs(x: Array) -> Array:
    """A complex array as a real one with a last axis of 2: a view of it, in NumPy and torch."""
    xp = namespace(x)
    if library(xp) == "numpy":
        return x[..., None].view(x.real.dtype)
    if library(xp) == "torch":
        return sys.modules["torch"].view_as_real(x.resolve_conj())
    return xp.stack([xp.real(x), xp.imag(x)], axis=-1)


def joined(x: Array) -> Array:
    """The complex array that :func:`pairs` has taken apart."""
    xp = namespace(x)
    wide = complex_of(x.dtype, xp)
    if library(xp) == "numpy":
        return np.ascontiguousarray(x).view(wide)[..., 0]
    if library(xp) == "torch":
        return sys.modules["torch"].view_as_complex(x.contiguous())
    if library(xp) == "jax":
        return sys.modules["jax"].lax.complex(x[..., 0], x[..., 1])
    return xp.astype(x[..., 0], wide) + 1j * xp.astype(x[..., 1], wide)


def seen(mode: str, tree: Any) -> Any:
    """A tree as the rule is to see it."""
    found = Tree(tree)
    return found.join([_seen(mode, x) for x in found.leaves])


def reals(
    optimizer: Any, params: Any, grads: Any, state: Any, override: dict[str, Any]
) -> tuple[Any, Any]:
    """Parameters and gradients as the rule is to see them; raises where they do not fit."""
    who, mode, tree = optimizer.name, optimizer.complex, Tree(params)
    check_state(who, state)
    found = split(who, "gradients", tree, grads)
    for path, p, g in zip(tree.paths, tree.leaves, found, strict=True):
        if g is not None and is_array(g) and is_complex(g) != is_complex(p):
            raise TypeError(
                f"{who}: gradient of {path} must be {'complex' if is_complex(p) else 'real'} as "
                f"the parameter is, got dtype {g.dtype}"
            )
    if mode == "two_reals":
        count = state.step
        count = count if isinstance(count, int) else known(count, namespace(count))
        values = resolve(optimizer.rule, optimizer.hyper, override, count)
        for name in (k for k, v in values.items() if getattr(v, "shape", ()) != ()):
            raise ValueError(f"{who}: with complex='two_reals' {name} must be a number or 0-d")
    return seen(mode, params), tree.join([_seen(mode, g) for g in found])


def within(optimizer: Any, params: Any, **changed: Any) -> Any:
    """The optimizer of what the rule sees in the place of ``params``."""
    new = object.__new__(type(optimizer))
    vars(new).update(vars(optimizer) | {"complex": None} | changed)
    if callable(new.decay_mask):
        new.decay_mask = new.decay_mask(params)  # it may ask for their shapes
    return new


def init(optimizer: Any, params: Any) -> Any:
    """``Optimizer.init``."""
    mode = optimizer.complex
    state = within(optimizer, params).init(seen(mode, params))
    if mode == "two_reals":
        return state
    return _arrays(_promoted(state, optimizer.complex_slots, Tree(params)))


def step(
    optimizer: Any, params: Any, grads: Any, state: Any, override: dict[str, Any]
) -> tuple[Any, Any]:
    """``Optimizer.step``."""
    mode, (old, gs) = optimizer.complex, reals(optimizer, params, grads, state, override)
    before = _inside(mode, state)
    new, after = within(optimizer, params).step(old, gs, before, **override)
    return _back(params, old, new), after if mode == "two_reals" else _arrays(after)


def eval_params(optimizer: Any, params: Any, state: Any) -> Any:
    """``Optimizer.eval_params``."""
    mode = optimizer.complex
    old = seen(mode, params)
    new = within(optimizer, params).eval_params(old, _inside(mode, state))
    return _back(params, old, new)


def complex_slots(optimizer: Any) -> frozenset[str]:
    """Names of the slots that are complex where the parameter is, by steps on a small one.

    ``zeros_like`` gives reals, so that a slot is real until something complex is put into it.

    Raises:
        TypeError: the rule does with complex values what has no sense for them.
    """
    params = {"w": np.full((2, 3), 0.6 + 0.8j), "b": np.full(2, 0.8 - 0.6j)}
    tree, found = Tree(params), frozenset[str]()
    varied = {k: 0.5 for k, v in optimizer.hyper.items() if callable(v) or hasattr(v, "shape")}
    hyper = optimizer.hyper | varied
    opt = within(optimizer, params, hyper=hyper, decay_mask=None, nonfinite="propagate")
    each = dict.fromkeys(each_step(opt.rule), 0.0)
    try:
        p = g = seen("modulus", params)
        state = opt.init(p)
        for _ in range(len(state.slots) + 2):  # at least one more in each, until there are no more
            for name, slot in zip(state.slots._fields, state.slots, strict=True):
                found |= {name for x in Tree(slot).leaves if is_complex(x.data)}
            p, state = opt.step(p, g, _promoted(state, found, tree), **each)
    except Exception as error:
        raise TypeError(f"{opt.name}: no complex='modulus' for this rule: {error}") from error
    return found


def _promoted(state: Any, names: frozenset[str], tree: Tree) -> Any:
    """The state with the slots of these names complex where the parameter is."""

    def column(slot: Any) -> Any:
        rows = zip(tree.leaves, tree.split(slot), strict=True)
        return tree.join([x.xp.complex(x) if is_complex(p) else x for p, x in rows])

    slots = state.slots
    return state._replace(slots=slots._replace(**{k: column(getattr(slots, k)) for k in names}))


def _inside(mode: str, state: Any) -> Any:
    """A state as the rule is to see it."""
    if mode == "two_reals":
        return state
    return state._replace(shared=seen(mode, state.shared), slots=seen(mode, state.slots))


def _arrays(state: Any) -> Any:
    """A state's arrays themselves."""

    trees = [Tree(x) for x in (state.shared, state.slots)]
    return type(state)(plain(state.step), *(t.join(plain(t.leaves)) for t in trees))


def _back(params: Any, old: Any, new: Any) -> Any:
    """What took the place of the parameters, as they are."""
    tree = Tree(params)
    found = []
    for p, x, y in zip(tree.leaves, tree.split(old), tree.split(new), strict=True):
        whole = joined if is_complex(p) and not isinstance(y, Modulus) else plain
        found.append(p if y is x else whole(y))
    return tree.join(found)


def _seen(mode: str, x: Any) -> Any:
    if mode == "two_reals":
        return pairs(x) if is_complex(x) else x
    return by_modulus(namespace(x)).seen(x) if is_array(x) else x
