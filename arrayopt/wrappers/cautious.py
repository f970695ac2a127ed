r"""Cautious: no element moves against its gradient.

With :math:`u` what the rule adds to :math:`p` and :math:`n` the number of elements,

.. math::

    \phi = [u g < 0], \qquad
    p \leftarrow p + \frac{\phi\, u}{\max(\bar\phi, \phi_{\min})}

where :math:`\bar\phi` is the mean over the parameter, so that the step stays as long, and
``cautious_floor`` is :math:`\phi_{\min}`. A decay is a part of :math:`u`.

Liang et al., *Cautious Optimizers: Improving Training with One Line of Code*, 2024,
Algorithm 1, https://arxiv.org/abs/2411.16085; the mean and its floor of 1e-3 are those of the
authors' ``C-AdamW``, where the paper has :math:`(\sum\phi + 1) / n`.
"""

from .._math import larger
from .._types import Array, Namespace, Portion, Scalar


def measure(
    param: Array, grad: Array, state: tuple[()], t: Scalar, *, new: Array, xp: Namespace
) -> dict[str, Array]:
    """What is summed over the parameter: elements, and those that may move."""
    one = xp.ones_like(param)
    return {"kept": xp.where((new - param) * grad >= 0, 0.0 * one, one), "all": one}


def update(
    param: Array,
    grad: Array,
    state: tuple[()],
    t: Scalar,
    *,
    new: Array,
    sums: dict[str, Array],
    cautious_floor: Portion = 1e-3,
    xp: Namespace,
) -> tuple[Array, tuple[()]]:
    """The parameter, moved where the rule goes down."""
    u = new - param
    mean = larger(sums["kept"] / sums["all"], cautious_floor, xp=xp)
    return xp.where(u * grad >= 0, param, param + u / mean), ()  # so that NaN goes on
