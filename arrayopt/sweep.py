"""Many runs in one, each with hyperparameters of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import to_device

from ._namespace import (
    cast,
    compute_dtype,
    device,
    first_step,
    is_array,
    is_traced,
    namespace,
    quiet,
)
from ._plan import one_namespace
from ._runs import Batched, NotElementwiseError, counts, plain, together
from ._schema import check, name_of
from ._step import is_elementwise, is_off
from ._tree import Tree, chosen
from ._types import Array, Namespace
from .optimizer import Optimizer, State


class Sweep:
    """Runs of one rule with different hyperparameters, all of them in one step.

    Every parameter and every gradient has a leading axis, one entry per run; so have slots and
    shared state. Entry ``i`` is what ``Optimizer(rule, lr=lr[i], ...)`` makes of the entries ``i``:
    to the bit on NumPy and in eager torch, but for sums over elements, whose order differs, and
    powers whose exponents are swept. Under ``jax.jit`` up to rounding.

    Args:
        rule, options: as for :class:`arrayopt.Optimizer`. A hyperparameter that is an array of one
            axis has a value for each run; so has what a schedule returns as such. What
            ``nonfinite`` says is done in each run for itself: with ``"skip"`` each counts its own
            steps, and ``state.step`` is an array.

    All runs are one computation, unless the rule needs whole arrays (Muon, Shampoo, ...): then they
    are taken one after the other, which takes as long as that many optimizers.

    >>> import numpy as np
    >>> opt = Sweep("sgd", lr=np.array([0.1, 0.5]))
    >>> params = opt.tile({"w": np.ones(2)})
    >>> params, state = opt.step(params, params, opt.init(params))
    >>> params["w"].tolist()
    [[0.9, 0.9], [0.5, 0.5]]
    """

    def __init__(self, rule: Any, **options: Any) -> None:
        self.options = options
        who = rule if isinstance(rule, str) else name_of(rule)
        now = {k: v(0) if is_schedule(k, v) else v for k, v in options.items()}
        lengths = lengths_of(who, now)
        if not lengths:
            raise ValueError(f"{who}: no hyperparameter is an array, so there is nothing to sweep")
        if len(set(lengths.values())) > 1 or 0 in lengths.values():
            found = ", ".join(f"{n} of {k}" for k, n in lengths.items())
            raise ValueError(f"{who}: arrays must have one value for each run, got {found}")
        self.n = next(iter(lengths.values()))
        self.runs = [Optimizer(rule, **entries(options, i)) for i in range(self.n)]
        self.rule, self.name = self.runs[0].rule, self.runs[0].name
        self.nonfinite = self.runs[0].nonfinite
        self.alone = not is_elementwise(self.rule)  # whether runs are taken one after the other
        self._batched: dict[Namespace, Batched] = {}

    def __repr__(self) -> str:
        options = "".join(f", {k}={v!r}" for k, v in self.options.items())
        return f"{type(self).__name__}({self.name!r}{options})"

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"rule": None, "_batched": {}}  # a module cannot be pickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, rule=state["runs"][0].rule)

    def tile(self, params: Any) -> Any:
        """The parameters of one run for each of them: copies along a new leading axis."""
        tree = Tree(params)
        xp = one_namespace(self.name, tree)
        return tree.join([xp.stack([x] * self.n) for x in tree.leaves])

    def init(self, params: Any) -> State:
        """The state before the first step, of parameters as :meth:`tile` makes them."""
        xp = one_namespace(self.name, Tree(params))
        return self._either(xp, self._init_all, self._init_each, params)

    def step(self, params: Any, grads: Any, state: State, **override: Any) -> tuple[Any, State]:
        """One step of every run; see :meth:`arrayopt.Optimizer.step`.

        Args:
            params, grads, state: of all runs; a gradient of None is so for all of them.
            override: hyperparameters for this step alone, for all or, as an array, for each run;
                so the losses of all runs, for rules that read the loss.

        Raises:
            TypeError, ValueError: as there, or where the leading axis is not that of the runs.
            FloatingPointError: a gradient is not finite and ``nonfinite="raise"``.
        """
        if getattr(state, "_fields", None) != State._fields:
            got = type(state).__name__
            raise TypeError(f"{self.name}: state must be what init or step gave, got {got}")
        for name, n in lengths_of(self.name, override).items():
            if n != self.n:
                raise ValueError(f"{self.name}: {name} must have {self.n} values, got {n}")
        xp = one_namespace(self.name, Tree(params))
        return self._either(xp, self._step_all, self._step_each, params, grads, state, override)

    def eval_params(self, params: Any, state: State) -> Any:
        """As of :class:`arrayopt.Optimizer`, for every run."""
        if not hasattr(self.rule, "evaluate"):
            return params
        xp = one_namespace(self.name, Tree(params))
        found = []
        for i, run in enumerate(self.runs):
            found.append(run.eval_params(self._row("params", params, i), self._state(state, i)))
        return stacked(found, xp)

    def _either(self, xp: Namespace, all_: Any, each: Any, *args: Any) -> Any:
        if not self.alone:
            try:
                with quiet(xp):
                    return all_(xp, *args)
            except NotElementwiseError:
                self.alone = True
        return each(xp, *args)

    # all runs at once

    def _optimizer(self, xp: Namespace) -> Batched:
        if xp not in self._batched:
            space = together(xp, self.n)
            now = {k: v(0) if is_schedule(k, v) else v for k, v in self.options.items()}
            now = {k: space.given(v) for k, v in now.items()} | {"nonfinite": "propagate"}
            self._batched[xp] = Batched(space, self.rule, now)
        return self._batched[xp]

    def _init_all(self, xp: Namespace, params: Any) -> State:
        opt = self._optimizer(xp)
        _, shared, slots = opt.init(self._wrapped("params", params))
        step = self._steps([first_step(xp)] * self.n, xp)
        return State(step, plain(shared), plain(slots))

    def _step_all(
        self, xp: Namespace, params: Any, grads: Any, state: State, override: dict[str, Any]
    ) -> tuple[Any, State]:
        opt, count = self._optimizer(xp), counts(state.step, xp)
        schedules = {k: v for k, v in self.options.items() if is_schedule(k, v)}
        values = {
            k: self._scheduled(v, count, xp) if callable(v) else v
            for k, v in (schedules | override).items()
        }
        check(self.rule, values, step=True)
        values = {k: opt.xp.given(v) for k, v in values.items()}
        old = self._wrapped("params", params)
        shared, slots = (self._wrapped(k, getattr(state, k)) for k in ("shared", "slots"))
        gs = self._wrapped("gradients", grads)
        new, after = opt.step(old, gs, State(state.step, shared, slots), **values)
        flags = self._finite(opt, old, gs)
        if self.nonfinite == "raise" and flags:
            finite = xp.all(xp.stack(flags))
            if is_traced(finite, xp, outside=False) or not bool(finite):
                self._step_each(xp, params, grads, state, override)  # it says which run
        if self.nonfinite == "skip" and flags:
            finite = xp.all(xp.stack(flags), axis=0)
            pairs = (new, old), (after.shared, shared), (after.slots, slots)
            new, *rest = (chosen(opt.xp.Runs(finite), a, b, opt.xp) for a, b in pairs)
            after = State(state.step + like(state.step, finite, xp), *rest)
        return plain(new), State(after.step, plain(after.shared), plain(after.slots))

    def _scheduled(self, schedule: Any, count: Any, xp: Namespace) -> Any:
        """What a schedule gives, where each run may have a count of its own."""
        if isinstance(count, list):
            known = {c: schedule(c) for c in set(count)}
            return np.asarray([float(entry(known[c], i)) for i, c in enumerate(count)])
        if getattr(count, "shape", ()):
            return xp.stack([xp.asarray(entry(schedule(count[i]), i)) for i in range(self.n)])
        return schedule(count)

    def _finite(self, opt: Batched, params: Any, grads: Any) -> list[Array]:
        """For each gradient, which runs' entries are finite, if that is of importance."""
        if self.nonfinite == "propagate":
            return []
        xp, tree = opt.xp, Tree(params)
        pairs = zip(tree.leaves, tree.split(grads), strict=True)
        wide = ((compute_dtype(p.dtype, xp.base), g) for p, g in pairs if g is not None)
        return [xp.all(xp.isfinite(cast(g, dtype, xp))).data for dtype, g in wide]

    def _wrapped(self, what: str, tree: Any) -> Any:
        found = self._entries(what, tree)
        return found.join(
            [together(namespace(x), self.n).Runs(x) if is_array(x) else x for x in found.leaves]
        )

    # one run after the other

    def _init_each(self, xp: Namespace, params: Any) -> State:
        rows = [run.init(self._row("params", params, i)) for i, run in enumerate(self.runs)]
        return self._joined(rows, xp)

    def _step_each(
        self, xp: Namespace, params: Any, grads: Any, state: State, override: dict[str, Any]
    ) -> tuple[Any, State]:
        found = []
        for i, run in enumerate(self.runs):
            trees = self._row("params", params, i), self._row("gradients", grads, i)
            try:
                found.append(run.step(*trees, self._state(state, i), **entries(override, i)))
            except FloatingPointError as error:
                raise FloatingPointError(f"run {i}: {error}") from None
        new, states = zip(*found, strict=True)
        return stacked(new, xp), self._joined(states, xp)

    def _state(self, state: State, i: int) -> State:
        step = state.step[i] if getattr(state.step, "shape", ()) else state.step
        return State(step, *(self._row(k, getattr(state, k), i) for k in ("shared", "slots")))

    def _joined(self, states: Sequence[State], xp: Namespace) -> State:
        """The state of all runs from that of each."""
        steps, shared, slots = zip(*states, strict=True)
        for row in slots:
            for name, a, b in zip(row._fields, slots[0], row, strict=True):
                if is_off(a) != is_off(b):
                    raise ValueError(
                        f"{self.name}: slot {name!r} is off in some runs and not in others; "
                        "a sweep of this rule needs the same slots in all"
                    )
        return State(self._steps(steps, xp), stacked(shared, xp), stacked(slots, xp))

    def _steps(self, steps: Sequence[Any], xp: Namespace) -> Any:
        """The numbers of steps taken: one for all, unless each run may skip."""
        return xp.stack([xp.asarray(s) for s in steps]) if self.nonfinite == "skip" else steps[0]

    def _row(self, what: str, tree: Any, i: int) -> Any:
        found = self._entries(what, tree)
        return found.join([x[i, ...] if is_array(x) else x for x in found.leaves])

    def _entries(self, what: str, tree: Any) -> Tree:
        """The tree, every array of which has an entry for each run."""
        found = Tree(tree)
        for path, x in zip(found.paths, found.leaves, strict=True):
            if is_array(x) and tuple(x.shape[:1]) != (self.n,):
                raise ValueError(
                    f"{self.name}: {what}: {path} must have a leading axis of {self.n}, an entry "
                    f"for each run, got shape {tuple(x.shape)}"
                )
        return found


@dataclass(frozen=True)
class Entry:
    """A schedule of one run, from one that gives what all of them have."""

    schedule: Any
    i: int

    def __call__(self, count: Any) -> Any:
        return entry(self.schedule(count), self.i)


def entry(value: Any, i: int) -> Any:
    """What run ``i`` has of a hyperparameter's value."""
    return value[i] if getattr(value, "shape", ()) else value


def entries(options: dict[str, Any], i: int) -> dict[str, Any]:
    """The options of run ``i``."""
    return {k: Entry(v, i) if is_schedule(k, v) else entry(v, i) for k, v in options.items()}


def is_schedule(name: str, value: Any) -> bool:
    return callable(value) and name != "decay_mask"


def lengths_of(who: str, options: dict[str, Any]) -> dict[str, int]:
    """How many values there are, of each hyperparameter that is an array."""
    shapes = {k: tuple(v.shape) for k, v in options.items() if getattr(v, "shape", ())}
    for name, shape in shapes.items():
        if len(shape) > 1:
            raise ValueError(
                f"{who}: {name} must be a number, or an array of one axis with a value for each "
                f"run, got shape {shape}"
            )
    return {k: shape[0] for k, shape in shapes.items()}


def like(step: Array, x: Array, xp: Namespace) -> Array:
    """An array in the dtype of the number of steps, and where that is."""
    x, there = xp.astype(x, step.dtype), device(step, xp)
    return x if there is None or device(x, xp) == there else to_device(x, there)


def stacked(trees: Sequence[Any], xp: Namespace) -> Any:
    """One tree of arrays with a leading axis, from one tree for each run."""
    columns = zip(*(Tree(t).leaves for t in trees), strict=True)
    return Tree(trees[0]).join([xp.stack(list(c)) for c in columns])
