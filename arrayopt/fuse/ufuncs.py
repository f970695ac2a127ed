"""A program carried out by NumPy's functions, for machines that can compile nothing.

Each operation goes over a whole block, whose size is to fit the cache, into memory that is used
again and again: into that of a value nobody needs any more, if there is one.
"""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .program import BINARY, COMPARE, LOGIC, UNARY, Node, Program, Untraceable

DTYPES = {x.__name__: x for x in (np.float16, np.float32, np.float64, np.bool)}
CALLS = {*BINARY, *COMPARE, *LOGIC, *UNARY, "maximum", "minimum", "isfinite"}  # so named in NumPy
FEW = 1 / 16  # the share of elements up to which it is quickest to pick them one by one


class Blocks:
    """A program, ready to be run on blocks, on several threads at a time.

    Attributes:
        sums: the names of the sums that a run gives.
        bytes_per_element: of all the memory that a run goes over, for who chooses the blocks' size.

    Raises:
        Untraceable: NumPy cannot carry it out.
    """

    def __init__(self, program: Program) -> None:
        writer = _Writer(program)
        source = writer.source()
        exec(source, writer.known)  # of names that the writer made
        self._run: Callable[..., tuple[float, ...]] = writer.known["run"]
        self._program, self._memory = program, _Memory(writer.registers)
        self.sums = [name for name, _ in program.sums]
        self._each = [x.name for x in program.inputs if not x.single]
        if not self._each:
            raise Untraceable("it computes from what is one value for a parameter alone")
        touched = [x.dtype for x in program.inputs if not x.single] + writer.registers
        self.bytes_per_element = sum(np.dtype(x).itemsize for x in touched)

    def scalars(self, values: dict[str, Any]) -> tuple[Any, ...]:
        """What the host computes from hyperparameters and the like, once for all blocks."""
        program = self._program
        found = program.host(*[values[name] for name in program.reads])
        with np.errstate(all="ignore"):
            return tuple(np.array(x, d) for x, d in zip(found, program.scalars, strict=True))

    def __call__(self, arrays: dict[str, np.ndarray], scalars: Sequence[Any]) -> tuple[float, ...]:
        """Overwrite what the program stores to, and return the sums over the block.

        Args:
            arrays: the program's inputs by name: arrays of one shape that share no memory, in any
                order of elements, and 0-d ones.
            scalars: what :meth:`scalars` gave.
        """
        first = arrays[self._each[0]]
        if first.ndim > 1:  # C's order, for the scratch memory to be in the order of the arrays
            order = sorted(range(first.ndim), key=lambda k: -abs(first.strides[k]))
            arrays = arrays | {name: arrays[name].transpose(order) for name in self._each}
        buffers = self._memory.like(arrays[self._each[0]].shape)
        inputs = [arrays[x.name] for x in self._program.inputs]
        with np.errstate(all="ignore"):  # it belongs to a thread
            return self._run(inputs, scalars, buffers)


class _Memory(threading.local):
    """Each thread's scratch memory: as much as its largest block took."""

    def __init__(self, dtypes: list[str]) -> None:
        self._dtypes, self._size = dtypes, -1
        self._shape: tuple[int, ...] | None = None
        self._flat: list[np.ndarray] = []
        self._shaped: list[np.ndarray] = []

    def like(self, shape: tuple[int, ...]) -> list[np.ndarray]:
        if shape != self._shape:
            size = math.prod(shape)
            if size > self._size:
                self._flat = [np.empty(size, dtype) for dtype in self._dtypes]
                self._size = size
            self._shape, self._shaped = shape, [x[:size].reshape(shape) for x in self._flat]
        return self._shaped


def _choose(c: Any, a: Any, b: Any, out: np.ndarray) -> None:
    """One of two for all elements; ``out`` may be either."""
    chosen = a if c else b
    if chosen is not out:
        np.copyto(out, chosen)


def _select(c: np.ndarray, a: Any, b: Any, out: np.ndarray, mask: np.ndarray) -> None:
    """``a`` where the condition holds, else ``b``, which may be ``out``."""
    many = np.count_nonzero(c)
    if many <= FEW * c.size:
        if out is not b:
            np.copyto(out, b)
        if many:
            np.copyto(out, a, where=c)
        return
    # by bits, without a branch for each element, which no processor foresees
    a, b, out = (x.view(mask.dtype) for x in (a, b, out))
    np.copyto(mask, c)
    np.subtract(mask, mask.dtype.type(1), out=mask)  # 0 where it holds; else all bits
    np.bitwise_xor(a, b, out=out)
    np.bitwise_and(out, mask, out=out)
    np.bitwise_xor(out, a, out=out)


class _Writer:
    """Writes a program as a Python function, and says where each value lies."""

    def __init__(self, program: Program) -> None:
        self.program, self.lines = program, list[str]()
        self.registers: list[str] = []  # the dtype of each
        self.known: dict[str, Any] = {"asarray": np.asarray, "copyto": np.copyto, "total": np.sum}
        self.known |= {"choose": _choose, "select": _select} | DTYPES
        self.nodes, self.uniform = list(program.nodes), program.uniform()
        self.sums = [self._summed(i) for _, i in program.sums]
        places = {x.name: f"a{k}" for k, x in enumerate(program.inputs)}
        self.stores: dict[int, str] = {}  # a node, and the array that is overwritten with it
        for name, i in program.stores:
            fresh = self.nodes[i].op != "input" and i not in self.stores
            self.stores[i if fresh else self._copy(i)] = places[name]
        end = len(self.nodes)
        last = dict.fromkeys(self.stores, end)
        for i in range(end - 1, -1, -1):
            if i in last or i in self.sums:
                for j in self.nodes[i].args:
                    last.setdefault(j, i)
        self.last = last  # who reads a node last
        self.where: dict[int, str] = {}  # where each value is
        # memory to write to; an array that is overwritten serves too, between its two values
        self.until = {place: i for i, place in self.stores.items()}
        read = {node.data for node in self.nodes if node.op == "input"}
        self.free = [
            (places[x.name], x.dtype)
            for x in program.inputs
            if places[x.name] in self.until and x.name not in read
        ]

    def _summed(self, i: int) -> int:
        """The node to sum up: before its cast, which the sum makes by the way."""
        node = self.nodes[i]
        if self.uniform[i]:
            return self._copy(i)
        return node.args[0] if node.op == "astype" else i

    def _copy(self, i: int) -> int:
        """A node for the same values in memory of their own."""
        self.nodes.append(Node("copy", self.nodes[i].dtype, (i,)))
        self.uniform.append(False)
        return len(self.nodes) - 1

    def source(self) -> str:
        inputs = "".join(f"a{k}, " for k in range(len(self.program.inputs)))
        for i, node in enumerate(self.nodes):
            if i not in self.last and i not in self.sums:
                continue  # a cast that the sum makes
            if node.dtype not in DTYPES:
                raise Untraceable(f"NumPy has no {node.dtype}")
            if self.uniform[i] or node.op == "input":
                self.where[i] = self._value(i, node)
            else:
                self._operation(i, node)
            for k, of in enumerate(self.sums):
                if of == i:
                    self.lines.append(f"t{k} = float(total({self.where[i]}, dtype=float64))")
        for i, place in self.stores.items():
            if self.where[i] != place:
                self.lines.append(f"copyto({place}, {self.where[i]})")
        scalars = "".join(f"s{k}, " for k in range(len(self.program.scalars)))
        buffers = "".join(f"r{k}, " for k in range(len(self.registers)))
        unpack = [f"({x}) = {y}" for x, y in ((inputs, "a"), (scalars, "s"), (buffers, "r"))]
        sums = "".join(f"t{k}, " for k in range(len(self.sums)))
        return "\n    ".join(["def run(a, s, r):", *unpack, *self.lines, f"return ({sums})"])

    def _value(self, i: int, node: Node) -> str:
        """What all elements have in common, or an input."""
        args = [self.where[j] for j in node.args]
        if node.op == "input":
            names = [x.name for x in self.program.inputs]
            return f"a{names.index(node.data)}"
        if node.op == "scalar":
            return f"s{node.data}"
        if node.op == "literal":
            value = node.data == "True" if node.dtype == "bool" else float(node.data)
            self.known[f"c{i}"] = np.array(value, node.dtype)
            return f"c{i}"
        if node.op == "astype":
            self.lines.append(f"v{i} = {args[0]}.astype({node.dtype})")
        elif node.op == "where":
            self.lines.append(f"v{i} = {args[1]} if {args[0]} else {args[2]}")
        else:
            # not NumPy's scalar that comes out: an array goes into the next call twice as fast
            self.lines.append(f"v{i} = asarray({self._name(node.op)}({', '.join(args)}))")
        return f"v{i}"

    def _operation(self, i: int, node: Node) -> None:
        """One pass over the block, or a few."""
        args = [self.where[j] for j in node.args]
        whole = node.op == "where" and not self.uniform[node.args[0]]
        # a maximum with one value for all elements is not vectorised: it is spread out first
        extreme = node.op in ("maximum", "minimum")
        spread = extreme and any(self.uniform[j] for j in node.args)
        kept = args[1:2] if whole else args if spread else []  # read after ``out`` is written
        self._release([j for j in node.args if self.where[j] not in kept], i)
        out = self._place(i, node.dtype)
        if whole:
            bits = f"int{8 * np.dtype(node.dtype).itemsize}"
            mask = self._register(bits, i)
            self.lines.append(f"select({', '.join(args)}, {out}, {mask})")
            self.free.append((mask, bits))
        elif node.op == "where":
            self.lines.append(f"choose({', '.join(args)}, {out})")
        elif node.op in ("astype", "copy"):
            self.lines.append(f"copyto({out}, {args[0]})")
        else:
            if spread:
                common = next(k for k, j in enumerate(node.args) if self.uniform[j])
                self.lines.append(f"copyto({out}, {args[common]})")
                args[common] = out
            args.append(f"out={out}" if extreme else out)  # a keyword takes longer
            self.lines.append(f"{self._name(node.op)}({', '.join(args)})")
        self._release([j for j in node.args if self.where[j] in kept], i)
        self.where[i] = out
        if i not in self.last:
            self.free.append((out, node.dtype))

    def _name(self, op: str) -> str:
        if op not in CALLS:
            raise Untraceable(f"it calls {op}, which this engine has not")
        self.known[op] = getattr(np, op)
        return op

    def _release(self, done: Sequence[int], i: int) -> None:
        """Give back the memory of values that nobody reads after node ``i``."""
        for j in dict.fromkeys(done):
            place = self.where[j]
            scratch = place[0] == "r" or (place[0] == "a" and self.until.get(place, -1) >= i)
            if scratch and self.last[j] == i:
                self.free.append((place, self.nodes[j].dtype))

    def _place(self, i: int, dtype: str) -> str:
        """Where to write node ``i``: where it is wanted, or where something was needed last."""
        target = self.stores.get(i), dtype
        if target in self.free:
            self.free.remove(target)
            return str(target[0])
        return self._register(dtype, self.last.get(i, i))

    def _register(self, dtype: str, end: int) -> str:
        """Memory that is free, and may be taken until the node ``end`` has run."""
        for place, kind in reversed(self.free):  # the last one that was used is still in the cache
            if kind == dtype and end <= self.until.get(place, end):
                self.free.remove((place, kind))
                return place
        self.registers.append(dtype)
        return f"r{len(self.registers) - 1}"
