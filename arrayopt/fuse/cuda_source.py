"""A program as CUDA C++: a kernel, each of whose blocks goes over one chunk of one parameter.

Compiled without contraction to FMA and without flushing to zero, + - * / and sqrt are those of
IEEE 754, so the numbers are those of the rule run eagerly.
"""

import math

import numpy as np

from .program import COMPARE, FUNCTIONS, Node, Program, Untraceable

THREADS = 256  # in a block
COMPUTED = {"float32": "float", "float64": "double", "bool": "bool"}
TYPES = COMPUTED | {"float16": "unsigned short", "bfloat16": "unsigned short"}  # their bits
SIGNS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
SIGNS |= dict(zip(COMPARE, ("<", "<=", ">", ">=", "==", "!="), strict=True))
SIGNS |= {"logical_and": "&&", "logical_or": "||"}
HALVES = {"float16": "half", "bfloat16": "brain"}

# Without the headers of CUDA, which NVRTC does not bring along.
CONVERSIONS = {
    "half_value": """
__device__ float half_value(unsigned short x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
  return y;
}
""",
    "half_bits": """
__device__ unsigned short half_bits(float x) {
  unsigned short y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}
__device__ unsigned short half_bits(double x) {
  unsigned short y;
  asm("cvt.rn.f16.f64 %0, %1;" : "=h"(y) : "d"(x));
  return y;
}
""",
    "brain_value": """
__device__ float brain_value(unsigned short x) { return __uint_as_float((unsigned)x << 16); }
""",
    # to nearest, ties to even; a NaN whose payload is cut must stay one
    "brain_bits": """
__device__ unsigned short brain_bits(float x) {
  const unsigned bits = __float_as_uint(x);
  return (x != x ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}
""",
}

# The sum of what all threads of a block have, in an order that is always the same.
TREE = f"""
  __shared__ double shared[{THREADS}];
  auto total = [&](double x) {{
    __syncthreads();
    shared[threadIdx.x] = x;
    for (int half = {THREADS // 2}; half > 0; half /= 2) {{
      __syncthreads();
      if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    }}
    return shared[0];  // for thread 0 alone
  }};"""

# From a row of partial sums for each chunk, and the first chunk of each parameter: each of its
# blocks adds up one column of the rows of so many parameters, which are 1 or all.
REDUCE = f"""
extern "C" __global__ void __launch_bounds__({THREADS}) kernel(
    const double* __restrict__ partials, const long long* __restrict__ bounds,
    const long long each, const int columns, double* __restrict__ sums) {{
  const int column = blockIdx.x % columns;
  const long long* const first = bounds + blockIdx.x / columns;
  const long long end = first[each];
  double t = 0.0;
  for (long long i = first[0] + threadIdx.x; i < end; i += {THREADS}) {{
    t += partials[i * columns + column];
  }}{TREE}
  t = total(t);
  if (threadIdx.x == 0) sums[blockIdx.x] = t;
}}
"""


def source(program: Program, columns: dict[str, int], *, strided: bool = False) -> str:
    """The text of ``kernel(rows, chunks, [dims], addresses, scalars, [partials])``.

    ``rows`` has a row for each parameter: the addresses of its arrays and, if ``strided``, its
    shape and the strides of each array, counted in elements, all ``dims`` long, last axis first.
    ``chunks`` has one for each block: which row, the first element, how many elements. Each
    block writes its sums to its row of ``partials``.

    Args:
        columns: where in a row the address of each input is. What is not named there belongs to
            all parameters: the kernel is given its address.
        strided: whether elements need not lie side by side.
    """
    return _Writer(program, columns, strided).source()


def shared_inputs(program: Program, columns: dict[str, int]) -> list[str]:
    """The inputs that belong to all parameters, in the order in which the kernel takes them."""
    return [x.name for x in program.inputs if x.name not in columns]


class _Writer:
    def __init__(self, program: Program, columns: dict[str, int], strided: bool) -> None:
        self.program, self.columns, self.strided = program, columns, strided
        self.place = {x.name: i for i, x in enumerate(program.inputs)}

    def source(self) -> str:
        program, columns = self.program, self.columns
        shared = shared_inputs(program, columns)
        takes = ["const long long* __restrict__ rows", "const long long* __restrict__ chunks"]
        takes += ["const int dims"] * self.strided
        takes += [f"const double* __restrict__ p{self.place[name]}" for name in shared]
        takes += [f"const {_computed(d)} s{i}" for i, d in enumerate(program.scalars)]
        takes += ["double* __restrict__ partials"] * bool(program.sums)
        width = len(columns)
        stride = f"({width} + {width + 1} * dims)" if self.strided else str(width)
        alone, each = self._nodes()
        text = f"""
extern "C" __global__ void __launch_bounds__({THREADS}) kernel(
    {f",{chr(10)}    ".join(takes)}) {{
  const long long* const chunk = chunks + 3LL * blockIdx.x;
  const long long* const row = rows + chunk[0] * {stride};
  const long long start = chunk[1];
  const int count = chunk[2];
  {_lines(self._pointers() + alone, 2)}
  #pragma unroll 1
  for (int i = threadIdx.x; i < count; i += {THREADS}) {{
    {_lines(self._offsets() + each + self._results(), 4)}
  }}{self._sums()}
}}
"""
        return "".join(code for name, code in CONVERSIONS.items() if f"{name}(" in text) + text

    def _pointers(self) -> list[str]:
        """Where each array begins; in a flat one, where the chunk does."""
        lines = []
        for i, x in enumerate(self.program.inputs):
            if x.name in self.columns:
                kind, begin = TYPES[x.dtype], "" if self.strided or x.single else " + start"
                lines.append(f"{kind}* const p{i} = ({kind}*)row[{self.columns[x.name]}]{begin};")
                lines.append(f"__builtin_assume(__isGlobal(p{i}));")
        return lines + [f"double t{k} = 0.0;" for k in range(len(self.program.sums))]

    def _offsets(self) -> list[str]:
        """How far from where its array begins each array's element is."""
        each = [
            (i, self.columns[x.name]) for i, x in enumerate(self.program.inputs) if not x.single
        ]
        if not self.strided:
            return []
        begin = len(self.columns)
        return [
            "long long rest = start + i;",
            *(f"long long o{i} = 0;" for i, _ in each),
            "#pragma unroll 1",
            "for (int d = 0; d < dims; ++d) {",
            f"  const long long size = row[{begin} + d], k = rest % size;",
            "  rest /= size;",
            *(f"  o{i} += k * row[{begin} + {column + 1} * dims + d];" for i, column in each),
            "}",
        ]

    def _element(self, name: str) -> str:
        i = self.place[name]
        if self.program.inputs[i].single:
            return f"*p{i}"
        return f"p{i}[{f'o{i}' if self.strided else 'i'}]"

    def _nodes(self) -> tuple[list[str], list[str]]:
        """What is done once for a chunk, and what for each element of it."""
        alone: list[str] = []
        each: list[str] = []
        uniform = self.program.uniform()
        for i, node in enumerate(self.program.nodes):
            line = f"const {TYPES[node.dtype]} v{i} = {self._value(node)};"
            (alone if uniform[i] else each).append(line)
        return alone, each

    def _value(self, node: Node) -> str:
        if node.op == "input":
            return self._element(node.data)
        if node.op == "scalar":
            return f"s{node.data}"
        if node.op == "literal":
            return literal(node.data, node.dtype)
        of = self.program.nodes[node.args[-1]].dtype
        return operation(node.op, of, node.dtype, [f"v{a}" for a in node.args])

    def _results(self) -> list[str]:
        lines = [f"t{k} += v{i};" for k, (_, i) in enumerate(self.program.sums)]
        return lines + [f"{self._element(name)} = v{i};" for name, i in self.program.stores]

    def _sums(self) -> str:
        count = len(self.program.sums)
        lines = [TREE] * bool(count)
        for k in range(count):
            lines.append(f"\n  t{k} = total(t{k});")
            lines.append(
                f"\n  if (threadIdx.x == 0) partials[{count}LL * blockIdx.x + {k}] = t{k};"
            )
        return "".join(lines)


def operation(op: str, of: str, to: str, args: list[str]) -> str:
    """One node, from values of dtype ``of``."""
    a, b = args[0], args[-1]
    if op == "where":
        return f"{a} ? {args[1]} : {b}"
    if op == "astype":
        return _astype(a, of, to)
    kind = _computed(of)
    if op == "logical_not":
        return f"!{a}"
    if op in SIGNS:
        return f"{a} {SIGNS[op]} {b}"
    if op in ("maximum", "minimum"):  # fmax and fmin would drop a NaN
        return f"{a} {'>' if op == 'maximum' else '<'} {b} || {a} != {a} ? {a} : {b}"
    if op == "negative":
        return f"-{a}"
    if op == "isfinite":
        return f"{_call('fabs', kind)}({a}) < {literal('inf', of)}"
    if op in ("abs", "pow", *FUNCTIONS):
        return f"{_call('fabs' if op == 'abs' else op, kind)}({', '.join(args)})"
    raise Untraceable(f"it calls {op}, which this engine has not")


def _call(name: str, kind: str) -> str:
    return f"{name}f" if kind == "float" else name


def _computed(dtype: str) -> str:
    if dtype not in COMPUTED:
        raise Untraceable(f"it computes in {dtype}")
    return COMPUTED[dtype]


def _astype(x: str, of: str, to: str) -> str:
    """Rounded to nearest, ties to even."""
    if of == to:
        return x
    if of in HALVES:
        return _astype(f"{HALVES[of]}_value({x})", "float32", to)
    if to == "bfloat16" and of == "float64":
        x = f"(float){x}"
    return f"{HALVES[to]}_bits({x})" if to in HALVES else f"({TYPES[to]}){x}"


def literal(text: str, dtype: str) -> str:
    """A constant of that dtype, from its ``repr``."""
    kind = _computed(dtype)
    if kind == "bool":
        return text.lower()
    x = float(text)
    if not math.isfinite(x):
        bits = np.asarray(x, dtype).view(f"u{np.dtype(dtype).itemsize}")
        name = "__uint_as_float" if kind == "float" else "__longlong_as_double"
        return f"{name}({int(bits):#x}{'u' if kind == 'float' else 'll'})"
    return f"{np.float32(x)!s}f" if kind == "float" else f"{x!r}"


def _lines(lines: list[str], indent: int) -> str:
    return ("\n" + " " * indent).join(lines)
