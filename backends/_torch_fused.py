"""torch's tensors on a CPU, in place by compiled loops."""

import operator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from arrayopt._namespace import WIDTH, dtype_name, is_traced
from arrayopt._step import Around, Part, is_off
from arrayopt.fuse import engine
from arrayopt.fuse.program import Untraceable
from arrayopt.fuse.trace import divide, signature

from ._torch_tensors import XP

LAYOUT = engine.Layout(
    Tensor.is_contiguous,
    Tensor.stride,
    lambda x, y: torch.empty_like(x, dtype=y.dtype),
)


class Move(NamedTuple):
    """One parameter's part in a step."""

    group: int  # its group's number
    around: Around
    part: Part
    taken: Tensor  # how many steps the parameter has taken


def refused(move: Move) -> str | None:
    """Why a compiled loop cannot move this parameter, if it cannot."""
    part = move.part
    for x in (part.param, part.grad, *(s for s in part.slots if not is_off(s))):
        if type(x) not in (Tensor, torch.nn.Parameter):
            return f"it is a {type(x).__name__}"
        if x.device.type != "cpu":
            return f"it is on {x.device}"
        if is_traced(x, XP):
            return "a transformation of functions holds it"
        if x.is_neg() or dtype_name(x.dtype) not in WIDTH:
            return f"it is {x.dtype}, or holds its values' negatives"
    if move.taken.dtype != torch.float32 or move.taken.device.type != "cpu":
        return "its step counter is not float32 on the CPU"
    try:
        divide(part.values)
    except Untraceable as error:
        return str(error)
    return None


class Step(engine.Step):
    """A step of tensors; those in another order than the loop wants are copied, and copied back."""

    def __init__(self, around: Around, moves: list[Move], shared: Any) -> None:
        keys: dict[tuple[int, Any], int] = {}  # (group, step number): its place in ``sets``
        sets: list[dict[str, Any]] = []
        rows, copies = [], []
        for move in moves:
            part, key = move.part, (move.group, move.part.t)
            arrays = [part.param, part.grad, *(x for x in part.slots if not is_off(x))]
            found = LAYOUT.alike(arrays)
            copies += [(x, y) for x, y in zip(arrays, found, strict=True) if x is not y]
            if key not in keys:
                keys[key] = len(sets)
                sets.append(part.values | {"t": part.t})
            addresses = [x.data_ptr() for x in found]
            size = part.param.numel()
            rows.append(engine.Row(signature(move.around, part), addresses, size, keys[key]))
        threads = torch.get_num_threads()
        super().__init__(around, rows, sets, shared, guarded=False, threads=threads)
        for x, y in copies:
            y.copy_(x)
        self._copies = copies  # which live as long as their addresses are in the tables
        self._grads = {id(move.part.grad) for move in moves}
        self.moved = [move.part.param for move in moves]
        self.parts = [move.part for move in moves]  # a gradient may be a copy that nobody else has
        self.keys, self.direct = keys, not copies
        self.counters = engine.Counters([move.taken.data_ptr() for move in moves])

    def move(self, shared: Any) -> None:
        super().move(shared)
        for x, y in self._copies:
            if id(x) not in self._grads:
                x.copy_(y)
        self.counters.advance()
        torch.autograd.graph.increment_version(self.moved)  # torch has not seen them change


class Memory:
    """What a step was made of, so that the next one need not look at everything again.

    It can be taken as it is if the same tensors, at the same addresses, are to be moved by the same
    programs, each one step further than before.

    Args:
        groups: the optimizer's groups of parameters.
        values: the hyperparameters of each in that step.
        state: the optimizer's state.
    """

    def __init__(
        self, step: Step, groups: list[Any], values: list[dict[str, Any]], state: Any
    ) -> None:
        step.parts = [step.parts[0]._replace(grad=None)]  # which is not ours to keep
        self._step, self._state = step, state
        self._groups = [*map(_look, groups, values)]
        self._params = [p for group in groups for p in group["params"]]
        self._there = [p.grad is not None for p in self._params]
        moved = [p for p, there in zip(self._params, self._there, strict=True) if there]
        self._states = [state[p] for p in moved]
        self._held = moved + [x for one in self._states for x in one.values()]
        self._addresses = [*map(Tensor.data_ptr, self._held)]
        grads: list[Any] = [p.grad for p in moved]
        self._dtypes, self._sizes = [*map(_DTYPE, grads)], [*map(Tensor.numel, grads)]
        self._grads = [*map(Tensor.data_ptr, grads)]
        self._next = step.counters.read() + 1

    def again(self, groups: list[Any], values: list[dict[str, Any]], state: Any) -> Step | None:
        """The next step, or None where something is not as it was."""
        params = [p for group in groups for p in group["params"]]
        if state is not self._state or not _same(params, self._params):
            return None
        try:
            if [*map(_look, groups, values)] != self._groups:
                return None
        except Untraceable:  # a tensor, for once
            return None
        grads = [p.grad for p in params]
        if [g is not None for g in grads] != self._there:
            return None
        if not all(self._there):
            params = [p for p, g in zip(params, grads, strict=True) if g is not None]
            grads = [g for g in grads if g is not None]
        states = [state.get(p) for p in params]
        if not _same(states, self._states):
            return None
        held = params + [x for one in states for x in one.values()]
        if not _same(held, self._held) or [*map(Tensor.data_ptr, held)] != self._addresses:
            return None
        step, counts = self._step, self._step.counters.read()
        if not (counts == self._next).all() or not self._take(grads):
            return None
        self._next = counts + 1
        step.keys = {(group, t + 1): i for (group, t), i in step.keys.items()}
        step.sets = [values[group] | {"t": t} for group, t in step.keys]
        step.parts = [step.parts[0]._replace(values=step.sets[0], t=step.sets[0]["t"])]
        step.threads = torch.get_num_threads()
        return step

    def _take(self, grads: list[Any]) -> bool:
        """Put the gradients' addresses into the tables, if they look like the last ones."""
        if (
            not {*map(type, grads)} <= {Tensor}
            or [*map(_DTYPE, grads)] != self._dtypes
            or [*map(Tensor.numel, grads)] != self._sizes
            or not all(map(Tensor.is_contiguous, grads))
            or any(map(Tensor.is_neg, grads))
        ):
            return False
        found = [*map(Tensor.data_ptr, grads)]
        if found != self._grads:
            self._grads, where = found, np.array(found)
            for batch in self._step.batches:
                batch.table.rows[:, 1] = where[batch.places]
        return True


_DTYPE = operator.attrgetter("dtype")


def _look(group: dict[str, Any], values: dict[str, Any]) -> Any:
    """What of a group its programs depend on."""
    return group["decay"], group["maximize"], group["engine"], divide(values)


def _same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(map(operator.is_, a, b))
