"""One rule applied to one parameter, with what surrounds it: sign, decay, precision.

Everything here is elementwise, so it may be called on a whole parameter or on blocks of it, if the
rule is elementwise too.
"""

from typing import Any, NamedTuple

import optree

from ._blocks8 import are_blocks, decoded, encoded
from ._math import pick, total
from ._namespace import cast, compute_dtype, copied, is_traced
from ._random import Key, bits
from ._types import Array, Namespace, Scalar

SLOTS = 2**31  # seeds from here on are of the rounding of slots


class Around(NamedTuple):
    """A rule and what an optimizer does around it."""

    rule: Any
    reads: dict[str, frozenset[str]]  # the hyperparameters that each of its functions takes
    decay: str  # "coupled", "decoupled" or "independent"
    maximize: bool


class Part(NamedTuple):
    """One parameter in one step, or one block of it."""

    path: str
    param: Array
    grad: Array
    slots: Any  # the rule's State
    values: dict[str, Any]  # hyperparameters; arrays in the compute dtype
    t: Scalar
    decays: bool
    place: int = 0  # the parameter's number in the tree


class Decay(NamedTuple):
    """The weight decay of one parameter in one step.

    A rule that has the keyword ``decay`` is given it, and has to see to it: a rule around a rule,
    inside which the decay belongs. For any other rule it is done before the rule is called.
    """

    how: str  # as in Around
    rate: Any
    lr: Any

    def gradient(self, param: Array, grad: Array) -> Array:
        """The gradient that the rule is to be given."""
        return grad + self.rate * param if self.how == "coupled" and self else grad

    def param(self, param: Array, *, xp: Namespace) -> Array:
        """The parameter that the rule is to move."""
        if self.how == "coupled" or not self:
            return param
        # not times lr: still none where lr is 0, so that such a step leaves everything in place
        independent = self.how == "independent"
        rate = pick(self.lr == 0, 0.0, self.rate, xp=xp) if independent else self.lr * self.rate
        return param - rate * param  # 1 - rate would round away what small rates say

    def __bool__(self) -> bool:
        return not is_zero(self.rate)


def measure(
    what: str, around: Around, part: Part, shared: Any, sums: dict[str, Array], *, xp: Namespace
) -> dict[str, Array]:
    """The sums over this part that the rule asks for: 0-d, in the widest dtype.

    Args:
        what: which of the rule's functions that measure, see :func:`arrayopt._schema.rounds`.
        sums: those that the functions before it gave, over the whole parameter.
    """
    param, grad, slots, decay, given = _prepared(around, part, shared, sums, xp)
    kwargs = keep(around, what, given)
    grad = grad if "decay" in kwargs else decay.gradient(param, grad)
    terms = getattr(around.rule, what)(param, grad, slots, part.t, **kwargs, xp=xp)
    return {name: total(x, xp=xp) for name, x in terms.items()}


def move(
    around: Around, part: Part, shared: Any, sums: dict[str, Array], *, xp: Namespace
) -> tuple[Array, Any]:
    """The new parameter and slots, each in the dtype that the old one had.

    Args:
        sums: those of :func:`measure`, over the whole parameter.
    """
    param, grad, slots, decay, given = _prepared(around, part, shared, sums, xp)
    kwargs = keep(around, "update", given)
    if "decay" not in kwargs:
        param, grad = decay.param(param, xp=xp), decay.gradient(param, grad)
    new, found = around.rule.update(param, grad, slots, part.t, **kwargs, xp=xp)
    old = part.slots
    own = (part.param, part.grad)  # the caller's, who may change them
    after = [copied(a, xp) if any(a is x for x in own) else a for a in found]
    pairs = enumerate(zip(after, old, strict=True))
    after = [a if is_off(b) else _held(a, b, part, i, xp) for i, (a, b) in pairs]
    return cast(new, part.param.dtype, xp), type(old)(*after)


def evaluate(
    around: Around, param: Array, slots: Any, t: Scalar, values: dict[str, Any], *, xp: Namespace
) -> Array:
    """The parameter to evaluate with, by the rule's ``evaluate``."""
    dtype = compute_dtype(param.dtype, xp)
    kwargs = keep(around, "evaluate", values)
    wide = cast(param, dtype, xp)
    args = wide, slots_in(wide, slots, xp), t
    return cast(around.rule.evaluate(*args, **kwargs, xp=xp), param.dtype, xp)


def slots_in(like: Array, slots: Any, xp: Namespace) -> Any:
    """The rule's State with every slot in the dtype of a parameter."""

    def wide(slot: Array) -> Array:
        if are_blocks(slot):
            return decoded(slot, tuple(like.shape), like.dtype, xp=xp)
        return cast(slot, like.dtype, xp)

    return type(slots)(*[s if is_off(s) else wide(s) for s in slots])


def _held(new: Array, old: Array, part: Part, number: int, xp: Namespace) -> Array:
    """A new slot as the old one is held: ``number`` is its own among the rule's."""
    if not are_blocks(old):
        return cast(new, old.dtype, xp)
    random, _ = bits(Key(SLOTS + number, part.place, part.t), new, xp=xp)
    return encoded(new, random, xp=xp)


def _narrow(tree: Any, dtype: Any, xp: Namespace) -> Any:
    """Sums and shared state as the arithmetic takes them, which they are not to widen."""
    return optree.tree_map(lambda x: cast(x, dtype, xp), tree)


def keep(around: Around, function: str, values: dict[str, Any]) -> dict[str, Any]:
    """Those of ``values`` that one of the rule's functions takes."""
    return {k: v for k, v in values.items() if k in around.reads[function]}


def is_elementwise(rule: Any) -> bool:
    """Whether the rule may be applied to pieces of a parameter: see ``ELEMENTWISE`` of muon."""
    return bool(getattr(rule, "ELEMENTWISE", True))


def is_off(slot: Any) -> bool:
    """Whether a slot is one that the options at hand do not need."""
    return isinstance(slot, tuple) and not slot  # a tree of slots may be a tuple too


def is_zero(x: Any) -> bool:
    """Whether ``x`` is a Python number equal to 0; never for an array."""
    return isinstance(x, int | float) and x == 0


def arriving(part: Part, xp: Namespace) -> Array:
    """The gradient in the compute dtype, where a float64 one may have become infinite."""
    return cast(part.grad, compute_dtype(part.param.dtype, xp), xp)


def raise_nonfinite(who: str, parts: list[Part], flags: list[Any], xp: Namespace) -> None:
    """FloatingPointError that names the first gradient whose flag is not set."""
    for part, flag in zip(parts, flags, strict=True):
        if is_traced(flag, xp, outside=False):
            raise TypeError(
                f'{who}: nonfinite="raise" cannot work under a trace; use "skip" or "propagate"'
            )
        if not bool(flag):
            raise FloatingPointError(f"{who}: the gradient of {part.path} is not finite")


def _prepared(
    around: Around, part: Part, shared: Any, sums: Any, xp: Namespace
) -> tuple[Array, Array, Any, Decay, dict[str, Any]]:
    """Parameter, gradient, turned, and slots in the compute dtype; the decay; every keyword."""
    dtype = compute_dtype(part.param.dtype, xp)
    param, grad = cast(part.param, dtype, xp), arriving(part, xp)
    slots = slots_in(param, part.slots, xp)
    if around.maximize:
        grad = -grad
    rate = part.values["weight_decay"] if part.decays else 0.0
    decay = Decay(around.decay, rate, part.values.get("lr", 1.0))
    given = {"shared": _narrow(shared, dtype, xp), "sums": _narrow(sums, dtype, xp)}
    given |= {"decay": decay, "dtype": part.param.dtype, "place": part.place}
    return param, grad, slots, decay, part.values | given
