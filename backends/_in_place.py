"""What the adapters that update arrays in place have in common."""

import abc
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.array_utils import byte_bounds

import arrayopt as ao
from arrayopt._complex import reals, seen
from arrayopt._namespace import quiet
from arrayopt._plan import Plan, masked, resolve
from arrayopt._schema import rounds
from arrayopt._step import Part, is_off, raise_nonfinite
from arrayopt._tree import Tree
from arrayopt._types import Array, Namespace
from arrayopt.fuse.program import Untraceable
from arrayopt.fuse.trace import divide


class Library(NamedTuple):
    """How an adapter's arrays answer."""

    name: str  # as in errors: "NumPy"
    xp: Namespace
    kind: type  # of an array
    address: Callable[[Array], int]  # of an array's first element
    device: Callable[[Array], Any]  # what tells devices apart
    writeable: Callable[[Array], bool]
    mirror: Callable[[Array], np.ndarray]  # NumPy's array at the same address; it is not read


class InPlace(abc.ABC):
    """Updates the caller's arrays in place; an adapter says by which engines.

    ``_engine`` is the one that was asked for, or None.
    """

    LIBRARY: Library
    ENGINES: tuple[str, ...]

    def __init__(self, params: Any, rule: Any, *, engine: str | None, **hyper: Any) -> None:
        self.optimizer = ao.Optimizer(rule, **hyper)
        who, library = self.optimizer.name, self.LIBRARY
        if engine not in (None, *self.ENGINES):
            raise ValueError(f"{who}: engine must be one of {self.ENGINES} or None, got {engine!r}")
        self.params, self._engine = params, engine
        how = self.optimizer.complex
        if how:
            if (how, library.name) != ("two_reals", "NumPy"):
                raise TypeError(f"{who}: complex={how!r} cannot be done in place on {library.name}")
            mask, params = self.optimizer.decay_mask, seen(how, params)
            self.optimizer.decay_mask = mask(self.params) if callable(mask) else mask
        tree = Tree(params)
        named = list(zip(tree.paths, tree.leaves, strict=True))
        for path, x in named:
            if not isinstance(x, library.kind):
                raise TypeError(f"{who}: {path} must be a {library.name} array, got {x!r:.80}")
            if not library.writeable(x):
                raise ValueError(f"{who}: {path} is read-only")
        self._check_overlap(named, written=len(named))
        self.state = self.optimizer.init(params)
        self._memory: Memory | None = None
        if engine == "fused":  # told now if it cannot be
            self._fused(self.optimizer.probe(params, self.state))

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_memory": None}  # which holds addresses

    def step(self, grads: Any, **override: Any) -> None:
        """One step, in place; ``override`` gives hyperparameters for this step alone."""
        optimizer, state, xp = self.optimizer, self.state, self.LIBRARY.xp
        params = self.params
        if optimizer.complex:  # views, as their memory is written to
            params, grads = reals(optimizer, params, grads, state, override)
        step: Any = None
        if self._memory:
            step = self._memory.again(optimizer, params, grads, state, override)
        if not step:
            self._memory = None
            todo = self._checked(params, grads, override)
            step = None if self._engine == "eager" else self._fused(todo) or self._other(todo)
            if not step:
                self._whole(params, grads, override)
                return
            if step.direct and not optimizer.complex:  # views are new ones each time
                self._memory = Memory(self.LIBRARY, optimizer, todo, step, params)
        if optimizer.nonfinite != "propagate":
            flags = step.finite()
            if optimizer.nonfinite == "raise":
                raise_nonfinite(optimizer.name, step.parts, flags, xp)
            if not all(flags):
                return
        with quiet(xp):
            shared = state.shared
            for what in rounds(optimizer.rule):
                sums = step.measure(what, shared)
                shared = optimizer.adapt(step.parts, shared, sums, xp)
        step.move(shared)
        self.state = state._replace(step=state.step + 1, shared=shared)

    @abc.abstractmethod
    def _compiled(self, todo: Plan) -> Any:
        """The step by the compiled rule; raises Untraceable."""

    def _other(self, todo: Plan) -> Any:
        """The step by what comes next; None for the rule as it is written."""
        return None

    def _fused(self, todo: Plan) -> Any:
        """The step by the compiled rule; None if that cannot be and is not asked for by name."""
        if self._engine not in (None, "fused"):
            return None
        try:
            return self._compiled(todo)
        except Untraceable as error:
            if self._engine == "fused":
                raise TypeError(f"{self.optimizer.name}: no engine 'fused': {error}") from None
            return None

    def _whole(self, params: Any, grads: Any, override: dict[str, Any]) -> None:
        """The pure step, written into the arrays."""
        new, self.state = self.optimizer.step(params, grads, self.state, **override)
        for old, x in zip(Tree(params).leaves, Tree(new).leaves, strict=True):
            if x is not old:
                old[...] = x

    def _checked(self, params: Any, grads: Any, override: dict[str, Any]) -> Plan:
        """The step's plan, if it can be carried out in place."""
        todo = self.optimizer.plan(params, grads, self.state, override)
        named = [(part.path, part.param) for part in todo.parts]
        named += [(f"the gradient of {part.path}", part.grad) for part in todo.parts]
        for part in todo.parts:
            arrays = [part.param, *(x for x in part.slots if not is_off(x))]
            if not all(map(self.LIBRARY.writeable, arrays)):
                raise ValueError(f"{self.optimizer.name}: {part.path} or a slot of it is read-only")
        self._check_overlap(named, written=len(todo.parts))
        return todo

    def _check_overlap(self, named: list[tuple[str, Array]], written: int) -> None:
        """Raise if one of the first ``written`` arrays shares memory with another one."""
        mirrors = [(path, self.LIBRARY.mirror(x)) for path, x in named]
        check_overlap(self.optimizer.name, mirrors, written)


class Memory:
    """What a step was made of, so that the next one need not look at everything again.

    It can be taken as it is if the same arrays are to be moved, by the same program, with gradients
    that look the same. No library moves the memory of an array that is referred to elsewhere.

    Args:
        step: the adapter's, which has ``parts``, ``batches`` and ``again(values)``.
    """

    def __init__(
        self, library: Library, optimizer: ao.Optimizer, todo: Plan, step: Any, params: Any
    ) -> None:
        grads = [part.grad for part in todo.parts]
        moved = [part.param for part in todo.parts]
        self._library, self._step, self._tree = library, step, todo.tree
        self._held = self._arrays(params, optimizer.trees(todo.tree, todo.slots))
        step.parts = [part._replace(grad=None) for part in todo.parts]  # those are the caller's
        self._dtypes, self._shapes = [*map(_DTYPE, grads)], [*map(_SHAPE, grads)]
        there = {*todo.places}
        self._there = [i in there for i in range(len(todo.tree.leaves))]
        self._decays = masked("", optimizer.decay_mask, params, todo.tree)
        self._chosen = divide(todo.parts[0].values)
        self._devices = [*map(library.device, grads)]
        self._addresses = [*map(library.address, grads)]
        self._sizes = np.array([x.nbytes for x in grads])
        begin = np.array([*map(library.address, moved)])
        order = np.argsort(begin)
        self._begin = begin[order]
        self._end = self._begin + np.array([x.nbytes for x in moved])[order]

    def again(
        self,
        optimizer: ao.Optimizer,
        params: Any,
        grads: Any,
        state: ao.State,
        override: dict[str, Any],
    ) -> Any:
        """The next step, or None where something is not as it was."""
        try:
            held = self._arrays(params, state.slots)
            found = self._tree.split(grads)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None  # told in full when all is looked at
        if len(held) != len(self._held) or not all(map(operator.is_, held, self._held)):
            return None
        relaid = override.keys() & optimizer.around.reads["init"]
        if relaid or not all(map(self._library.writeable, held)):
            return None
        decay = optimizer.decay_mask
        if decay is not None and masked("", decay, params, self._tree) != self._decays:
            return None
        values = resolve(optimizer.rule, optimizer.hyper, override, state.step)
        try:
            if divide(values) != self._chosen:
                return None
        except Untraceable:  # an array, for once
            return None
        if [x is not None for x in found] != self._there or not self._take(found):
            return None
        part: Part = self._step.parts[0]
        self._step.parts[0] = part._replace(values=values, t=state.step + 1)
        self._step.again(values | {"t": state.step + 1})
        return self._step

    def _arrays(self, params: Any, slots: Any) -> list[Array]:
        """Every parameter and slot."""
        trees = [params, *(x for x in slots if not is_off(x))]
        return [x for tree in trees for x in self._tree.split(tree)]

    def _take(self, grads: list[Any]) -> bool:
        """Put the gradients' addresses into the tables, if they look like the last ones."""
        if not all(self._there):
            grads = [x for x in grads if x is not None]
        if (
            {*map(type, grads)} != {self._library.kind}
            or [*map(_DTYPE, grads)] != self._dtypes
            or [*map(_SHAPE, grads)] != self._shapes
            or [*map(self._library.device, grads)] != self._devices
            or not all(map(_CONTIGUOUS, grads))
        ):
            return False
        addresses = [*map(self._library.address, grads)]
        if addresses == self._addresses:
            return True
        where = np.array(addresses)
        before = np.searchsorted(self._begin, where + self._sizes) - 1  # the last to begin there
        if np.any((before >= 0) & (self._end[before] > where)):
            return False  # a gradient may share memory with a parameter
        self._addresses = addresses
        for batch in self._step.batches:
            batch.table.rows[:, 1] = where[batch.places]
        return True


_DTYPE, _SHAPE = operator.attrgetter("dtype"), operator.attrgetter("shape")
_CONTIGUOUS = operator.attrgetter("flags.c_contiguous")


def check_overlap(who: str, named: list[tuple[str, np.ndarray]], written: int) -> None:
    """Raise if one of the first ``written`` arrays shares memory with another one."""
    for path, x in named[:written]:
        strides = sorted((abs(s), n) for s, n in zip(x.strides, x.shape, strict=True) if n > 1)
        reach = x.itemsize  # of what lies within one step of the next stride
        for stride, n in strides:
            if stride < reach and x.size:
                raise ValueError(f"{who}: elements of {path} share memory")
            reach += stride * (n - 1)
    bounds = sorted((*byte_bounds(x), i) for i, (_, x) in enumerate(named) if x.size)
    reached: list[tuple[int, int]] = []  # how far those reach that begin further to the left
    for low, high, i in bounds:
        reached = [(end, j) for end, j in reached if end > low]
        for _, j in reached:
            (a, x), (b, y) = named[j], named[i]
            if min(i, j) < written and x is y:
                raise ValueError(f"{who}: {a} and {b} are the same array")
            if min(i, j) < written and np.shares_memory(x, y, max_work=10**6):  # type: ignore[arg-type]
                raise ValueError(f"{who}: {a} and {b} share memory")
        reached.append((high, i))
