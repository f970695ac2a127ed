"""PyTorch tensors, and a ``torch.optim.Optimizer`` for every rule.

The classes go by the names that the rules have in the literature: ``Adamax``, ``Madam``, ...
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import arrayopt as ao
from arrayopt._namespace import compute_dtype, known
from arrayopt._options import in_dtypes, slot_dtypes
from arrayopt._schema import rounds
from arrayopt._step import Part, evaluate, is_off, keep, measure
from arrayopt._step import move as step_of
from arrayopt.fuse.cpu import missing
from arrayopt.fuse.engine import why_not
from arrayopt.fuse.program import Untraceable

from ._common import compiled, extra, session, settle, usable

with extra("torch"):
    import torch
    from torch import Tensor

    from . import _torch_tensors as tensors
    from ._torch_form import Form, form_of, pack, unpack
    from ._torch_fused import Memory, Move, Step, refused
    from ._torch_tensors import XP

DTYPES = ("float16", "bfloat16", "float32", "float64")


class Optimizer(torch.optim.Optimizer):
    """What all classes of this module are: one rule, as torch wants its optimizers.

    Each parameter counts its own steps. Tensors are updated in place. What a rule keeps for the
    whole optimizer (MADA's coefficients) is in the first of ``param_groups``, as ``"shared"``.
    """

    _form: Form
    _memory: Memory | None = None  # of the last step, if compiled loops did all of it

    def __init__(self, params: Any, lr: Any = None, **options: Any) -> None:
        options = options if lr is None else {"lr": lr, **options}
        self._form.check_names(options)
        super().__init__(params, self._form.checked({**self._form.options, **options}))
        self._share()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, with any hyperparameter of their own."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        self._form.check_names(param_group.keys() & {*self._form.betas})
        group = self._form.checked({**self.defaults, **param_group})
        self._form.check_common(group, self.defaults)
        super().add_param_group(param_group)
        self.param_groups[-1].update(group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every parameter that has a gradient.

        Args:
            closure: computes the loss and the gradients anew; its loss is returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        each = self._form.each_step(loss)
        values = [
            {k: tensors.number(v) for k, v in (self._form.values(group) | each).items()}
            for group in self.param_groups
        ]
        fused: Step | None = None
        rest: list[Move] = []
        if torch.compiler.is_compiling():
            rest = self._moves(values)
        else:
            if self._memory:
                fused = self._memory.again(self.param_groups, values, self.state)
            if not fused:
                self._memory = None
                fused, rest = self._split(self._moves(values))
                if fused and fused.direct and not rest and not self._complex():
                    self._memory = Memory(fused, self.param_groups, values, self.state)
        shared, sums = self._adapt(fused, rest)
        if fused:
            fused.move(shared)
        for move, own in zip(rest, sums, strict=True):
            self._move(move, shared, own)
        return loss

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside it, the parameters are those to evaluate or to save: of schedule-free rules and of
        averages (``ema``, ``swa``, ...), where others have but one kind. Steps are for outside.
        """
        around, held = self._form.core.around, []
        groups = self.param_groups if hasattr(around.rule, "evaluate") else []
        try:
            with torch.no_grad():
                for group in groups:
                    values = self._form.values(group)
                    for p in (p for p in group["params"] if "step" in self.state.get(p, {})):
                        param, t = tensors.real(p), known(self.state[p]["step"], XP)
                        new = evaluate(around, param, self._slots(p), t, values, xp=XP)
                        held.append((param, param.clone()))
                        param.copy_(new)
            yield
        finally:
            with torch.no_grad():
                for param, before in held:
                    param.copy_(before)

    def _complex(self) -> bool:
        return any(p.is_complex() for group in self.param_groups for p in group["params"])

    def _split(self, moves: list[Move]) -> tuple[Step | None, list[Move]]:
        """The part of a step that compiled loops carry out, and the rest."""
        why = [self._why_not(move) for move in moves]
        fused, fits = None, [move for move, reason in zip(moves, why, strict=True) if not reason]
        if fits:
            try:
                fused = Step(self._form.core.around, fits, self._form.shared)
            except Untraceable as error:
                why = [reason or str(error) for reason in why]
        for move, reason in zip(moves, why, strict=True):
            if reason and self.param_groups[move.group]["engine"] == "fused":
                name, shape = type(self).__name__, tuple(move.part.param.shape)
                raise RuntimeError(
                    f"{name}: engine='fused' cannot move a parameter of shape {shape}: {reason}"
                )
        return fused, [move for move, reason in zip(moves, why, strict=True) if reason]

    def _why_not(self, move: Move) -> str | None:
        """Why a compiled loop is not to move this parameter; None if it is."""
        if self.param_groups[move.group]["engine"] == "eager":
            return "the eager rule was asked for"
        return missing() or refused(move)

    def _move(self, move: Move, shared: Any, sums: dict[str, Any]) -> None:
        """One parameter's step by the rule as it is written, in place."""
        part = move.part
        shared = tensors.moved_to(part.param.device, shared)
        new, slots = step_of(move.around, part, shared, sums, xp=XP)
        used = [i for i, x in enumerate(part.slots) if not is_off(x)]
        held = [part.param, *(part.slots[i] for i in used)]
        after = [new, *(slots[i] for i in used)]
        for i, x in enumerate(after):
            if x is not held[i] and any(x is old for old in held):
                after[i] = x.clone()  # it becomes what another one was
        for old, x in zip(held, after, strict=True):
            if x is not old:
                tensors.write(old, x)
        taken = move.taken
        taken += 1

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a copy of a state; what is float32 beside a parameter of fewer bits stays so."""
        last: dict[str, Any] = {}  # what is to be loaded, after every hook

        def before(_: Any, given: dict[str, Any]) -> None:
            fields = self._form.core.rule.State._fields
            for slots in given["state"].values():
                other = set(slots) - {"step", *fields} if isinstance(slots, dict) else ()
                if other:
                    raise ValueError(
                        f"{self._form.core.name} has the state {', '.join(fields)}, "
                        f"but the one to load has {', '.join(sorted(other))}"
                    )
            last.update(given)

        def after(_: Any) -> None:  # once more: torch has cast the state, or not copied it
            for group, saved in zip(self.param_groups, last["param_groups"], strict=True):
                named = self._form.bound(group, self._form.values(group)).slot_dtypes
                for p, i in zip(group["params"], saved["params"], strict=True):
                    for name, x in last["state"].get(i, {}).items():
                        self.state[p][name] = (
                            tensors.count(x)
                            if name == "step"
                            else tensors.copied(x, p, keep=name in named)
                        )

        handles = (
            self.register_load_state_dict_pre_hook(before),
            self.register_load_state_dict_post_hook(after, prepend=True),
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            for handle in handles:
                handle.remove()

    def __reduce_ex__(self, protocol: Any) -> Any:
        name = self._form.core.name
        if "+" in name:  # the class of a rule inside wrappers is made where it is asked for
            return _blank, (name,), self.__getstate__()
        return super().__reduce_ex__(protocol)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # saved before there was such an option
            group.update({**self._form.options, **group})
            for mine in (self.state[p] for p in group["params"] if p in self.state):
                mine |= {"step": tensors.count(mine["step"])} if "step" in mine else {}
        self._share()

    def _init_group(self, group: dict[str, Any]) -> None:
        """Make the state that is missing. torch.compile knows this name, and does not trace it."""
        core = self._form.core
        kwargs = keep(core.around, "init", self._form.values(group))
        probe = core.start(torch.empty(0), kwargs, XP)
        used = [f for f in probe._fields if not is_off(getattr(probe, f))]
        dtypes = slot_dtypes(core.name, group["state_dtype"], probe)
        for p in (p for p in group["params"] if p.grad is not None):
            if p.grad.layout is not torch.strided:
                raise RuntimeError(f"{type(self).__name__} does not support sparse gradients")
            state = self.state[p]
            for name in state.keys() - {"step", *used}:
                del state[name]  # switched off since
            missing = [f for f in used if f not in state]
            start = probe
            if missing:
                start = core.start(tensors.real(p), kwargs, XP)
                start = in_dtypes(core.name, start, dtypes, tuple(tensors.real(p).shape), XP)
            state.setdefault("step", tensors.count(0))
            for f in missing:
                x = getattr(start, f).clone()  # it may be the parameter itself
                pairs = p.is_complex() and x.shape == tensors.real(p).shape
                pairs &= x.dtype in (torch.float32, torch.float64)
                state[f] = torch.view_as_complex(x.contiguous()) if pairs else x

    def _slots(self, p: Tensor) -> Any:
        """The rule's State of a parameter."""
        state, rule = self.state[p], self._form.core.rule
        return rule.State(
            *(tensors.real(state[f]) if f in state else () for f in rule.State._fields)
        )

    def _moves(self, values: list[dict[str, Any]]) -> list[Move]:
        """What is to be done in this step, with each group's hyperparameters."""
        moves: list[Move] = []
        places = 0  # parameters before the group's
        for number, group in enumerate(self.param_groups):
            self._init_group(group)
            around = self._form.core.around
            around = around._replace(decay=group["decay"], maximize=group["maximize"])
            for place, p in enumerate(group["params"], places):
                if p.grad is None:
                    continue
                state, param = self.state[p], tensors.real(p)
                dtype = compute_dtype(param.dtype, XP)
                mine = {k: tensors.cast_to(v, dtype) for k, v in values[number].items()}
                t = tensors.cast_to(known(state["step"], XP) + 1, dtype)
                grad, slots = tensors.real(p.grad), self._slots(p)
                part = Part("", param, grad, slots, mine, t, True, place)
                moves.append(Move(number, around, part, state["step"]))
            places += len(group["params"])
        return moves

    def _adapt(self, fused: Step | None, rest: list[Move]) -> tuple[Any, list[dict[str, Any]]]:
        """The rule's shared state in this step, which is kept in the first group; and the sums over
        each parameter of the rest.
        """
        if not (fused or rest):
            return (), []
        parts = (fused.parts if fused else []) + [m.part for m in rest]
        device, shared = parts[0].param.device, self._form.shared
        if shared != ():
            kept = self.param_groups[0]["shared"]
            shared = tensors.moved_to(device, unpack(shared, kept))
        own: list[dict[str, Any]] = [{} for _ in rest]
        for what in rounds(self._form.core.rule):
            known = fused.measure(what, shared) if fused else []
            found = [
                measure(what, m.around, m.part, there, x, xp=XP)
                for m, x in zip(rest, own, strict=True)
                for there in [tensors.moved_to(m.part.param.device, shared)]
            ]
            found = [{k: tensors.whole(x) for k, x in s.items()} for s in found]
            if shared != ():
                sums = [{k: torch.tensor(x) for k, x in s.items()} for s in known] + found
                sums = [{k: x.to(device) for k, x in s.items()} for s in sums]
                shared = self._form.core.adapt(parts, shared, sums, XP)
            own = [a | b for a, b in zip(own, found, strict=True)]
        if shared != ():
            kept.update(pack(shared))
        return shared, own

    def _share(self) -> None:
        """Make the shared state that is missing."""
        if self._form.shared != () and "shared" not in self.param_groups[0]:
            like = [p for group in self.param_groups for p in group["params"]]
            core = self._form.bound(self.defaults, self._form.values(self.defaults))
            self.param_groups[0]["shared"] = pack(core.share(like[0], XP))


def optimizer_class(rule: Any, module: str = __name__) -> type[Optimizer]:
    """A rule's class, named by the first words of the rule's docstring.

    Args:
        rule: a module such as ``arrayopt.adamax``, or its name.
        module: where the class will be found; pickle asks for it.
    """
    form = form_of(rule)

    def __init__(self: Any, params: Any, lr: Any = None, **options: Any) -> None:  # noqa: N807
        Optimizer.__init__(self, params, lr, **options)

    __init__.__module__, __init__.__qualname__ = module, f"{form.name}.__init__"
    vars(__init__)["__signature__"] = form.signature()
    body = {"__module__": module, "__doc__": form.docstring(), "__init__": __init__, "_form": form}
    return type(form.name, (Optimizer,), body)


def _blank(rule: str) -> Any:
    cls = optimizer_class(rule)
    return cls.__new__(cls)


CLASSES = {cls.__name__: cls for cls in map(optimizer_class, ao.rules.names())}
globals().update(CLASSES)
__all__ = [
    "CLASSES",
    "DTYPES",
    "Optimizer",
    "about",
    "asarray",
    "asnumpy",
    "compiled",
    "engines",
    "optimizer_class",
    "session",
    "settle",
    "usable",
    *CLASSES,
]


def __getattr__(name: str) -> Any:  # for type checkers: the classes are made, not written
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def engines(optimizer: ao.Optimizer) -> dict[str, str | None]:
    """What can carry out the steps of a class, the preferred first; and why not."""
    return {"fused": why_not(optimizer), "eager": None}


def asarray(x: np.ndarray) -> torch.Tensor:
    """A tensor with memory of its own."""
    if str(x.dtype) == "bfloat16":  # torch does not know ml_dtypes'
        return torch.tensor(x.view(np.uint16).copy()).view(torch.bfloat16)
    return torch.tensor(x)


def asnumpy(x: torch.Tensor) -> np.ndarray:
    """An array, in host memory; of ml_dtypes' bfloat16 where the tensor is so."""
    x = x.detach().cpu().contiguous()
    if x.dtype == torch.bfloat16:
        import ml_dtypes

        bits: np.ndarray = x.view(torch.uint16).numpy()
        return bits.view(ml_dtypes.bfloat16)
    return x.numpy()


def about() -> str:
    return f"torch {torch.__version__}, cpu"
