"""A step as a list of operations, for every engine to carry out in its own way."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

BINARY = ("add", "subtract", "multiply", "divide", "pow")
COMPARE = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")
LOGIC = ("logical_and", "logical_or", "logical_not")
FUNCTIONS = ("sqrt", "cbrt", "exp", "expm1", "log", "log1p", "tanh")
UNARY = ("negative", "abs", *FUNCTIONS)


class Untraceable(TypeError):  # noqa: N818
    """The rule does what a loop over elements cannot; the message says what."""


class Node(NamedTuple):
    """One operation; equal ones are one node."""

    op: str  # "input", "scalar", "literal", "astype", "where", "isfinite", or a name from above
    dtype: str  # of its result
    args: tuple[int, ...] = ()  # the nodes it takes, all of them earlier
    data: Any = None  # an input's name, a scalar's place, a literal's value


class Input(NamedTuple):
    """An array that the program reads: the parameter, its gradient or a slot."""

    name: str
    dtype: str
    single: bool  # one value for the whole parameter


class Program(NamedTuple):
    """What one step does to every element of one parameter."""

    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    stores: tuple[tuple[str, int], ...]  # the input that is overwritten, and with which node
    sums: tuple[tuple[str, int], ...]  # what is summed over all elements, in float64
    scalars: tuple[str, ...]  # the dtype of each of the host's results
    reads: tuple[str, ...]  # the numbers that the host computes them from, in order
    host: Callable[..., tuple[float, ...]]

    def uniform(self) -> list[bool]:
        """For each node, whether all elements of a parameter have it in common."""
        single = {x.name: x.single for x in self.inputs}
        found: list[bool] = []
        for node in self.nodes:
            if node.op == "input":
                found.append(single[node.data])
            else:
                found.append(all(found[i] for i in node.args))
        return found


def chunks(sizes: np.ndarray, most: int) -> np.ndarray:
    """Arrays of those sizes, cut up: for each piece which array, where it begins, how long it is.

    Args:
        sizes: int64, numbers of elements.
        most: the elements of a piece.
    """
    counts = -(-sizes // most)
    row = np.repeat(np.arange(len(sizes)), counts)
    start = (np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)) * most
    return np.stack((row, start, np.minimum(most, sizes[row] - start)), axis=1)
