r"""Schedules: hyperparameters that depend on the number of steps taken.

A schedule is a function of that number, :math:`t = 0` at the first step, and may stand in the place
of any hyperparameter of :class:`arrayopt.Optimizer`; so may every other function of it. Those here
are dataclasses: they compare, print and pickle, and check their arguments. :math:`t` may be a
Python number (the result is a float), an array, or what ``jax.jit`` and ``torch.compile`` trace
(the result has the widest floating dtype that the library computes in).

Large schedules are made of small ones: :class:`warmup`, :class:`delay`, :class:`join`,
:class:`restart` and ``*`` take any function of :math:`t`, or a number, which is then constant.
``docs/schedules.md`` says what each schedule of torch and optax is here.

>>> import arrayopt as ao
>>> lr = ao.schedules.warmup(10, then=ao.schedules.cosine(0.1, 100))
>>> [round(lr(t), 6) for t in (0, 5, 10, 60, 110, 200)]
[0.0, 0.05, 0.1, 0.05, 0.0, 0.0]
>>> optimizer = ao.Optimizer("adam", lr=lr)
"""

from ._base import Schedule, constant, product
from ._combine import (
    ademamix_alpha,
    ademamix_beta3,
    delay,
    join,
    one_cycle,
    restart,
    warmup,
    wsd,
)
from ._plateau import reduce_on_plateau
from ._shapes import (
    cosine,
    cyclic,
    exponential,
    half_life,
    interpolate,
    inverse_sqrt,
    linear,
    polynomial,
    step,
)

__all__ = [
    "Schedule", "ademamix_alpha", "ademamix_beta3", "constant", "cosine", "cyclic", "delay",
    "exponential", "half_life", "interpolate", "inverse_sqrt", "join", "linear", "one_cycle",
    "polynomial", "product", "reduce_on_plateau", "restart", "step", "warmup", "wsd",
]  # fmt: skip
