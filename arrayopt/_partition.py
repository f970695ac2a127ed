"""Other rules and hyperparameters for other parameters, chosen by the parameters' paths."""

import fnmatch
from collections.abc import Mapping
from typing import Any

from ._paths import keys_of
from ._plan import split
from ._transfer import CheckpointError
from ._tree import Tree
from .optimizer import Optimizer, State


class partition:  # noqa: N801 (a class with the name of a function: repr shows what one writes)
    """Optimizers for parts of a tree: ``init`` and ``step`` as of :class:`arrayopt.Optimizer`.

    Args:
        parts: by pattern an ``Optimizer``, or None for parameters that stay as they are: they
            have no state, need no gradient and may be of any dtype. A pattern is one of
            ``fnmatch``, in which ``*`` stands for dots too and capitals are not small letters. It
            is matched with the whole path of a parameter: dict keys, attribute names and indices,
            joined by dots (``encoder.0.bias``; ``params`` for a bare array). The first pattern
            that matches has the parameter.

    Each optimizer has its part alone, as a dict by path: sums over all parameters, the number of
    steps, ``nonfinite`` and ``decay_mask`` are of the part. The state is a dict too: by pattern
    the ``State`` of its optimizer, such as ``state["*"].slots.m["encoder.0.weight"]``.

    Raises:
        TypeError, ValueError: a pattern or its value is none; in ``init``, ``step`` and
            ``eval_params``, a parameter that no pattern matches, a pattern without parameters, or
            two parameters of one path.

    >>> import numpy as np
    >>> opt = partition({"*.bias": Optimizer("sgd", lr=1.0), "*": None})
    >>> params = {"head": {"bias": np.ones(1), "weight": np.ones(1)}}
    >>> params, state = opt.step(params, params, opt.init(params))
    >>> params
    {'head': {'bias': array([0.]), 'weight': array([1.])}}
    """

    def __init__(self, parts: Mapping[str, Optimizer | None]) -> None:
        if not isinstance(parts, Mapping) or not parts:
            raise TypeError(f"partition: parts must be a dict by pattern, got {parts!r}")
        for pattern, part in parts.items():
            if not isinstance(pattern, str):
                raise TypeError(f"partition: a pattern must be a string, got {pattern!r}")
            if part is not None and not isinstance(part, Optimizer):
                raise TypeError(
                    f"partition: {pattern!r} must have an Optimizer or None, got {part!r}"
                )
        self.parts = dict(parts)
        self.optimizers = {k: part for k, part in self.parts.items() if part is not None}
        self._known: dict[tuple[str, ...], dict[str, dict[str, int]]] = {}  # see places

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.parts!r})"

    def init(self, params: Any) -> dict[str, State]:
        """The state before the first step, by pattern."""
        tree = Tree(params)
        places = self.places(tree)
        return {k: opt.init(own(places[k], tree.leaves)) for k, opt in self.optimizers.items()}

    def step(
        self, params: Any, grads: Any, state: dict[str, State], **override: Any
    ) -> tuple[Any, dict[str, State]]:
        """One step: the new parameters and state. Nothing that was given is modified.

        Args:
            params: a tree like the one that ``init`` was given.
            grads: a tree like it; those of frozen parameters are not looked at.
            state: from ``init`` or the step before.
            override: hyperparameters for this step alone, each for all parts whose rule has it;
                ``weight_decay`` is for every part.

        Raises:
            TypeError, ValueError: as ``Optimizer.step``; also for an override that no part takes.
            FloatingPointError: as ``Optimizer.step``, for a part with ``nonfinite="raise"``.
        """
        tree = Tree(params)
        places = self.places(tree)
        self.check(state)
        wanted = self._routed(override)
        gs = split("partition", "gradients", tree, grads)
        leaves, now = list(tree.leaves), {}
        for k, opt in self.optimizers.items():
            part, its = own(places[k], tree.leaves), own(places[k], gs)
            part, now[k] = opt.step(part, its, state[k], **wanted[k])
            for path, i in places[k].items():
                leaves[i] = part[path]
        return tree.join(leaves), now

    def eval_params(self, params: Any, state: dict[str, State]) -> Any:
        """The parameters to evaluate or deploy with: see ``Optimizer.eval_params``."""
        tree = Tree(params)
        places = self.places(tree)
        self.check(state)
        leaves = list(tree.leaves)
        for k, opt in self.optimizers.items():
            part = opt.eval_params(own(places[k], tree.leaves), state[k])
            for path, i in places[k].items():
                leaves[i] = part[path]
        return tree.join(leaves)

    def places(self, tree: Tree) -> dict[str, dict[str, int]]:
        """By pattern and path the place of each parameter among the leaves of the tree."""
        paths = tuple(tree.paths)
        if paths not in self._known:
            self._known[paths] = assigned(list(self.parts), [dotted(p) for p in paths])
        return self._known[paths]

    def check(self, state: Any) -> None:
        """Raise unless the state is one of these optimizers."""
        if not isinstance(state, dict) or state.keys() != self.optimizers.keys():
            got = [*state] if isinstance(state, dict) else type(state).__name__
            raise TypeError(
                "partition: state must be what init or step gave, a dict with "
                f"{[*self.optimizers]}, got {got}"
            )

    def _routed(self, override: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """By pattern those of the keywords that its rule has."""
        for name in override:
            if not any(name in opt.hyper for opt in self.optimizers.values()):
                rules = ", ".join(sorted({opt.name for opt in self.optimizers.values()}))
                raise TypeError(f"partition: none of its rules ({rules}) has {name!r}")
        return {
            k: {name: x for name, x in override.items() if name in opt.hyper}
            for k, opt in self.optimizers.items()
        }


def dotted(path: str) -> str:
    """``layer.0.w`` for ``['layer'][0].w``; the path itself if its keys are no plain ones."""
    try:
        return ".".join(map(str, keys_of(path))) or path
    except CheckpointError:
        return path


def assigned(patterns: list[str], paths: list[str]) -> dict[str, dict[str, int]]:
    """By pattern those paths that it is the first to match, at least one, with their indices."""
    found: dict[str, dict[str, int]] = {k: {} for k in patterns}
    for i, path in enumerate(paths):
        first = next((k for k in patterns if fnmatch.fnmatchcase(path, k)), None)
        if first is None:
            raise ValueError(f"partition: no pattern matches {path}; there are {patterns}")
        if path in found[first]:
            raise ValueError(f"partition: two parameters have the path {path}")
        found[first][path] = i
    for pattern, own_paths in found.items():
        if not own_paths:
            taken = [p for p in paths if fnmatch.fnmatchcase(p, pattern)]
            raise ValueError(
                f"partition: the pattern {pattern!r} has no parameter: "
                + (
                    f"earlier patterns match all of its own, such as {taken[0]}"
                    if taken
                    else f"there are {', '.join(paths[:8])}{', ...' if paths[8:] else ''}"
                )
            )
    return found


def own(places: dict[str, int], leaves: list[Any]) -> dict[str, Any]:
    """A part as its optimizer has it: by path the leaf in its place."""
    return {path: leaves[i] for path, i in places.items()}
