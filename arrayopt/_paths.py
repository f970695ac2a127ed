"""Paths of parameters, read back."""

import ast
from typing import Any

from ._transfer import CheckpointError


def keys_of(path: str) -> list[Any]:
    """The keys along a path: ``["layer", 0, "w"]`` for ``['layer'][0].w``."""
    keys: list[Any] = []
    try:
        node = ast.parse("" if path == "params" else f"x{path}").body  # parsed, never evaluated
        inner: Any = node[0].value if node else ast.Name("x")  # type: ignore[attr-defined]
        while not isinstance(inner, ast.Name):
            attribute = isinstance(inner, ast.Attribute)
            keys.append(inner.attr if attribute else ast.literal_eval(inner.slice))
            inner = inner.value
        hash(tuple(keys))
    except (SyntaxError, ValueError, TypeError, AttributeError, RecursionError, MemoryError):
        raise CheckpointError(
            f"the path {path} is not one of dicts and lists: give like="
        ) from None
    return keys[::-1]


def nested(paths: list[str], leaves: list[Any]) -> Any:
    """Dicts and lists with each leaf at its path."""
    root: dict[Any, Any] = {}
    nodes = {id(root)}
    for path, leaf in zip(paths, leaves, strict=True):
        keys = ["", *keys_of(path)]
        inner = root
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
            nodes.add(id(inner))
        inner[keys[-1]] = leaf

    def plain(node: Any) -> Any:
        if id(node) not in nodes:
            return node
        full = {k: plain(v) for k, v in node.items()}
        counted = all(type(k) is int for k in full) and sorted(full) == [*range(len(full))]
        return [full[i] for i in range(len(full))] if counted else full

    return plain(root[""])
