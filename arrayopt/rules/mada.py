r"""MADA: one rule that contains Adam, AMSGrad, AVGrad, Yogi and Adan, with learned coefficients.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots`, primes for the step before, every slot
0 at first, :math:`d = g - g'` and :math:`r` Yogi's reference (:math:`v'`, or :math:`\tilde v'` with
``yogi_reference="ema"``), per element:

.. math::

    m &= \beta_1 m' + (1 - \beta_1)\, g, \quad n = \beta_3 n' + (1 - \beta_3)\, d, \quad
        q = (g + \beta_3 d)^2, \quad s = \mathrm{sign}(q - r) \\
    \tilde v &= \beta_2 \tilde v' + (1 - \beta_2)\, (c\, q + (1 - c)(r + q s)) \\
    w &= \max(w', \tilde v) \text{ or, with accumulate="mean", } ((t - 1) w' + \tilde v) / t \\
    v &= \rho \tilde v + (1 - \rho) w, \quad M = m / B_1 + \beta_3 n, \quad V = v / B_2 \\
    p &= p' - \eta M / (\sqrt V + \epsilon), \qquad B_i = 1 - \beta_i^t
        \text{ (1 without bias_correction)}

Before each step the coefficients :math:`x \in \{\beta_1, \beta_2, \beta_3, \rho, c\}` descend the
loss: :math:`h_x = \sum g\, \partial p' / \partial x` over all elements of all parameters, clipped
to ``hyper_clip``; :math:`x \leftarrow \mathrm{project}(x - \mathrm{hlr}_x h_x)`. A rate of 0
freezes its coefficient; a step with ``lr = 0`` does not learn. With ``accumulate="max"``,
:math:`\tilde v \le w` everywhere, so :math:`\rho` acts as a step-size knob; "mean" is the
authors' final recommendation. At c = 1: Adam has b3 = 0, rho = 1; AMSGrad and AVGrad b3 = rho = 0;
Adan rho = 1, ``bias_correction=False``, ``first_difference="zero"``. Yogi: b3 = c = 0, rho = 1.

Ozkara et al., *MADA: Meta-Adaptive Optimizers through hyper-gradient Descent*, 2024, Algorithm 1,
https://arxiv.org/abs/2401.08893. Deviations: clipping, momentum of the hyper-gradient and closed
forms instead of automatic differentiation; a dead element (V = 0) contributes 0, not NaN.
"""

from typing import Any, Literal, NamedTuple

from .._math import clip, debias, guarded, pick, sign
from .._types import Array, Bound, Decay, Epsilon, Fraction, Namespace, Off, Rate, Scalar

DECAY = "decoupled"
# A sum over elements rounds differently in each library; its error, of a few eps, moves every
# coefficient, and so every element, and is fed back for as many steps as there were.
PARITY_EPS = 100
INTERVAL = {"b1": (0.01, 0.99), "b2": (0.501, 0.99), "b3": (0.0, 0.99)}
INTERVAL |= {"rho": (0.0, 1.0), "c": (0.0, 1.0)}


class Coefficients(NamedTuple):
    """One 0-d value for each learned coefficient."""

    b1: Scalar
    b2: Scalar
    b3: Scalar
    rho: Scalar
    c: Scalar


class Shared(NamedTuple):
    """State of the whole optimizer."""

    value: Coefficients
    velocity: Coefficients  # heavy-ball average of the hyper-gradient


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the gradient, in units of g
    n: Array  # running mean of the gradient's difference, in units of g
    v: Array  # running second moment, in units of g**2
    w: Array  # maximum or mean of every v so far
    g: Array  # the gradient of the step before
    r: Array | Off  # Yogi's reference, the mixed second moment; none with "ema", where it is v
    d_b1: Array  # derivatives of the parameter by each coefficient, in units of p
    d_b2: Array
    d_b3: Array
    d_rho: Array
    d_c: Array


def share(
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    b3: Decay = 0.0,
    rho: Fraction = 1.0,
    c: Fraction = 1.0,
) -> Shared:
    """Shared state before the first step."""
    return Shared(Coefficients(b1, b2, b3, rho, c), Coefficients(0.0, 0.0, 0.0, 0.0, 0.0))


def validate(**hyper: Any) -> None:
    """A coefficient that is learned must start where it is projected to."""
    for name, (low, high) in INTERVAL.items():
        if hyper[f"hlr_{name}"] != 0 and not low <= hyper[name] <= high:
            raise ValueError(
                f"{name} is learned in [{low}, {high}], got {name}={hyper[name]}; "
                f"hlr_{name}=0 freezes it at any value"
            )


def init(param: Array, *, yogi_reference: str, xp: Namespace) -> State:
    """State before the first step."""
    zeros = State(*(xp.zeros_like(param) for _ in State._fields))
    return zeros if yogi_reference == "mixed" else zeros._replace(r=())


def measure(
    param: Array, grad: Array, state: State, t: Scalar, *, xp: Namespace
) -> dict[str, Array]:
    """What is summed over all elements: each coefficient's hyper-gradient."""
    return {x: grad * getattr(state, f"d_{x}") for x in Coefficients._fields}


def adapt(
    shared: Shared,
    sums: dict[str, Array],
    t: Scalar,
    *,
    lr: Scalar,
    hlr_b1: Rate = 5e-4,
    hlr_b2: Rate = 5e-4,
    hlr_b3: Rate = 0.1,
    hlr_rho: Rate = 0.1,
    hlr_c: Rate = 0.1,
    hyper_momentum: Decay = 0.0,
    hyper_clip: Bound = 10.0,
    xp: Namespace,
) -> Shared:
    """The coefficients of this step. At t = 1 every sum is 0, and nothing moves."""
    value, velocity = {}, {}
    for x, hlr in zip(Coefficients._fields, (hlr_b1, hlr_b2, hlr_b3, hlr_rho, hlr_c), strict=True):
        old, old_velocity = getattr(shared.value, x), getattr(shared.velocity, x)
        h = sums[x] * xp.minimum(hyper_clip / (xp.abs(sums[x]) + 1e-6), 1.0)
        momentum = hyper_momentum * old_velocity + h
        new = clip(old - hlr * momentum, *INTERVAL[x], xp=xp)
        value[x], velocity[x] = (
            pick(lr == 0, a, pick(hlr == 0, a, b, xp=xp), xp=xp)
            for a, b in ((old, new), (old_velocity, momentum))
        )
    return Shared(Coefficients(**value), Coefficients(**velocity))


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    shared: Shared,
    lr: Rate = 1e-3,
    eps: Epsilon = 1e-8,
    bias_correction: bool = True,
    accumulate: Literal["max", "mean"] = "max",
    yogi_reference: Literal["mixed", "ema"] = "mixed",
    first_difference: Literal["gradient", "zero"] = "gradient",
    xp: Namespace,
) -> tuple[Array, State]:
    """One step with the coefficients of ``adapt``; returns the new parameter and state."""
    (b1, b2, b3, rho, c), old = shared.value, state
    r = old.r if yogi_reference == "mixed" else old.v
    d = grad - old.g
    d = pick(t == 1, xp.zeros_like(d), d, xp=xp) if first_difference == "zero" else d
    ahead = grad + b3 * d
    q = ahead * ahead
    s = sign(q - r, xp=xp)
    g2 = c * q + (1 - c) * (r + q * s)
    m = b1 * old.m + (1 - b1) * grad
    n = b3 * old.n + (1 - b3) * d
    v = b2 * old.v + (1 - b2) * g2
    if accumulate == "max":
        w, kap = xp.maximum(old.w, v), 0.5 * sign(v - old.w, xp=xp) + 0.5
    else:
        w, kap = ((t - 1) * old.w + v) / t, 1 / t
    mixed = rho * v + (1 - rho) * w

    # each coefficient's share in M = m / B1 + b3 n and in V = mixed / B2
    B1 = debias(b1, t, xp=xp) if bias_correction else 1.0
    B2 = debias(b2, t, xp=xp) if bias_correction else 1.0
    M, V = m / B1 + b3 * n, mixed / B2
    M_b1 = (old.m - grad) / B1
    M_b3 = n + b3 * (old.n - d)
    F = rho + (1 - rho) * kap
    V_b2 = F * (old.v - g2) / B2
    V_b3 = F * ((1 - b2) / B2 * (c + (1 - c) * s) * (2 * ahead * d))
    V_rho = (v - w) / B2
    V_c = F * ((1 - b2) / B2 * (q - q * s - r))
    if bias_correction:
        M_b1 = M_b1 + t * b1 ** (t - 1) / B1**2 * m
        V_b2 = V_b2 + t * b2 ** (t - 1) / B2**2 * mixed

    root = xp.sqrt(V)
    D = guarded(root, eps, xp=xp)
    P, step, slope = -lr / D, lr * M / D, 2 * xp.where(V == 0, 1.0, root)
    Q_b2, Q_b3, Q_rho, Q_c = (  # one division after the other: their product may overflow
        xp.where(V == 0, 0.0, step * (x / slope / D)) for x in (V_b2, V_b3, V_rho, V_c)
    )
    derivatives = (P * M_b1, Q_b2, P * M_b3 + Q_b3, Q_rho, Q_c)
    r = mixed if yogi_reference == "mixed" else ()
    return param - step, State(m, n, v, w, grad, r, *derivatives)
