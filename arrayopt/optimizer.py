"""A rule with its hyperparameters, as pure functions over a tree of arrays."""

import functools
import inspect
import operator
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import optree

from . import _complex, rules
from ._blocks8 import NAME, length
from ._math import widest
from ._namespace import (
    cast,
    compiling,
    compute_dtype,
    copied,
    device,
    first_step,
    known,
    namespace,
    quiet,
)
from ._options import check_options, in_dtypes, slot_dtypes
from ._plan import Plan, finite, one_namespace, plain, plan, resolve, slots_of
from ._schema import check, check_together, each_step, hyperparameters, name_of, reads, rounds
from ._step import Around, Part, evaluate, is_elementwise, is_off, keep, measure, move, slots_in
from ._tree import Tree, chosen
from ._types import Array, Namespace


class State(NamedTuple):
    """State of an optimizer: a tree that JAX, torch and optree know as it is."""

    step: Any  # number of steps taken: an int, or a 0-d integer array in JAX and torch
    shared: Any  # the rule's Shared, of 0-d arrays; () if it has none
    slots: Any  # the rule's State; each slot a tree like the parameters, or () if it is off


class Optimizer:
    r"""A rule with its hyperparameters bound: ``init`` and ``step``, both pure.

    Args:
        rule: a module such as ``arrayopt.adamax``, or its name.
        weight_decay: the factor :math:`\lambda`; 0 for none.
        decay: how it acts. ``"coupled"``: :math:`g \leftarrow g + \lambda p` (L2).
            ``"decoupled"``: :math:`p \leftarrow (1 - \eta \lambda) p` before the step.
            ``"independent"``: :math:`p \leftarrow (1 - \lambda) p`, and nothing where
            :math:`\eta = 0`. The default is that of the rule's source.
        decay_mask: which parameters decay: a tree of bools like the parameters, or a function
            that makes one from them. All do if it is None.
        maximize: turns every gradient's sign, before the decay.
        nonfinite: what to do with a NaN or an infinity in any gradient. ``"propagate"`` it,
            ``"raise"`` FloatingPointError, or ``"skip"`` the step: parameters, slots and step
            number stay. The last two read one flag back from a GPU in each step.
        state_dtype: of the slots, where it is not to be the compute dtype: ``"bfloat16"``,
            ``"float16"``, ``"float32"``, ``"float64"`` or a dict of such by slot. Each new slot is
            rounded to it; one for all leaves out the slots of one value. See docs/precision.md.
        complex: how to take complex parameters, which are refused if it is None.
            ``"two_reals"``: as real arrays with a last axis of 2, and so are their slots (torch).
            ``"modulus"``: squares are :math:`|g|^2` (optax); see docs/complex.md.
        hyper: the rule's hyperparameters; ``arrayopt show RULE`` lists them. Each is a number, a
            schedule (a function of the number of steps taken, 0 at the first), a 0-d array, or
            an array that broadcasts against every parameter. Numbers and NumPy's arrays are
            checked; what another library's array holds is not read.

    The number of steps is one for the whole tree: a parameter whose first gradients are None gets
    the bias correction of later steps (each counts its own steps in ``backends.torch``). With torch
    parameters that require gradients, a step is recorded for them: call it under
    ``torch.no_grad()``, or pass detached tensors, unless it is to be differentiated.

    float16 and bfloat16 parameters have float32 arithmetic and, unless ``state_dtype`` says
    otherwise, state; the result is rounded once.

    >>> import numpy as np
    >>> opt = Optimizer("adamax", lr=0.1)
    >>> params = {"w": np.ones(2)}
    >>> state = opt.init(params)
    >>> params, state = opt.step(params, {"w": np.array([3.0, 0.0])}, state)
    >>> params["w"].round(6).tolist()
    [0.9, 1.0]
    """

    def __init__(
        self,
        rule: Any,
        *,
        weight_decay: Any = 0.0,
        decay: Literal["coupled", "decoupled", "independent"] | None = None,
        decay_mask: Any = None,
        maximize: bool = False,
        nonfinite: Literal["propagate", "raise", "skip"] = "propagate",
        state_dtype: str | dict[str, str] | None = None,
        complex: Literal["two_reals", "modulus"] | None = None,
        **hyper: Any,
    ) -> None:
        self.rule = rules.find(rule) if isinstance(rule, str) else rule
        for part in ("State", "init", "update"):
            if not hasattr(self.rule, part):
                raise TypeError(f"{self.rule!r} is not a rule: it has no {part}")
        self.name = name_of(self.rule)
        how = getattr(self.rule, "DECAY", "decoupled") if decay is None else decay
        check_options(self.name, how, nonfinite, maximize, complex)
        self.hyper = {k: h.default for k, h in hyperparameters(self.rule).items()}
        self.hyper |= hyper | {"weight_decay": weight_decay}
        check(self.rule, self.hyper)
        self.hyper = {k: plain(v) for k, v in self.hyper.items()}
        check_together(self.rule, self.hyper)
        self.decay_mask, self.nonfinite = decay_mask, nonfinite
        self.around = Around(self.rule, reads(self.rule), how, maximize)
        blank = self.blank(1, self.hyper)
        self._off = tuple(map(is_off, blank))
        self.state_dtype, self.complex = state_dtype, complex
        self.slot_dtypes = slot_dtypes(self.name, state_dtype, blank)
        self._known: dict[tuple[int, ...], list[tuple[int, ...] | None]] = {}  # see shapes
        self.complex_slots = _complex.complex_slots(self) if complex == "modulus" else frozenset()

    def options(self) -> dict[str, Any]:
        """Every keyword that makes this optimizer again."""
        return self.hyper | {
            "decay": self.around.decay,
            "decay_mask": self.decay_mask,
            "maximize": self.around.maximize,
            "nonfinite": self.nonfinite,
            "state_dtype": self.state_dtype,
            "complex": self.complex,
        }

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v!r}" for k, v in self.options().items())
        return f"{type(self).__name__}({self.name!r}, {options})"

    def __reduce__(self) -> Any:  # a module cannot be pickled, its name can
        module = inspect.ismodule(self.rule) and self.name in rules.names()
        return _make, (type(self), self.name if module else self.rule, self.options())

    def init(self, params: Any) -> State:
        """The state before the first step; ``params`` is a tree of floating arrays."""
        if self.complex:
            return _complex.init(self, params)
        tree = Tree(params)
        xp = one_namespace(self.name, tree)
        kwargs = keep(self.around, "init", self.hyper)
        with quiet(xp):
            slots = [self.start(p, kwargs, xp) for p in tree.leaves]
            shared = self.share(tree.leaves[0], xp)
        return State(first_step(xp), shared, self.trees(tree, slots))

    def step(self, params: Any, grads: Any, state: State, **override: Any) -> tuple[Any, State]:
        """One step: the new parameters and state. Nothing that was given is modified.

        A parameter that does not move (no gradient, a skipped step) may be the given array itself.

        Args:
            params: a tree like the one that ``init`` was given.
            grads: a tree like it; None in a parameter's place leaves it and its slots alone.
            state: from ``init`` or the step before.
            override: hyperparameters for this step alone, such as ``lr=0.1``.

        Raises:
            TypeError, ValueError: wrong structure, dtype, shape, namespace, device or value.
            FloatingPointError: a gradient is not finite and ``nonfinite="raise"``.
        """
        if self.complex:
            return _complex.step(self, params, grads, state, override)
        todo = self.plan(params, grads, state, override)
        xp = todo.xp
        with quiet(xp):
            ok = finite(todo, self.name, self.nonfinite)
            if ok is False:
                return params, state
            moved, shared = self.moved(todo.parts, state.shared, xp)
            leaves, slots = list(todo.tree.leaves), list(todo.slots)
            for i, (new, after) in zip(todo.places, moved, strict=True):
                leaves[i], slots[i] = new, after
            now = State(state.step + 1, shared, self.trees(todo.tree, slots))
            if ok is True:
                return todo.tree.join(leaves), now
            return chosen(ok, (todo.tree.join(leaves), now), (params, state), xp)

    def eval_params(self, params: Any, state: State) -> Any:
        """The parameters to evaluate or deploy with, where the rule tells them from those at which
        it wants gradients (schedule-free rules, averages); ``params`` themselves for other rules.
        """
        if self.complex:
            return _complex.eval_params(self, params, state)
        tree = Tree(params)
        xp = one_namespace(self.name, tree)
        if not hasattr(self.rule, "evaluate"):
            return params
        values = resolve(self.rule, self.hyper, {}, known(state.step, xp), each=False)
        rows = zip(tree.leaves, slots_of(self.name, self.rule, tree, state.slots), strict=True)
        with quiet(xp):
            found = [evaluate(self.around, p, s, state.step, values, xp=xp) for p, s in rows]
        return tree.join(found)

    def moved(
        self, parts: list[Part], shared: Any, xp: Namespace
    ) -> tuple[list[tuple[Array, Any]], Any]:
        """Every part's new parameter and slots, and the shared state."""
        sums: list[dict[str, Array]] = [{} for _ in parts]
        for what in rounds(self.rule):
            found = [
                measure(what, self.around, part, shared, own, xp=xp)
                for part, own in zip(parts, sums, strict=True)
            ]
            shared = self.adapt(parts, shared, found, xp)
            sums = [own | more for own, more in zip(sums, found, strict=True)]
        rows = zip(parts, sums, strict=True)
        return [move(self.around, part, shared, own, xp=xp) for part, own in rows], shared

    def plan(self, params: Any, grads: Any, state: State, override: dict[str, Any]) -> Plan:
        """The step that these arguments ask for, checked; for engines that carry it out."""
        relaid = override.keys() & self.around.reads["init"]
        return plan(
            self.name,
            self.rule,
            self.hyper,
            override,
            self.decay_mask,
            params,
            grads,
            state,
            off=tuple(map(is_off, self.blank(1, self.hyper | override))) if relaid else self._off,
            together=hasattr(self.rule, "share") or self.nonfinite != "propagate",
            shapes=self.shapes,
        )

    def probe(self, params: Any, state: State) -> Plan:
        """The plan of a step with the parameters as gradients, to see what a step is made of."""
        return self.plan(params, params, state, dict.fromkeys(each_step(self.rule), 0.0))

    def blank(self, shape: Any, hyper: dict[str, Any]) -> Any:
        """The rule's State of a parameter of this shape, in NumPy, for what it tells of others."""
        param = np.zeros(shape)
        return self.rule.init(param, **keep(self.around, "init", hyper), xp=namespace(param))

    def shapes(self, shape: tuple[int, ...]) -> Sequence[tuple[int, ...] | None]:
        """Those of the slots of a parameter of this shape; None for those of its own, or 0-d."""
        if is_elementwise(self.rule):
            names = (self.slot_dtypes.get(k) for k in self.rule.State._fields)
            return [(length(shape),) if name == NAME else None for name in names]
        if shape in self._known:
            return self._known[shape]
        found = [None if is_off(x) else tuple(x.shape) for x in self.blank(shape, self.hyper)]
        if not compiling():  # which would compile again for what is remembered
            self._known[shape] = found
        return found

    def adapt(
        self, parts: list[Part], shared: Any, sums: list[dict[str, Array]], xp: Namespace
    ) -> Any:
        """The rule's shared state for this step, from the sums over each of its parts."""
        if shared == () or not sums:
            return shared
        whole = {k: functools.reduce(operator.add, (s[k] for s in sums)) for k in sums[0]}
        kwargs = keep(self.around, "adapt", parts[0].values)
        new = self.rule.adapt(shared, whole, parts[0].t, **kwargs, xp=xp)
        if any(x.shape != () for x in optree.tree_leaves(new)):
            raise ValueError(
                f"{self.name} has state of the whole optimizer: its hyperparameters "
                "must be numbers or 0-d arrays"
            )
        return optree.tree_map(lambda a, b: cast(a, b.dtype, xp), new, shared)

    def start(self, param: Array, kwargs: dict[str, Any], xp: Namespace) -> Any:
        """The rule's State of one parameter before the first step."""
        param = cast(param, compute_dtype(param.dtype, xp), xp)
        slots = self.rule.init(param, **kwargs, xp=xp)
        slots = [copied(s, xp) if s is param else s for s in slots]  # not the caller's
        slots = slots_in(param, self.rule.State(*slots), xp)
        return in_dtypes(self.name, slots, self.slot_dtypes, tuple(param.shape), xp)

    def share(self, like: Array, xp: Namespace) -> Any:
        """The rule's shared state before the first step, on the device of ``like``; or ()."""
        if not hasattr(self.rule, "share"):
            return ()
        dtype = widest(xp.float32, xp=xp)
        where = {} if (there := device(like, xp)) is None else {"device": there}
        start = self.rule.share(**keep(self.around, "share", self.hyper))
        return optree.tree_map(lambda x: xp.asarray(x, dtype=dtype, **where), start)

    def trees(self, tree: Tree, slots: list[Any]) -> Any:
        """The rule's State with each slot a tree, from one State for each parameter."""
        columns = zip(*slots, strict=True)
        return self.rule.State(*(() if is_off(c[0]) else tree.join(list(c)) for c in columns))


def _make(cls: Any, rule: Any, options: dict[str, Any]) -> Any:
    return cls(rule, **options)
