"""Thirteen update rules in 50-digit arithmetic, transcribed from their formulas: an oracle.

Nothing here comes from the library under test. A rule is a function of one element: parameter p,
gradient g, slots s (changed in place), step t = 1, 2, ..., hyperparameters; it returns the new p.
Floats are taken as exactly the double they are. `python tests/reference.py` runs the self-check.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

from mpmath import exp, mp, mpf, sign, sqrt

mp.dps = 50

N: TypeAlias = Any  # a number: mpf, as run() hands them over
Slots: TypeAlias = SimpleNamespace  # one element's slots, by name
Coefs = dict[str, mpf]


class Trajectory(NamedTuple):
    """What a run did."""

    params: list[list[list[mpf]]]  # after each step: over parameters, over elements
    slots: dict[str, list[Any]]  # after the last step: over parameters (over elements)
    shared: list[Coefs]  # mada: the learned coefficients used in each step


def ratio(a: N, b: N) -> N:
    """a / b with 0 / 0 = 0."""
    return mpf(0) if a == 0 and b == 0 else a / b


def clip(x: N, low: N, high: N) -> N:
    return min(max(x, low), high)


def sgd(p: N, g: N, s: Slots, t: int, *, lr: N = 1e-3, momentum: N = 0.0, dampening: N = 0.0,
        nesterov: bool = False) -> N:  # fmt: skip
    d = g
    if momentum != 0:
        s.m = g if t == 1 else momentum * s.m + (1 - dampening) * g
        d = g + momentum * s.m if nesterov else s.m
    return p - lr * d


def adam(p: N, g: N, s: Slots, t: int, *, lr: N = 1e-3, b1: N = 0.9, b2: N = 0.999, eps: N = 1e-8,
         eps_root: N = 0.0, eps_hat: bool = False, bias_correction: bool = True) -> N:  # fmt: skip
    s.m = b1 * s.m + (1 - b1) * g
    s.v = b2 * s.v + (1 - b2) * g**2
    c1, c2 = (1 - b1**t, 1 - b2**t) if bias_correction else (mpf(1), mpf(1))
    if eps_hat:  # the form before section 2.1 of the paper
        return p - lr * sqrt(c2) / c1 * s.m / (sqrt(s.v + eps_root) + eps)
    return p - lr * (s.m / c1) / (sqrt(s.v / c2 + eps_root) + eps)


def amsgrad(p: N, g: N, s: Slots, t: int, *, lr: N = 1e-3, b1: N = 0.9, b2: N = 0.999,
            eps: N = 1e-8, eps_root: N = 0.0, eps_hat: bool = False, corrected_max: bool = False,
            bias_correction: bool = True) -> N:  # fmt: skip
    s.m = b1 * s.m + (1 - b1) * g
    s.v = b2 * s.v + (1 - b2) * g**2
    c1, c2 = (1 - b1**t, 1 - b2**t) if bias_correction else (mpf(1), mpf(1))
    if corrected_max:
        s.w = max(s.w, s.v / c2)
        return p - lr * (s.m / c1) / (sqrt(s.w + eps_root) + eps)
    s.w = max(s.w, s.v)
    if eps_hat:
        return p - lr * sqrt(c2) / c1 * s.m / (sqrt(s.w + eps_root) + eps)
    return p - lr * (s.m / c1) / (sqrt(s.w / c2 + eps_root) + eps)


def avgrad(p: N, g: N, s: Slots, t: int, *, lr: N = 1e-3, b1: N = 0.9, b2: N = 0.999,
           eps: N = 1e-8) -> N:  # fmt: skip
    s.m = b1 * s.m + (1 - b1) * g
    s.v = b2 * s.v + (1 - b2) * g**2
    s.w = ((t - 1) * s.w + s.v) / t
    return p - lr * (s.m / (1 - b1**t)) / (sqrt(s.w / (1 - b2**t)) + eps)


def yogi(p: N, g: N, s: Slots, t: int, *, lr: N = 1e-2, b1: N = 0.9, b2: N = 0.999, eps: N = 1e-3,
         initial_accumulator: N = 1e-6) -> N:  # fmt: skip
    if t == 1:
        s.m = s.v = initial_accumulator
    s.m = b1 * s.m + (1 - b1) * g
    s.v = s.v - (1 - b2) * sign(s.v - g**2) * g**2
    return p - lr * (s.m / (1 - b1**t)) / (sqrt(s.v / (1 - b2**t)) + eps)


def adan(p: N, g: N, s: Slots, t: int, *, lr: N = 1e-3, b1: N = 0.98, b2: N = 0.92, b3: N = 0.99,
         eps: N = 1e-8, eps_root: N = 1e-8, bias_correction: bool = True) -> N:  # fmt: skip
    d = mpf(0) if t == 1 else g - s.g
    s.m = b1 * s.m + (1 - b1) * g
    s.n = b2 * s.n + (1 - b2) * d
    s.v = b3 * s.v + (1 - b3) * (g + b2 * d) ** 2
    s.g = g
    c1, c2, c3 = (1 - b**t if bias_correction else mpf(1) for b in (b1, b2, b3))
    return p - lr * (s.m / c1 + b2 * s.n / c2) / (sqrt(s.v / c3 + eps_root) + eps)


def laprop(p: N, g: N, s: Slots, t: int, *, lr: N = 4e-4, b1: N = 0.9, b2: N = 0.999,
           eps: N = 1e-15) -> N:  # fmt: skip
    s.v = b2 * s.v + (1 - b2) * g**2
    s.m = b1 * s.m + (1 - b1) * ratio(g, sqrt(s.v / (1 - b2**t)) + eps)
    return p - lr / (1 - b1**t) * s.m


def adamax(p: N, g: N, s: Slots, t: int, *, lr: N = 2e-3, b1: N = 0.9, b2: N = 0.999, eps: N = 1e-8,
           eps_in_max: bool = False, bias_correction: bool = True) -> N:  # fmt: skip
    s.m = b1 * s.m + (1 - b1) * g
    s.u = max(b2 * s.u, abs(g) + eps if eps_in_max else abs(g))
    return p - lr / (1 - b1**t if bias_correction else mpf(1)) * ratio(
        s.m, s.u if eps_in_max else s.u + eps
    )


def simplified_ademamix(p: N, g: N, s: Slots, t: int, *, lr: N = 1e-4, b1: N = 0.99, b2: N = 0.95,
                        alpha: N = 0.0, eps: N = 1e-8, eps_root: N = 0.0) -> N:  # fmt: skip
    s.m = b1 * s.m + g
    s.v = b2 * s.v + (1 - b2) * g**2
    return p - lr * (s.m + alpha * g) / (sqrt(s.v / (1 - b2**t) + eps_root) + eps)


def madam(p: N, g: N, s: Slots, t: int, *, lr: N = 0.01, p_scale: N = 3.0, g_bound: N = 10.0,
          b2: N = 0.999) -> N:  # fmt: skip
    s.v = b2 * s.v + (1 - b2) * g**2
    q = mpf(0) if s.v == 0 else g / sqrt(s.v / (1 - b2**t))
    q = clip(q, -g_bound, g_bound)
    p = p * exp(-lr * q * sign(p))
    return clip(p, -p_scale * s.scale, p_scale * s.scale)


def maximum_variation(g: N, s: Slots, b_lo: N, b_hi: N, b_first: N | None, delta: N) -> None:
    """MaxVA's averages u, v, w, common to MAdam and LaMAdam."""
    if s.w == 0:
        beta = b_hi if b_first is None else b_first
    else:
        um = s.u / s.w
        var = s.v / s.w - um**2
        dist = (g - um) ** 2
        beta = (dist + var) / (s.w * (dist - var) + dist + var + delta)
        beta = clip(beta, b_lo, b_hi)
    s.u = beta * s.u + (1 - beta) * g
    s.v = beta * s.v + (1 - beta) * g**2
    s.w = beta * s.w + (1 - beta)


def maxva_madam(p: N, g: N, s: Slots, t: int, *, lr: N = 1e-3, b1: N = 0.9, b_lo: N = 0.5,
                b_hi: N = 0.999, b_first: N | None = None, delta: N = 1e-16, eps: N = 1e-8,
                amsgrad: bool = False, nesterov: bool = False) -> N:  # fmt: skip
    maximum_variation(g, s, b_lo, b_hi, b_first, delta)
    s.m = b1 * s.m + (1 - b1) * g
    m = b1 * s.m + (1 - b1) * g if nesterov else s.m
    denominator = sqrt(s.v / s.w) + eps
    if amsgrad:
        s.top = denominator = max(s.top, denominator)
    return p - lr / (1 - b1**t) * m / denominator


def maxva_lamadam(p: N, g: N, s: Slots, t: int, *, lr: N = 1e-3, b1: N = 0.9, b_lo: N = 0.5,
                  b_hi: N = 0.98, b_first: N | None = None, delta: N = 1e-16,
                  eps: N = 1e-15) -> N:  # fmt: skip
    maximum_variation(g, s, b_lo, b_hi, b_first, delta)
    s.m = b1 * s.m + (1 - b1) * g / (sqrt(s.v / s.w) + eps)
    return p - lr / (1 - b1**t) * s.m


def mada(p: N, g: N, s: Slots, t: int, *, lr: N = 1e-3, b1: N = 0.9, b2: N = 0.99, b3: N = 0.0,
         rho: N = 1.0, c: N = 1.0, eps: N = 1e-8, bias_correction: bool = True,
         accumulate: str = "max", yogi_reference: str = "mixed",
         first_difference: str = "gradient") -> N:  # fmt: skip
    """The move, and in d_* the derivative of p with respect to each coefficient.

    Slots in the formulas' names: m = mb, v = vt, r = the mixed v.
    """
    m1, n1, v1, w1 = s.m, s.n, s.v, s.w  # of the step before
    r = s.r if yogi_reference == "mixed" else s.v
    d = mpf(0) if t == 1 and first_difference == "zero" else g - s.g
    s.g = g
    s.m = b1 * m1 + (1 - b1) * g
    s.n = b3 * n1 + (1 - b3) * d
    gh = g + b3 * d
    q = gh**2
    sg = sign(q - r)
    g2 = c * q + (1 - c) * (r + q * sg)
    s.v = b2 * v1 + (1 - b2) * g2
    if accumulate == "max":
        s.w = max(w1, s.v)
        kap = (1 + sign(s.v - w1)) / 2  # dw/dvt
    else:
        s.w = ((t - 1) * w1 + s.v) / t
        kap = mpf(1) / t
    s.r = rho * s.v + (1 - rho) * s.w
    B1, B2 = (1 - b1**t, 1 - b2**t) if bias_correction else (mpf(1), mpf(1))
    M = s.m / B1 + b3 * s.n
    V = s.r / B2
    D = sqrt(V) + eps

    F = rho + (1 - rho) * kap
    P = -lr / D
    Q = mpf(0) if V == 0 else lr * M / (2 * sqrt(V) * D**2)
    dM_b1 = (m1 - g) / B1
    dM_b3 = s.n + b3 * (n1 - d)
    dV_b2 = F * (v1 - g2) / B2
    dV_b3 = F * (1 - b2) * (c + (1 - c) * sg) * 2 * gh * d / B2
    dV_rho = (s.v - s.w) / B2
    dV_c = F * (1 - b2) * (q - r - q * sg) / B2
    if bias_correction:
        dM_b1 += s.m * t * b1 ** (t - 1) / B1**2
        dV_b2 += s.r * t * b2 ** (t - 1) / B2**2
    s.d_b1 = P * dM_b1
    s.d_b2 = Q * dV_b2
    s.d_b3 = P * dM_b3 + Q * dV_b3
    s.d_rho = Q * dV_rho
    s.d_c = Q * dV_c
    return p - lr * M / D


BOUNDS = {"b1": (mpf(0.01), mpf(0.99)), "b2": (mpf(0.501), mpf(0.99)), "b3": (mpf(0), mpf(0.99)),
          "rho": (mpf(0), mpf(1)), "c": (mpf(0), mpf(1))}  # fmt: skip


def learn(coefs: Coefs, velocity: Coefs, pairs: list[tuple[mpf, Slots]], *, hlr_b1: N = 5e-4,
          hlr_b2: N = 5e-4, hlr_b3: N = 0.1, hlr_rho: N = 0.1, hlr_c: N = 0.1,
          hyper_momentum: N = 0.0, hyper_clip: N = 10.0) -> None:  # fmt: skip
    """One hyper-gradient step of mada's coefficients; pairs: every element's gradient and slots."""
    hlrs = {"b1": hlr_b1, "b2": hlr_b2, "b3": hlr_b3, "rho": hlr_rho, "c": hlr_c}
    for x, hlr in hlrs.items():
        if hlr == 0:
            continue
        h = sum((g * getattr(s, "d_" + x) for g, s in pairs), mpf(0))
        h = h * min(mpf(1), hyper_clip / (abs(h) + mpf(1e-6)))
        velocity[x] = hyper_momentum * velocity[x] + h
        coefs[x] = clip(coefs[x] - hlr * velocity[x], *BOUNDS[x])


RULES: dict[str, tuple[Callable[..., mpf], str]] = {  # the update, its slots
    "sgd": (sgd, "m"),
    "adam": (adam, "m v"),
    "amsgrad": (amsgrad, "m v w"),
    "avgrad": (avgrad, "m v w"),
    "yogi": (yogi, "m v"),
    "adan": (adan, "m n v g"),
    "laprop": (laprop, "m v"),
    "adamax": (adamax, "m u"),
    "simplified_ademamix": (simplified_ademamix, "m v"),
    "madam": (madam, "v scale"),
    "maxva_madam": (maxva_madam, "m u v w top"),
    "maxva_lamadam": (maxva_lamadam, "m u v w"),
    "mada": (mada, "m n v w r g d_b1 d_b2 d_b3 d_rho d_c"),
}
GENERIC = {"weight_decay": 0.0, "decay": None, "maximize": False}
SCHEDULED = ("lr", "alpha")


def defaults(rule: Callable[..., Any]) -> dict[str, Any]:
    """A rule's hyperparameters and their defaults."""
    return dict(rule.__kwdefaults__ or {})


def exact(x: Any) -> Any:
    """Numbers as mpf, digit for digit; flags, names and None as they are."""
    if x is None or isinstance(x, bool | str | mpf):
        return x
    return [exact(y) for y in x] if isinstance(x, list | tuple) else mpf(float(x))


def run(rule: str, params: Sequence[Any], grads: Sequence[Any], **hyper: Any) -> Trajectory:
    """Apply `rule` len(grads) times; grads[t][i][j] is for element j of parameter i at step t+1.

    `hyper` overrides the defaults; lr and alpha may be lists (index: step).
    """
    update, names = RULES[rule]
    slots = [k for k in names.split() if k != "top" or hyper.get("amsgrad")]
    h, meta = defaults(update), defaults(learn) if rule == "mada" else {}
    if unknown := set(hyper) - {*h, *meta, *GENERIC}:
        raise TypeError(f"{rule} has no hyperparameter {sorted(unknown)}")
    h = {k: exact(hyper.get(k, x)) for k, x in h.items()}
    meta = {k: exact(hyper.get(k, x)) for k, x in meta.items()}
    wd, decay, maximize = (exact(hyper.get(k, x)) for k, x in GENERIC.items())
    if wd != 0 and decay not in ("coupled", "decoupled", "independent"):
        raise ValueError(f"weight_decay without a known decay: {decay!r}")

    now = [[exact(x) for x in p] for p in params]
    state = [[Slots(**{k: mpf(0) for k in slots}) for _ in p] for p in now]
    if rule == "madam":
        for p, s in zip(now, state, strict=True):
            for e in s:
                e.scale = sqrt(sum(x**2 for x in p) / len(p))
    coefs = {x: h[x] for x in BOUNDS} if rule == "mada" else {}
    velocity = {x: mpf(0) for x in coefs}
    path, shared = [], []

    for t, raw in enumerate(grads, start=1):
        ht = {k: h[k][t - 1] if k in SCHEDULED and isinstance(h[k], list) else h[k] for k in h}
        lr = ht["lr"]
        g = [[-exact(x) if maximize else exact(x) for x in gi] for gi in raw]
        if wd != 0 and decay == "coupled":
            g = [[x + wd * y for x, y in zip(*gp, strict=True)] for gp in zip(g, now, strict=True)]
        elif wd != 0 and decay == "decoupled":
            now = [[x * (1 - lr * wd) for x in p] for p in now]
        elif wd != 0 and lr != 0:
            now = [[x * (1 - wd) for x in p] for p in now]
        if rule == "mada":
            if t > 1 and lr != 0:
                pairs = [z for gs in zip(g, state, strict=True) for z in zip(*gs, strict=True)]
                learn(coefs, velocity, pairs, **meta)
            ht.update(coefs)
            shared.append(dict(coefs))
        now = [[update(*e, t, **ht) for e in zip(*pgs, strict=True)]
               for pgs in zip(now, g, state, strict=True)]  # fmt: skip
        path.append(now)

    out: dict[str, list[Any]] = {k: [[getattr(e, k) for e in s] for s in state] for k in slots}
    if rule == "madam":
        out["scale"] = [s[0] for s in out["scale"]]
    return Trajectory(path, out, shared)


def self_check() -> None:
    """Derivatives against numerical ones, corners and known facts of the rules."""
    import itertools
    import random
    from functools import partial

    rng = random.Random(1)

    def near(a: Any, b: Any, tol: str) -> None:
        if isinstance(a, list):
            for x, y in zip(a, b, strict=True):
                near(x, y, tol)
        else:
            assert abs(a - b) <= mpf(tol) * max(1, abs(b)), (a, b)

    # mada: the closed forms are the derivatives of one step
    ups, signs, count = set(), set(), 0
    for bias, acc, ref, first, t in itertools.product(
        (True, False), ("max", "mean"), ("mixed", "ema"), ("gradient", "zero"), (1, 2, 3, 7)
    ):
        for _ in range(3):
            start = {k: mpf(rng.uniform(-1, 1)) for k in "mng"}
            start |= {k: mpf(rng.uniform(0.1, 1)) for k in "vwr"}
            p, g = mpf(rng.gauss(0, 1)), mpf(rng.gauss(0, 1))
            at = {x: mpf(rng.uniform(0.51, 0.98)) for x in BOUNDS}
            fixed = {"lr": mpf(0.1), "eps": mpf(1e-3), "bias_correction": bias, "accumulate": acc,
                     "yogi_reference": ref, "first_difference": first}  # fmt: skip
            s = Slots(**start)
            mada(p, g, s, t, **at, **fixed)
            ups.add(s.v > start["w"])
            q = (g + at["b3"] * (g - start["g"])) ** 2
            signs.add(q > start["r" if ref == "mixed" else "v"])

            def step(x: str, y: N) -> N:
                return mada(p, g, Slots(**start), t, **{**at, x: y}, **fixed)  # noqa: B023

            for x in BOUNDS:
                near(getattr(s, "d_" + x), mp.diff(partial(step, x), at[x]), "1e-20")
                count += 1
    assert ups == signs == {True, False}
    print(f"mada: {count} closed-form derivatives agree with numerical ones to 1e-20")

    params = [[rng.gauss(0, 1) for _ in range(3)], [rng.gauss(0, 1)]]
    grads = [[[rng.gauss(0, 1) for _ in p] for p in params] for _ in range(12)]

    def dot(a: Any, b: Any) -> Any:
        return sum(y * z for c, d in zip(a, b, strict=True) for y, z in zip(c, d, strict=True))

    # mada, whole: h_x = d/dx of sum g_2 p_1(x), by numerical differentiation of a first step
    hyper: dict[str, Any] = {"lr": 0.1, "rho": 0.5, "c": 0.5, "b3": 0.3, "accumulate": "mean"}
    hyper["hyper_momentum"] = 0.5
    two = run("mada", params, grads[:2], **hyper)
    three = run("mada", params, grads[:3], **hyper)
    for x, (lo, hi) in BOUNDS.items():
        hlr = mpf(defaults(learn)["hlr_" + x])

        def loss(y: mpf, x: str = x) -> mpf:
            return dot(grads[1], run("mada", params, grads[:1], **{**hyper, x: y}).params[0])

        h = mp.diff(loss, two.shared[0][x])
        assert abs(h) < 9  # rho and c: 0, for w = vt and r = 0 in step 1
        near(two.shared[1][x], clip(two.shared[0][x] - hlr * h, lo, hi), "1e-20")
        k = dot(grads[2], two.slots["d_" + x])
        assert 0 < abs(k) < 9
        near(three.shared[2][x], clip(two.shared[1][x] - hlr * (h / 2 + k), lo, hi), "1e-20")
    print("mada: hyper-gradients and heavy ball of steps 2 and 3 agree")

    # corners
    def same(rule: str, hyper: dict[str, Any], other: str, theirs: dict[str, Any]) -> None:
        a, b = run(rule, params, grads, **hyper), run(other, params, grads, **theirs)
        near(a.params, b.params, "1e-40")
        print(rule, {k: x for k, x in hyper.items() if "hlr" not in k}, "=", other)

    frozen: dict[str, Any] = {"hlr_" + x: 0 for x in BOUNDS}
    base: dict[str, Any] = {"lr": 0.1, "b1": 0.9, "b2": 0.7, "eps": 1e-8}
    corners: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
        ({"b3": 0, "c": 1, "rho": 1}, "adam", {}),
        ({"rho": 0}, "amsgrad", {}),
        ({"rho": 0, "accumulate": "mean"}, "avgrad", {}),
        ({"c": 0, "rho": 1}, "yogi", {"initial_accumulator": 0}),
        ({"c": 0, "yogi_reference": "ema"}, "yogi", {"initial_accumulator": 0}),
    ]
    for corner, other, extra in corners:
        same("mada", corner | base | frozen, other, base | extra)
    # adan's b2 is mada's b3 and the other way round
    corner = {"b3": 0.92, "bias_correction": False, "first_difference": "zero"}
    extra = {"b2": 0.92, "b3": 0.7, "bias_correction": False, "eps_root": 0}
    same("mada", corner | base | frozen, "adan", base | extra)
    b: dict[str, Any] = {"b_lo": 0.99, "b_hi": 0.99}
    same("maxva_madam", b | {"lr": 0.1}, "adam", {"lr": 0.1, "b2": 0.99})
    same("maxva_lamadam", b | {"lr": 0.1}, "laprop", {"lr": 0.1, "b2": 0.99})

    same("adamax", {"eps": 0}, "adamax", {"eps": 0, "eps_in_max": True})

    # mada: by hand, a gradient whose square lies between vt' = 15/8 and the mixed v' = 2
    q = exact(1.4) ** 2
    for ref, g2 in ("mixed", 2 - q), ("ema", exact(1.875) + q):
        hyper = {"b2": 0.5, "rho": 0, "c": 0, "bias_correction": False, "yogi_reference": ref}
        three = run("mada", [[1]], [[[2]], [[0.5]], [[1.4]]], **hyper, **frozen)
        near(three.slots["v"][0][0], (exact(1.875) + g2) / 2, "1e-40")

    # MaxVA: beta at t = 2, with the clip out of the way, and w after it
    w = run("maxva_madam", params, grads[:2], b_first=0.75, delta=0).slots["w"][1][0]
    near(w, mpf("0.8") * mpf("0.25") + mpf("0.2"), "1e-40")

    # first steps
    f = run("simplified_ademamix", params, grads[:1], lr=0.1, alpha=3.0)
    g = exact(grads[0][1][0])
    near(params[1][0] - f.params[0][1][0], 4 * mpf(0.1) * g / (abs(g) + mpf(1e-8)), "1e-40")
    f = run("madam", params, grads[:1])
    for p, g, new in zip(params[0], grads[0][0], f.params[0][0], strict=True):
        near(new / p, exp(-mpf(0.01) * sign(g) * sign(p)), "1e-40")

    # optax's documented example of simplified_ademamix
    now, steps, shown = [mpf(1), mpf(2), mpf(3)], [], []
    for _ in range(5):
        steps.append([[2 * y for y in now]])
        now = run("simplified_ademamix", [[1, 2, 3]], steps, lr=0.01).params[-1][0]
        shown.append(f"{float(sum(y**2 for y in now)):.2E}")
    assert shown == ["1.39E+01", "1.36E+01", "1.33E+01", "1.28E+01", "1.23E+01"], shown

    # zeros: betas of 0 and gradients of 0 go through
    zeros = [[[0] * len(p) for p in params]] * 3
    for rule, (update, _) in RULES.items():
        betas = {k: 0 for k in defaults(update) if k in ("b1", "b2", "b3")}
        run(rule, params, grads, **betas)
        run(rule, params, zeros)
    for rule in ("adamax", "laprop"):
        near(run(rule, params, zeros, eps=0).params[-1], exact(params), "0")
    print("first steps, optax's example, zeros: ok")


if __name__ == "__main__":
    self_check()
