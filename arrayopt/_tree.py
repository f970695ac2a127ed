"""Trees of arrays: nested containers as one list of leaves, and back."""

import sys
from collections.abc import Callable
from typing import Any

import optree

from ._namespace import is_array
from ._types import Namespace

REGISTRY = "arrayopt"  # optree's registry for container types of our users, with its global one


class Tree:
    """A tree's structure and its leaves, with ``None`` as no leaf.

    optree knows dict, list, tuple, namedtuple and what was registered with it in the namespace
    "arrayopt". A container that only JAX knows (flax, equinox) is walked by JAX.
    """

    def __init__(self, tree: Any) -> None:
        self.leaves, spec = optree.tree_flatten(tree, namespace=REGISTRY)
        self._spec: Any = spec
        self._paths: Callable[[], list[str]] = lambda: [
            a.codify("") or "params" for a in spec.accessors()
        ]
        if not all(map(is_array, self.leaves)) and "jax" in sys.modules:
            jax = sys.modules["jax"]
            keyed, self._spec = jax.tree_util.tree_flatten_with_path(tree)
            self.leaves = [leaf for _, leaf in keyed]
            self._paths = lambda: [jax.tree_util.keystr(path) or "params" for path, _ in keyed]

    @property
    def paths(self) -> list[str]:
        """Where each leaf is: ``['layer'][0]``, or ``params`` for a bare array."""
        return self._paths()

    def split(self, tree: Any) -> list[Any]:
        """The parts of ``tree`` in this tree's places; raises where their structures differ."""
        return list(self._spec.flatten_up_to(tree))

    def join(self, leaves: list[Any]) -> Any:
        """This tree with other leaves."""
        if isinstance(self._spec, optree.PyTreeSpec):
            return optree.tree_unflatten(self._spec, leaves)
        return self._spec.unflatten(leaves)


def chosen(condition: Any, new: Any, old: Any, xp: Namespace) -> Any:
    """A tree's arrays from ``new`` where ``condition`` holds, else from ``old``."""
    tree = Tree(new)
    pairs = zip(tree.leaves, tree.split(old), strict=True)
    return tree.join([xp.where(condition, a, b) for a, b in pairs])
