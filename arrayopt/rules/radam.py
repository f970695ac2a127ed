r"""RAdam: Adam, rectified for the variance that its second moment has in the first steps.

With :math:`g` the gradient at step :math:`t = 1, 2, \dots` and :math:`m_0 = v_0 = 0`, per
element:

.. math::

    m &\leftarrow \beta_1 m + (1 - \beta_1)\, g, \qquad \hat m = m / (1 - \beta_1^t) \\
    v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2, \qquad
        \hat v = v / (1 - \beta_2^t) \\
    \rho_\infty &= \frac{2}{1 - \beta_2} - 1, \qquad
        \rho = \rho_\infty - \frac{2 t \beta_2^t}{1 - \beta_2^t}, \qquad
        r^2 = \frac{(\rho - 4)(\rho - 2)\, \rho_\infty}{(\rho_\infty - 4)(\rho_\infty - 2)\,\rho} \\
    p &\leftarrow p - \eta\, r\, \frac{\hat m}
        {\sqrt{\hat v + \epsilon_\mathrm{root}} + \epsilon}
        \text{ if } \rho > \mathrm{threshold}, \text{ else } p - \eta\, \hat m

Liu et al., *On the Variance of the Adaptive Learning Rate and Beyond*, ICLR 2020, Algorithm 2,
https://arxiv.org/abs/1908.03265.

Deviations from the paper: :math:`\epsilon`, and the threshold is 5 where the paper has 4 (below
which there is no :math:`r`, whatever is asked for). With ``eps_hat`` it is ``torch.optim.RAdam``,
where :math:`\epsilon` is added before the correction:
:math:`r \sqrt{1 - \beta_2^t}\, \hat m / (\sqrt{v + \epsilon_\mathrm{root}} + \epsilon)`.
Without, it is ``optax.radam``, which has ``nesterov`` too:
:math:`\hat m = \beta_1 m / (1 - \beta_1^{t+1}) + (1 - \beta_1)\, g / (1 - \beta_1^t)`.
With ``degenerate=False`` the steps below the threshold move nothing, which is the default of
pytorch_optimizer (weight decay goes on here, and there it does not). ``weight_decay`` is coupled
(L2) as in torch.
"""

from typing import NamedTuple

from .._math import ahead, debias, guarded, pick
from .._types import Array, Decay, Epsilon, Namespace, Rate, Scalar, Weight

DECAY = "coupled"  # torch.optim.RAdam


class State(NamedTuple):
    """Slots of the parameter's shape and device."""

    m: Array  # running mean of the gradient, in units of g
    v: Array  # running mean of the squared gradient, in units of g**2


def init(param: Array, *, xp: Namespace) -> State:
    """State before the first step."""
    return State(m=xp.zeros_like(param), v=xp.zeros_like(param))


def update(
    param: Array,
    grad: Array,
    state: State,
    t: Scalar,
    *,
    lr: Rate = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0,
    threshold: Weight = 5.0,
    eps_hat: bool = False,
    nesterov: bool = False,
    degenerate: bool = True,
    xp: Namespace,
) -> tuple[Array, State]:
    """One step; returns the new parameter and state and modifies nothing. ``t`` counts from 1."""
    m = b1 * state.m + (1 - b1) * grad
    v = b2 * state.v + (1 - b2) * (grad * grad)
    mean = ahead(m, grad, b1, t, xp=xp) if nesterov else m / debias(b1, t, xp=xp)
    c2 = debias(b2, t, xp=xp)
    rho_max = 2 / (1 - b2) - 1
    rho = rho_max - 2 * t * (1 - c2) / c2
    known = (rho > threshold) & (rho > 4)  # 5 in the place of both where r is not asked for: 1
    a, b = (pick(known, x, 5.0, xp=xp) for x in (rho, rho_max))
    r = ((a - 4) * (a - 2) * b / ((b - 4) * (b - 2) * a)) ** 0.5
    r, c2 = (r * c2**0.5, 1.0) if eps_hat else (r, c2)
    root = xp.sqrt(v / c2 + eps_root)
    early = mean if degenerate else xp.zeros_like(mean)
    step = pick(known, r * mean / guarded(root, eps, xp=xp), early, xp=xp)
    return param - lr * step, State(m, v)
