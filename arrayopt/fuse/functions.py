"""exp and log for LLVM, made of operations that it can carry out on whole vectors."""

import functools
import math
import struct
from typing import Any, NamedTuple

EXP = {"float": 8, "double": 14}  # terms of exp on [-log(2) / 2, log(2) / 2]
LOG = {"float": 5, "double": 12}  # terms of log on [1 / sqrt(2), sqrt(2)]


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
    lay, c = FLOATS[kind], functools.partial(number, kind=kind)
    for op, bound in (("olt", lay.least), ("ogt", lay.most)):
        past = w(f"fcmp {op} {kind} {x}, {c(bound)}")
        x = w(f"select i1 {past}, {kind} {c(bound)}, {kind} {x}")
    magic = 1.5 * 2.0**lay.mantissa  # a number so large that adding it rounds to integers
    t = w.intrinsic("fma", kind, x, c(1 / math.log(2)), c(magic))
    n = w(f"fsub {kind} {t}, {c(magic)}")
    high = _rounded(math.log(2), lay.mantissa - 11 if kind == "double" else lay.mantissa - 8)
    # log(2) - high needs more digits than a double has: log(2) = 0.693147180559945309417232...
    low = (0.693147180559945286226764 - high) + 2.3190468138462996e-17
    r = w.intrinsic("fma", kind, n, c(-high), x)
    r = w.intrinsic("fma", kind, n, c(-low), r)
    terms = EXP[kind]
    y = c(1 / math.factorial(terms - 1))
    for k in range(terms - 2, 1, -1):
        y = w.intrinsic("fma", kind, y, r, c(1 / math.factorial(k)))
    y = w(f"fmul {kind} {y}, {r}")
    y = w.intrinsic("fma", kind, y, r, r)
    y = w(f"fadd {kind} {y}, {c(1.0)}")
    whole = w(f"bitcast {kind} {t} to {lay.bits}")
    whole = w(f"sub {lay.bits} {whole}, {pattern(magic, kind)}")
    half = w(f"ashr {lay.bits} {whole}, 1")  # in two factors: 2**n itself may not exist
    for power in (half, w(f"sub {lay.bits} {whole}, {half}")):
        power = w(f"add {lay.bits} {power}, {lay.bias}")
        power = w(f"shl {lay.bits} {power}, {lay.mantissa}")
        factor = w(f"bitcast {lay.bits} {power} to {kind}")
        y = w(f"fmul {kind} {y}, {factor}")
    return y


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
    s = w(f"fdiv {kind} {f}, {w(f'fadd {kind} {z}, {c(1.0)}')}")
    s2 = w(f"fmul {kind} {s}, {s}")
    p = c(2 / (2 * LOG[kind] + 1))
    for k in range(LOG[kind] - 1, 0, -1):
        p = w.intrinsic("fma", kind, p, s2, c(2 / (2 * k + 1)))
    p = w(f"fmul {kind} {p}, {s2}")
    # log(1 + f) = f - s f + s p, where 2 s = f - s f: the first term exact, the others small
    half = w(f"fmul {kind} {w(f'fmul {kind} {f}, {f}')}, {c(0.5)}")
    rest = w(f"fmul {kind} {s}, {w(f'fadd {kind} {half}, {p}')}")
    high = _rounded(math.log(2), lay.mantissa - 11 if kind == "double" else lay.mantissa - 8)
    low = (0.693147180559945286226764 - high) + 2.3190468138462996e-17
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


SERIES = {"exp": exp, "log": log}


def number(value: float, kind: str) -> str:
    """A constant, by its bits: LLVM writes a float as the double of its value."""
    if kind == "float":
        value = struct.unpack("f", struct.pack("f", value))[0] if abs(value) < 3.5e38 else value
    return f"0x{struct.unpack('Q', struct.pack('d', value))[0]:016X}"


def pattern(value: float, kind: str) -> int:
    """The bits of a number, as an integer."""
    int_, float_ = ("I", "f") if kind == "float" else ("Q", "d")
    return int(struct.unpack(int_, struct.pack(float_, value))[0])


def _rounded(value: float, bits: int) -> float:
    """``value`` in [0.5, 1) with so many bits."""
    return math.floor(value * 2.0**bits) / 2.0**bits
