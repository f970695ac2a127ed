"""What a rule is given in the place of arrays and numbers, and what writes down what it does."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from .._namespace import WIDTH
from .program import (
    BINARY,
    COMPARE,
    FUNCTIONS,
    LOGIC,
    Input,
    Node,
    Program,
    Untraceable,
)


class Graph:
    """What a trace writes down."""

    def __init__(self) -> None:
        self.inputs: list[Input] = []
        self.places: dict[Node, int] = {}  # every node so far, and its place
        self.lines: dict[str, str] = {}  # the host's expressions, and the name of each result
        self.reads: list[str] = []
        self.scalars: dict[tuple[str, str], int] = {}  # (a host's result, dtype): its place
        self.sums: dict[str, Symbol] = {}  # an input that is a sum, and of what

    def input(self, name: str, dtype: str, single: bool = False) -> "Symbol":
        self.inputs.append(Input(name, dtype, single))
        return self.symbol("input", dtype, data=name)

    def number(self, name: str) -> "Number":
        self.reads.append(name)
        return Number(self, f"a{len(self.reads) - 1}")

    def symbol(self, op: str, dtype: str, *args: "Symbol", data: Any = None) -> "Symbol":
        node = Node(op, dtype, tuple(a.place for a in args), data)
        return Symbol(self, self.places.setdefault(node, len(self.places)), dtype)

    def host(self, expression: str) -> str:
        """The name of an expression's result."""
        return self.lines.setdefault(expression, f"h{len(self.lines)}")

    def lift(self, x: Any, dtype: str) -> "Symbol":
        """A symbol, one of the host's numbers or a constant, as a symbol of that dtype."""
        if isinstance(x, Symbol):
            return x if x.dtype == dtype else self.symbol("astype", dtype, x)
        if isinstance(x, Condition):
            dtype = "bool"
        if isinstance(x, Number):
            place = self.scalars.setdefault((x.name, dtype), len(self.scalars))
            return self.symbol("scalar", dtype, data=place)
        if not isinstance(x, int | float):
            raise Untraceable(f"it computes with {type(x).__name__}")
        # repr: 0.0 and -0.0 are equal, and NaN is not
        return self.symbol("literal", dtype, data=repr(bool(x) if dtype == "bool" else float(x)))

    def sum(self, x: "Symbol") -> "Symbol":
        """The sum over all elements, as an input: it is known when all of them have been read."""
        name = f"sum{len(self.sums)}"
        self.sums[name] = x
        return self.input(name, "float64", True)

    def program(self, stores: dict[str, "Symbol"], sums: dict[str, "Symbol"]) -> Program:
        """The program of what is needed for the results, and nothing else.

        What is stored to an input of one value is left to :meth:`settling`; for it the program
        gives the sums that were taken on the way, besides ``sums``.
        """
        single = {x.name: x.single for x in self.inputs}
        changed = self._changed(stores)
        asked = {}
        for name, x in sums.items():
            of = self.sums.get(self._nodes[x.place].data) if isinstance(x, Symbol) else None
            if of is None:
                raise Untraceable(f"measure computes with the sum {name}")
            asked[name] = of
        if any(single[name] for name in changed):
            asked |= self.sums
        stores = {name: new for name, new in changed.items() if not single[name]}
        found = self._cut(stores, asked)
        if any(x.name in self.sums for x in found.inputs):
            raise Untraceable("it sums over all elements, and needs the sum for each of them")
        return found

    def settling(self, stores: dict[str, "Symbol"]) -> Program:
        """The program of what is stored to inputs of one value; it goes over one element."""
        single = {x.name: x.single for x in self.inputs}
        changed = self._changed(stores)
        found = self._cut({name: new for name, new in changed.items() if single[name]}, {})
        for x in found.inputs:
            if not x.single:
                raise Untraceable(f"it makes one value for a parameter of the elements of {x.name}")
        return found._replace(inputs=tuple(x._replace(single=False) for x in found.inputs))

    @property
    def _nodes(self) -> list[Node]:
        return list(self.places)

    def _changed(self, stores: dict[str, "Symbol"]) -> dict[str, "Symbol"]:
        """Those stores that change what is there."""
        before = {x.name: self.symbol("input", x.dtype, data=x.name).place for x in self.inputs}
        for name, new in stores.items():
            if not isinstance(new, Symbol):
                raise Untraceable(f"it makes {name} a number")
        return {name: new for name, new in stores.items() if new.place != before[name]}

    def _cut(self, stores: dict[str, "Symbol"], sums: dict[str, "Symbol"]) -> Program:
        """What the stores and sums need."""
        wanted = [(name, new.place) for name, new in stores.items()]
        added = [(name, self.lift(x, "float64").place) for name, x in sums.items()]
        nodes = self._nodes
        needed = {place for _, place in wanted + added}
        for place in range(len(nodes) - 1, -1, -1):
            if place in needed:
                needed.update(nodes[place].args)
        kept = {old: new for new, old in enumerate(sorted(needed))}
        scalars = list(self.scalars)
        used = sorted({nodes[i].data for i in kept if nodes[i].op == "scalar"})
        nodes = [
            node._replace(
                args=tuple(kept[a] for a in node.args),
                data=used.index(node.data) if node.op == "scalar" else node.data,
            )
            for node in (nodes[i] for i in kept)
        ]
        seen = {node.data for node in nodes if node.op == "input"} | {name for name, _ in wanted}
        return Program(
            inputs=tuple(x for x in self.inputs if x.name in seen),
            nodes=tuple(nodes),
            stores=tuple((name, kept[place]) for name, place in wanted),
            sums=tuple((name, kept[place]) for name, place in added),
            scalars=tuple(scalars[i][1] for i in used),
            reads=tuple(self.reads),
            host=self._function([scalars[i][0] for i in used]),
        )

    def _function(self, results: list[str]) -> Callable[..., tuple[float, ...]]:
        """The host's part, as one Python function of the numbers in ``reads``."""
        takes = ", ".join(f"a{i}" for i in range(len(self.reads)))
        body = [f"    {name} = {expression}" for expression, name in self.lines.items()]
        last = f"    return ({''.join(r + ', ' for r in results)})"
        source = "\n".join([f"def host({takes}):", *body, last])
        known: dict[str, Any] = {"log": _log, "maximum": _maximum, "minimum": _minimum}
        known |= {f: getattr(math, f) for f in FUNCTIONS if f != "log"}
        exec(source, known)  # of names and operators that this module wrote
        function: Callable[..., tuple[float, ...]] = known["host"]
        return function


def _log(x: float) -> float:
    return math.log(x) if x != 0 else -math.inf


def _maximum(a: float, b: float) -> float:
    return a if a > b or a != a else b


def _minimum(a: float, b: float) -> float:
    return a if a < b or a != a else b


class Traced:
    """What stands for a value that a trace does not know."""

    graph: Graph

    def __bool__(self) -> bool:
        raise Untraceable("it branches on a value that changes from step to step")

    def __float__(self) -> float:
        raise Untraceable("it takes a number out of a value that changes from step to step")

    __int__ = __index__ = __float__
    __hash__ = object.__hash__

    def __iter__(self) -> Iterator[Any]:
        raise Untraceable("it takes an array apart")

    def __getitem__(self, index: Any) -> Any:
        raise Untraceable("it takes an array apart")

    def __neg__(self) -> Any:
        return apply(self.graph, "negative", self)

    def __abs__(self) -> Any:
        return apply(self.graph, "abs", self)

    def __invert__(self) -> Any:
        return apply(self.graph, "logical_not", self)


def _operators() -> None:
    words = {"subtract": "sub", "multiply": "mul", "divide": "truediv"}
    words |= {"less": "lt", "less_equal": "le", "greater": "gt", "greater_equal": "ge"}
    words |= {"equal": "eq", "not_equal": "ne", "logical_and": "and", "logical_or": "or"}
    for op in (*BINARY, *COMPARE, "logical_and", "logical_or"):
        word = words.get(op, op)

        def forward(a: Any, b: Any, op: str = op) -> Any:
            return apply(a.graph, op, a, b)

        def backward(a: Any, b: Any, op: str = op) -> Any:
            return apply(a.graph, op, b, a)

        setattr(Traced, f"__{word}__", forward)
        if op in BINARY:
            setattr(Traced, f"__r{word}__", backward)


_operators()


class Number(Traced):
    """A number of the host's, computed before each step."""

    dtype = "number"
    shape = ()

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name = graph, name

    def __mod__(self, other: Any) -> Any:
        return _on_host(self.graph, "remainder", (self, other))

    def __floordiv__(self, other: Any) -> Any:
        return _on_host(self.graph, "floor_divide", (self, other))


class Condition(Number):
    """What the host knows to be true or false before each step."""


class Symbol(Traced):
    """An array."""

    def __init__(self, graph: Graph, place: int, dtype: str) -> None:
        self.graph, self.place, self.dtype = graph, place, dtype

    @property
    def shape(self) -> Any:
        raise Untraceable("it asks for a parameter's shape")

    ndim = size = mT = T = shape  # noqa: N815


def apply(graph: Graph, op: str, *args: Any) -> Any:
    """An operation on symbols, or on the host's numbers."""
    symbols = [a for a in args if isinstance(a, Symbol)]
    if not symbols:
        return _on_host(graph, op, args)
    if op in LOGIC:
        if any(s.dtype != "bool" for s in symbols):
            raise Untraceable(f"it takes {op} of what is no truth value")
        return graph.symbol(op, "bool", *(graph.lift(a, "bool") for a in args))
    condition = args[0] if op == "where" else None
    dtypes = {s.dtype for s in symbols if s is not condition}
    if "bool" in dtypes or not dtypes:
        raise Untraceable(f"it takes {op} of truth values or numbers only")
    dtype = max(dtypes, key=WIDTH.__getitem__)
    if WIDTH[dtype] < 32 and len(dtypes) > 1:
        raise Untraceable(f"it takes {op} of {' and '.join(sorted(dtypes))}")
    if op == "pow" and isinstance(args[1], int | float) and args[1] == 2:
        return graph.symbol("multiply", dtype, symbols[0], symbols[0])
    lifted = [graph.lift(a, dtype) for a in args if a is not condition]
    if condition is not None:
        lifted = [graph.lift(condition, "bool"), *lifted]
    return graph.symbol(op, "bool" if op in COMPARE or op == "isfinite" else dtype, *lifted)


SIGNS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "pow": "**"}
SIGNS |= {"less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">="}
SIGNS |= {"remainder": "%", "floor_divide": "//"}
SIGNS |= {"equal": "==", "not_equal": "!=", "logical_and": "and", "logical_or": "or"}


def _on_host(graph: Graph, op: str, args: tuple[Any, ...]) -> Number:
    """The number that Python would compute."""
    for a in args:
        if not isinstance(a, Number | int | float):
            raise Untraceable(f"it computes with {type(a).__name__}")
    names = [a.name if isinstance(a, Number) else f"({_text(a)})" for a in args]
    if op in SIGNS:
        expression = f"{names[0]} {SIGNS[op]} {names[1]}"
    elif op == "where":
        expression = f"{names[1]} if {names[0]} else {names[2]}"
    elif op in ("negative", "logical_not"):
        expression = f"{'not' if op == 'logical_not' else '-'} {names[0]}"
    else:
        expression = f"{op}({', '.join(names)})"
    kind = Condition if op in COMPARE or op in LOGIC else Number
    return kind(graph, graph.host(expression))


def _text(x: float) -> str:
    return repr(x) if math.isfinite(x) else f"float({str(x)!r})"
