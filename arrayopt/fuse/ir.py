"""A program as LLVM IR: one loop over the elements of a piece of a parameter.

No operation has a fast-math flag but the additions of a sum, whose order then belongs to LLVM: so
the numbers are those of the rule run eagerly.
"""

import math

from .functions import FLOATS, SERIES, number
from .program import COMPARE, FUNCTIONS, Program, Untraceable

TYPES = {"float16": "half", "bfloat16": "i16", "float32": "float", "float64": "double"}
BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
TYPES["bool"] = "i1"
ARITHMETIC = {"add": "fadd", "subtract": "fsub", "multiply": "fmul", "divide": "fdiv"}
ORDER = dict(zip(COMPARE, ("olt", "ole", "ogt", "oge", "oeq", "une"), strict=True))
WIDTH = 512  # bits of a vector, at most: as many as the processor has
LOGIC = {"logical_and": "and", "logical_or": "or"}


def source(program: Program, columns: dict[str, int]) -> str:
    """The module's text; its function is ``kernel(ptr)``, of the addresses of a table's rows and
    chunks, sets of scalars, partial sums and a counter, and of the number of chunks.

    Any number of threads may call it at once: each takes the next chunk until there is none.

    Args:
        columns: where in a row of the table the address of each input is; the row's last column
            says which of the sets of scalars it takes.
    """
    writer = Writer()
    body = writer.body(program)
    # vectors at once: of a series, each step of which waits for the last, more
    vectors = 4 if any(node.op in SERIES for node in program.nodes) else 2
    inputs, stride = program.inputs, max(columns.values()) + 2
    lines = []
    for i, x in enumerate(inputs):
        lines.append(f"%c{i} = getelementptr i64, ptr %row, i64 {columns[x.name]}")
        lines.append(f"%p{i} = load ptr, ptr %c{i}")
        step = 0 if x.single else BYTES[x.dtype]
        lines.append(f"%o{i} = mul i64 %start, {step}")
        lines.append(f"%q{i} = getelementptr i8, ptr %p{i}, i64 %o{i}")
    pointers = ", ".join(f"ptr %q{i}" for i in range(len(inputs)))
    load = "\n  ".join(lines)
    takes = []
    for i, name in enumerate(("rows", "chunks", "sets", "partials", "counter", "count")):
        kind = "i64" if name == "count" else "ptr"
        takes.append(f"%g{i} = getelementptr i64, ptr %given, i64 {i}")
        takes.append(f"%{name} = load {kind}, ptr %g{i}")
    first = "\n  ".join(takes)
    return f"""
{body}
define void @kernel(ptr %given) #0 {{
entry:
  {first}
  br label %next
next:
  %i = atomicrmw add ptr %counter, i64 1 monotonic
  %more = icmp slt i64 %i, %count
  br i1 %more, label %one, label %out
one:
  %i3 = mul i64 %i, 3
  %chunk = getelementptr i64, ptr %chunks, i64 %i3
  %r = load i64, ptr %chunk
  %chunk1 = getelementptr i64, ptr %chunk, i64 1
  %start = load i64, ptr %chunk1
  %chunk2 = getelementptr i64, ptr %chunk, i64 2
  %n = load i64, ptr %chunk2
  %rs = mul i64 %r, {stride}
  %row = getelementptr i64, ptr %rows, i64 %rs
  {load}
  %cset = getelementptr i64, ptr %row, i64 {stride - 1}
  %set = load i64, ptr %cset
  %ss = mul i64 %set, {len(program.scalars)}
  %scalars = getelementptr double, ptr %sets, i64 %ss
  %is = mul i64 %i, {len(program.sums)}
  %partial = getelementptr double, ptr %partials, i64 %is
  call void @body({pointers}, ptr %scalars, ptr %partial, i64 %n)
  br label %next
out:
  ret void
}}
{chr(10).join(sorted(writer.declared))}
attributes #0 = {{ nounwind "prefer-vector-width"="{WIDTH}" }}
!0 = distinct !{{!0, !1}}
!1 = !{{!"llvm.loop.interleave.count", i32 {vectors}}}
"""


class Writer:
    """Writes instructions, one result after the other."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0
        self.declared: set[str] = set()
        self.uniform: set[str] = set()  # values that all elements of a parameter have in common
        # limited values, and what is yet to subtract from them, which one subtraction does for
        # several limits
        self.bare: dict[str, tuple[str, str]] = {}
        self.switches: dict[str, str] = {}  # the host's conditions, and each as a double

    def __call__(self, instruction: str) -> str:
        self.count += 1
        self.lines.append(f"  %v{self.count} = {instruction}")
        return f"%v{self.count}"

    def intrinsic(self, name: str, kind: str, *args: str) -> str:
        """One of LLVM's own functions, exact to the last bit."""
        full = f"@llvm.{name}.{'f32' if kind == 'float' else 'f64'}"
        self.declared.add(f"declare {kind} {full}({', '.join([kind] * len(args))})")
        return self(f"call {kind} {full}({', '.join(f'{kind} {a}' for a in args)})")

    def library(self, name: str, kind: str, *args: str) -> str:
        """A function of the C library, in double precision, one element at a time."""
        self.declared.add(f"declare double @{name}({', '.join(['double'] * len(args))}) #0")
        if kind == "float":
            args = tuple(self(f"fpext float {a} to double") for a in args)
        wide = self(f"call double @{name}({', '.join(f'double {a}' for a in args)})")
        return self(f"fptrunc double {wide} to float") if kind == "float" else wide

    def body(self, program: Program) -> str:
        """The function that runs over one piece; all is read of an element before it is written."""
        inputs, sums, uniform = program.inputs, program.sums, program.uniform()
        place = {x.name: i for i, x in enumerate(inputs)}
        values: dict[int, str] = {}
        alone: list[str] = []  # what is done once
        each: list[str] = []  # what is done for every element

        def address(i: int) -> str:
            step = "0" if inputs[i].single else "%i"
            return self(f"getelementptr inbounds {TYPES[inputs[i].dtype]}, ptr %a{i}, i64 {step}")

        for i, node in enumerate(program.nodes):
            self.lines = alone if uniform[i] else each
            args = [values[a] for a in node.args]
            if node.op == "input":
                where = address(place[node.data])
                values[i] = self(f"load {TYPES[node.dtype]}, ptr {where}")
            elif node.op == "scalar":
                where = self(f"getelementptr inbounds double, ptr %scalars, i64 {node.data}")
                wide = self(f"load double, ptr {where}")
                values[i] = self._scalar(wide, node.dtype)
            elif node.op == "literal":
                values[i] = _literal(node.data, node.dtype)
            else:
                of = program.nodes[node.args[-1]].dtype
                values[i] = self.operation(node.op, of, node.dtype, args)
            if uniform[i]:
                self.uniform.add(values[i])
        self.lines = each
        for k, (_, i) in enumerate(sums):
            self.lines.append(f"  %s{k}n = fadd reassoc double %s{k}, {values[i]}")
        for name, i in program.stores:
            where = address(place[name])
            self.lines.append(f"  store {TYPES[program.nodes[i].dtype]} {values[i]}, ptr {where}")
        start = [f"  %s{k} = phi double [0.0, %entry], [%s{k}n, %loop]" for k in range(len(sums))]
        end = []
        for k in range(len(sums)):
            end.append(f"  %t{k} = getelementptr double, ptr %partial, i64 {k}")
            end.append(f"  store double %s{k}n, ptr %t{k}")
        pointers = ", ".join(f"ptr noalias %a{i}" for i in range(len(inputs)))
        head = f"{pointers}, ptr noalias %scalars, ptr noalias %partial, i64 %n"
        return "\n".join(
            (
                f"define internal void @body({head}) noinline #0 {{",
                "entry:",
                *alone,
                "  br label %loop",
                "loop:",
                "  %i = phi i64 [0, %entry], [%j, %loop]",
                *start,
                *each,
                "  %j = add nuw nsw i64 %i, 1",
                "  %done = icmp eq i64 %j, %n",
                "  br i1 %done, label %out, label %loop, !llvm.loop !0",
                "out:",
                *end,
                "  ret void",
                "}",
            )
        )

    def operation(self, op: str, of: str, to: str, args: list[str]) -> str:
        """One node, from values of dtype ``of``."""
        kind = TYPES[of]
        if op == "astype":
            return self._astype(args[0], of, to)
        if op == "where":
            return self.where(args[0], kind, args[1], args[2])
        if op == "logical_not":
            return self(f"xor i1 {args[0]}, true")
        if op in LOGIC:
            return self(f"{LOGIC[op]} i1 {args[0]}, {args[1]}")
        if kind not in FLOATS:
            raise Untraceable(f"it computes in {of}")
        if op in ARITHMETIC:
            return self(f"{ARITHMETIC[op]} {kind} {args[0]}, {args[1]}")
        if op in ORDER:
            return self(f"fcmp {ORDER[op]} {kind} {args[0]}, {args[1]}")
        if op in ("maximum", "minimum"):
            return self.extreme("olt" if op == "maximum" else "ogt", kind, *args)
        if op == "negative":
            return self(f"fneg {kind} {args[0]}")
        if op == "abs":
            return self.intrinsic("fabs", kind, args[0])
        if op == "sqrt":
            return self.intrinsic("sqrt", kind, args[0])
        if op == "isfinite":
            size = self.intrinsic("fabs", kind, args[0])
            return self(f"fcmp olt {kind} {size}, {number(math.inf, kind)}")
        if op in SERIES:
            return SERIES[op](self, args[0], kind)
        if op == "pow" or op in FUNCTIONS:
            return self.library(op, kind, *args)
        raise Untraceable(f"it calls {op}, which this engine has not")

    def where(self, condition: str, kind: str, a: str, b: str) -> str:
        """``a`` where the condition holds, else ``b``."""
        if condition not in self.switches or {a, b} <= self.uniform:
            return self(f"select i1 {condition}, {kind} {a}, {kind} {b}")
        # by bits: LLVM makes a branch of a condition that all elements share, and no vectors then
        bits = FLOATS[kind].bits
        one = self(f"fptosi double {self.switches[condition]} to {bits}")
        mask = self(f"sub {bits} 0, {one}")
        a, b = (self(f"bitcast {kind} {x} to {bits}") for x in (a, b))
        other = self(f"and {bits} {self(f'xor {bits} {a}, {b}')}, {mask}")
        return self(f"bitcast {bits} {self(f'xor {bits} {b}, {other}')} to {kind}")

    def extreme(self, order: str, kind: str, a: str, b: str) -> str:
        """The larger or smaller one; a NaN is kept, whichever it is."""
        if a in self.uniform:
            a, b = b, a
        a, before = self.bare.get(a, (a, None)) if b in self.uniform else (a, None)
        better = self(f"fcmp {order} {kind} {a}, {b}")
        found = self(
            f"select i1 {better}, {kind} {b}, {kind} {a}"
        )  # one instruction; keeps a NaN a
        nan = self(f"fcmp uno {kind} {b}, {b}")
        if b not in self.uniform:
            return self(f"select i1 {nan}, {kind} {b}, {kind} {found}")
        # for all elements at once: 0 to subtract, or NaN
        rest = self(f"select i1 {nan}, {kind} {b}, {kind} {number(0.0, kind)}")
        rest = rest if before is None else self(f"fadd {kind} {before}, {rest}")
        whole = self(f"fsub {kind} {found}, {rest}")
        self.bare[whole] = found, rest
        return whole

    def _scalar(self, wide: str, dtype: str) -> str:
        if dtype == "bool":
            condition = self(f"fcmp une double {wide}, {number(0.0, 'double')}")
            self.switches[condition] = wide
            return condition
        return self._astype(wide, "float64", dtype)

    def _astype(self, x: str, of: str, to: str) -> str:
        """Rounded to nearest, ties to even."""
        if of == to:
            return x
        if of == "bfloat16":
            bits = self(f"shl i32 {self(f'zext i16 {x} to i32')}, 16")
            return self._astype(self(f"bitcast i32 {bits} to float"), "float32", to)
        if to == "bfloat16":
            x = self._astype(x, of, "float32")
            bits = self(f"bitcast float {x} to i32")
            odd = self(f"and i32 {self(f'lshr i32 {bits}, 16')}, 1")
            near = self(f"add i32 {self(f'add i32 {bits}, 32767')}, {odd}")
            nan = self(f"fcmp uno float {x}, {x}")
            kept = self(f"or i32 {bits}, 4194304")  # a NaN whose payload is cut must stay one
            bits = self(f"select i1 {nan}, i32 {kept}, i32 {near}")
            return self(f"trunc i32 {self(f'lshr i32 {bits}, 16')} to i16")
        if {of, to} == {"float16", "float64"}:
            return self._astype(self._astype(x, of, "float32"), "float32", to)
        how = "fpext" if BYTES[to] > BYTES[of] else "fptrunc"
        return self(f"{how} {TYPES[of]} {x} to {TYPES[to]}")


def _literal(text: str, dtype: str) -> str:
    if dtype == "bool":
        return "true" if text == "True" else "false"
    if TYPES[dtype] not in FLOATS:
        raise Untraceable(f"it computes in {dtype}")
    return number(float(text), TYPES[dtype])
