r"""Stochastic rounding: half parameters are rounded up or down at random, right on average.

.. math::

    p \leftarrow \lceil q \rceil \text{ with probability }
    \frac{q - \lfloor q \rfloor}{\lceil q \rceil - \lfloor q \rfloor}, \text{ else }
    \lfloor q \rfloor

where the rule moves :math:`p` to :math:`q`, in float32, and :math:`\lfloor q \rfloor` and
:math:`\lceil q \rceil` are its neighbours in the parameter's dtype, float16 or bfloat16. Steps too
small for that dtype then add up in the mean, without any memory. Wider parameters are left alone.

Zamirai et al., *Revisiting BFloat16 Training*, 2020, Algorithm 2, https://arxiv.org/abs/2010.06192.
The random bits are those of Threefry-2x32, as in :mod:`~arrayopt.wrappers.gradient_noise`, with
``rounding_seed``: the same in every array library.
"""

from .._namespace import dtype_name
from .._random import Key, bits
from .._rounding import FORMATS, stochastically_rounded
from .._types import Array, Namespace, Scalar, Seed

ELEMENTWISE = False  # it depends on where an element is


def update(
    param: Array,
    grad: Array,
    state: tuple[()],
    t: Scalar,
    *,
    new: Array,
    dtype: object,
    place: Scalar,
    rounding_seed: Seed = 0,
    xp: Namespace,
) -> tuple[Array, tuple[()]]:
    """The parameter, rounded."""
    if dtype_name(dtype) not in FORMATS:
        return new, ()
    random, _ = bits(Key(rounding_seed, -1 - place, t), new, xp=xp)  # no noise has this stream
    return stochastically_rounded(new, dtype, random, xp=xp), ()
