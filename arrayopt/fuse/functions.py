"""exp and log for LLVM, made of operations that it can carry out on whole vectors."""

import functools
import math
import struct
from typing import Any, NamedTuple

# exp(r) = 1 + r + r**2 P(r) for |r| <= log(2) / 2, and log(1 + f) = f - f**2 / 2 + f**3 Q(f) for
# 1 + f in [1 / sqrt(2), sqrt(2)]. In float the polynomials of least largest relative error (Remez;
# 3e-9 and 6e-9), in double Taylor's and, for log, the series of atanh.
EXP = {
    "float": [
        0.5000000095389119,
        0.16666518603577912,
        0.04166620517768968,
        0.008368917797914646,
        0.0013950532763024608,
    ],
    "double": [1 / math.factorial(k) for k in range(2, 14)],
}
LOG = [
    0.3333331664123209,
    -0.2500081320030155,
    0.20002294822646538,
    -0.16624452539207002,
    0.14180938805412469,
    -0.13129582337362103,
    0.12883795752605537,
    -0.0785989124230966,
]
ATANH = [2 / (2 * k + 1) for k in range(1, 13)]


class Float(NamedTuple):
    """How a number is laid out."""

    bits: str  # the integer of the same size
    mantissa: int
    bias: int
    least: float  # below this exp is 0
    most: float  # above this exp is infinite
    tiny: float  # the smallest normal number


FLOATS = {
    "float": Float("i32", 23, 127, -105.0, 89.0, 2.0**-126),
    "double": Float("i64", 52, 1023, -746.0, 710.0, 2.0**-1022),
}


def exp(w: Any, x: str, kind: str) -> str:
    """With x = n log(2) + r: the series of exp(r), and 2**n written into the exponent."""
    lay, c, given = FLOATS[kind], functools.partial(number, kind=kind), x
    for op, bound in (("olt", lay.least), ("ogt", lay.most)):
        past = w(f"fcmp {op} {kind} {x}, {c(bound)}")
        x = w(f"select i1 {past}, {kind} {c(bound)}, {kind} {x}")
    magic = 1.5 * 2.0**lay.mantissa  # a number so large that adding it rounds to integers
    t = w.intrinsic("fma", kind, x, c(1 / math.log(2)), c(magic))
    n = w(f"fsub {kind} {t}, {c(magic)}")
    high, low = _log2(lay, kind)
    r = w.intrinsic("fma", kind, n, c(-high), x)
    r = w.intrinsic("fma", kind, n, c(-low), r)
    p = polynomial(w, r, EXP[kind], kind)
    y = w.intrinsic("fma", kind, p, w(f"fmul {kind} {r}, {r}"), r)
    y = w(f"fadd {kind} {y}, {c(1.0)}")
    # 2**n, in two factors, as it may not exist itself: what is shifted into the exponent are the
    # last bits of t, which end in n
    whole = w(f"bitcast {kind} {t} to {lay.bits}")
    half = w(f"ashr {lay.bits} {whole}, 1")
    rest = w(f"shl {lay.bits} {w(f'sub {lay.bits} {whole}, {half}')}, {lay.mantissa}")
    y = w(f"bitcast {kind} {y} to {lay.bits}")
    y = w(f"add {lay.bits} {y}, {w(f'shl {lay.bits} {half}, {lay.mantissa}')}")
    y = w(f"bitcast {lay.bits} {y} to {kind}")
    rest = w(f"add {lay.bits} {rest}, {pattern(1.0, kind)}")
    y = w(f"fmul {kind} {y}, {w(f'bitcast {lay.bits} {rest} to {kind}')}")
    nan = w(f"fcmp uno {kind} {given}, {given}")  # whose bits are no number to shift
    return w(f"select i1 {nan}, {kind} {given}, {kind} {y}")


def log(w: Any, x: str, kind: str) -> str:
    """With x = 2**n z: n log(2) + log(z), whose odd series is that of atanh."""
    lay, c = FLOATS[kind], functools.partial(number, kind=kind)
    small = w(f"fcmp olt {kind} {x}, {c(lay.tiny)}")
    lifted = w(f"fmul {kind} {x}, {c(2.0**lay.mantissa)}")
    y = w(f"select i1 {small}, {kind} {lifted}, {kind} {x}")
    bits = w(f"bitcast {kind} {y} to {lay.bits}")
    root = pattern(math.sqrt(0.5), kind)
    above = w(f"sub {lay.bits} {bits}, {root}")
    n = w(f"ashr {lay.bits} {above}, {lay.mantissa}")
    power = w(f"shl {lay.bits} {n}, {lay.mantissa}")
    z = w(f"bitcast {lay.bits} {w(f'sub {lay.bits} {bits}, {power}')} to {kind}")
    n = w(f"sitofp {lay.bits} {n} to {kind}")
    fewer = w(f"fsub {kind} {n}, {c(float(lay.mantissa))}")
    n = w(f"select i1 {small}, {kind} {fewer}, {kind} {n}")
    f = w(f"fsub {kind} {z}, {c(1.0)}")
    high, low = _log2(lay, kind)
    f2 = w(f"fmul {kind} {f}, {f}")
    half = w(f"fmul {kind} {f2}, {c(0.5)}")
    if kind == "float":
        rest = w(f"fmul {kind} {w(f'fmul {kind} {f2}, {f}')}, {polynomial(w, f, LOG, kind)}")
    else:  # log(1 + f) = f - s f + s p, where 2 s = f - s f: the first term exact
        s = w(f"fdiv {kind} {f}, {w(f'fadd {kind} {z}, {c(1.0)}')}")
        s2 = w(f"fmul {kind} {s}, {s}")
        p = w(f"fmul {kind} {polynomial(w, s2, ATANH, kind)}, {s2}")
        rest = w(f"fmul {kind} {s}, {w(f'fadd {kind} {half}, {p}')}")
    rest = w.intrinsic("fma", kind, n, c(low), rest)
    rest = w(f"fsub {kind} {half}, {rest}")
    y = w.intrinsic("fma", kind, n, c(high), w(f"fsub {kind} {f}, {rest}"))
    # what is no positive number: log(0) = -inf, log(inf) = inf, NaN for the rest
    for test, value in (("ueq", "x"), ("ole", "-inf"), ("olt", "nan")):
        bound, result = math.inf if test == "ueq" else 0.0, x
        past = w(f"fcmp {test} {kind} {x}, {c(bound)}")
        result = x if value == "x" else c(float(value))
        y = w(f"select i1 {past}, {kind} {result}, {kind} {y}")
    return y


def cbrt(w: Any, x: str, kind: str) -> str:
    """A third of the exponent, then steps of Halley's: each has three times as many digits."""
    lay, c = FLOATS[kind], functools.partial(number, kind=kind)
    size = w.intrinsic("fabs", kind, x)
    lift = lay.mantissa // 3 + 4  # 8**lift makes the smallest numbers normal, and their quarters
    small = w(f"fcmp olt {kind} {size}, {c(16 * lay.tiny)}")
    lifted = w(f"fmul {kind} {size}, {c(8.0**lift)}")
    a = w(f"select i1 {small}, {kind} {lifted}, {kind} {size}")
    # as an integer, a number is nearly its logarithm: bias * 2**mantissa for 1
    bits = w(f"sitofp {lay.bits} {w(f'bitcast {kind} {a} to {lay.bits}')} to {kind}")
    one = (lay.bias - 0.05) * 2.0**lay.mantissa * 2 / 3
    third = w.intrinsic("fma", kind, bits, c(1 / 3), c(one))
    y = w(f"bitcast {lay.bits} {w(f'fptosi {kind} {third} to {lay.bits}')} to {kind}")
    quarter = w(f"fmul {kind} {a}, {c(0.25)}")  # of all, so that nothing overflows
    for _ in range(CBRT[kind]):  # y -= y (y**3 - a) / (2 y**3 + a)
        cube = w(f"fmul {kind} {w(f'fmul {kind} {y}, {y}')}, {w(f'fmul {kind} {y}, {c(0.25)}')}")
        off = w(f"fsub {kind} {quarter}, {cube}")
        down = w(f"fadd {kind} {w(f'fadd {kind} {cube}, {cube}')}, {quarter}")
        y = w.intrinsic("fma", kind, y, w(f"fdiv {kind} {off}, {down}"), y)
    lowered = w(f"fmul {kind} {y}, {c(2.0**-lift)}")
    y = w(f"select i1 {small}, {kind} {lowered}, {kind} {y}")
    y = w.intrinsic("copysign", kind, y, x)
    own = w(f"fcmp ueq {kind} {x}, {w(f'fadd {kind} {x}, {x}')}")  # 0, infinity and NaN
    return w(f"select i1 {own}, {kind} {x}, {kind} {y}")


CBRT = {"float": 2, "double": 3}  # steps
SERIES = {"exp": exp, "log": log, "cbrt": cbrt}


def number(value: float, kind: str) -> str:
    """A constant, by its bits: LLVM writes a float as the double of its value."""
    if kind == "float":
        value = struct.unpack("f", struct.pack("f", value))[0] if abs(value) < 3.5e38 else value
    return f"0x{struct.unpack('Q', struct.pack('d', value))[0]:016X}"


def pattern(value: float, kind: str) -> int:
    """The bits of a number, as an integer."""
    int_, float_ = ("I", "f") if kind == "float" else ("Q", "d")
    return int(struct.unpack(int_, struct.pack(float_, value))[0])


def polynomial(w: Any, x: str, terms: list[float], kind: str) -> str:
    """``terms[0] + terms[1] x + ...``, by pairs (Estrin): fewer steps wait for one another."""
    values = [number(c, kind) for c in terms]
    while len(values) > 1:
        pairs = [values[i : i + 2] for i in range(0, len(values), 2)]
        values = [w.intrinsic("fma", kind, p[1], x, p[0]) if len(p) == 2 else p[0] for p in pairs]
        x = w(f"fmul {kind} {x}, {x}") if len(values) > 1 else x
    return values[0]


def _log2(lay: Float, kind: str) -> tuple[float, float]:
    """log(2) in two parts, the first with so few bits that its products with an n are exact."""
    bits = 2.0 ** (lay.mantissa - 11 if kind == "double" else lay.mantissa - 8)
    high = math.floor(math.log(2) * bits) / bits
    # the rest needs more digits than a double has: log(2) = 0.693147180559945309417232...
    return high, (0.693147180559945286226764 - high) + 2.3190468138462996e-17
