"""How torch spells a rule: its keywords, their checks, its class's signature and docstring."""

import inspect
import itertools
import math
import re
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

import arrayopt as ao
from arrayopt._options import DECAYS
from arrayopt._schema import check, each_step, hyperparameters, title_of, unknown
from arrayopt._step import keep

WORDS = {"lr": "learning rate", "eps": "epsilon value"}  # torch's own
OWN = {  # what every class has
    "weight_decay": "the decay's factor, in [0, inf).",
    "decay": "how it acts: 'coupled' (L2), 'decoupled', or 'independent' of lr.",
    "maximize": "climb instead of descend.",
    "state_dtype": "the state's dtype, such as 'bfloat16', or a dict of such by slot.",
    "engine": "'fused', the rule compiled into one loop over all parameters on a CPU; 'eager', the "
    "rule as it is written; or the first of them that can.",
}
ENGINES = ("fused", "eager")


class Form(NamedTuple):
    """One rule, as torch spells it: ``b1, b2, ...`` are ``betas``."""

    core: ao.Optimizer  # the rule and its defaults
    betas: tuple[str, ...]  # the hyperparameters that are spelled so; two or more, or none
    options: dict[str, Any]  # every keyword and its default
    shared: Any  # the structure of the shared state, or ()
    each: tuple[str, ...]  # what every step must be given

    @property
    def name(self) -> str:
        """The class's name: the first words of the docstring, ``SimplifiedAdEMAMix``."""
        return re.sub(r"\W", "", title_of(self.core.rule).partition(":")[0])

    def values(self, group: dict[str, Any]) -> dict[str, Any]:
        """A group's hyperparameters, as the rule spells them."""
        found = {k: group[k] for k in self.core.hyper if k in self.options}
        return found | dict(zip(self.betas, group["betas"], strict=True)) if self.betas else found

    def each_step(self, loss: Any) -> dict[str, Any]:
        """What the rule must be given in each step: the closure's loss, if anything."""
        if not self.each:
            return {}
        if loss is None:
            raise TypeError(f"{self.core.name}: step needs a closure that returns the loss")
        return dict.fromkeys(self.each, torch.as_tensor(loss))

    def check_names(self, names: Any) -> None:
        """Raise for a name that is no keyword."""
        for name in names:
            if name not in self.options:
                raise TypeError(unknown(self.core.rule, name, list(self.options)))

    def checked(self, group: dict[str, Any]) -> dict[str, Any]:
        """Every option of a group, if its value is legal; errors begin with torch's own words."""
        group = {k: _item(k, group[k]) for k in self.options}
        if self.betas and len(group["betas"]) != len(self.betas):
            one = ", ".join(self.betas)
            raise ValueError(f"{self.core.name}: betas must be ({one}), got {group['betas']!r}")
        engine = group["engine"]
        if engine not in (None, *ENGINES):
            raise ValueError(
                f"{self.core.name}: engine must be one of {ENGINES} or None, got {engine!r}"
            )
        values = self.values(group)
        for name, value in values.items():
            values[name] = value = value.item() if isinstance(value, Tensor) else value
            if callable(value):
                raise TypeError(
                    f"{self.core.name}: {name} cannot be a schedule here; "
                    "torch.optim.lr_scheduler has those"
                )
            try:
                check(self.core.rule, {name: value})
            except ValueError as error:
                word = WORDS.get(name, f"{name} value")
                if name in self.betas:
                    word = f"beta parameter at index {self.betas.index(name)}"
                raise ValueError(f"Invalid {word}: {value} ({error})") from None
        self.bound(group, values)
        return group

    def bound(self, group: dict[str, Any], values: dict[str, Any]) -> ao.Optimizer:
        """The rule with a group's values bound; checks what concerns several of them."""
        how = {k: group[k] for k in ("decay", "maximize", "state_dtype")}
        return ao.Optimizer(self.core.rule, **how, **values)

    def check_common(self, group: dict[str, Any], defaults: dict[str, Any]) -> None:
        """Raise if a group has its own value of what the whole optimizer has but one."""
        reads, mine, common = self.core.around.reads, self.values(group), self.values(defaults)
        one = reads.get("share", frozenset()) | reads.get("adapt", frozenset()) - {"lr"}
        for name in one & mine.keys():
            if mine[name] != common[name]:
                raise ValueError(
                    f"{self.core.name}: {name} is one for the whole optimizer, {common[name]!r}; "
                    f"a group cannot have {mine[name]!r}"
                )

    def signature(self) -> inspect.Signature:
        """The constructor's signature."""
        kind = inspect.Parameter
        found = [kind(name, kind.POSITIONAL_OR_KEYWORD) for name in ("self", "params")]
        for name, default in self.options.items():
            how = kind.POSITIONAL_OR_KEYWORD if name == "lr" else kind.KEYWORD_ONLY
            found.append(kind(name, how, default=default, annotation=self._hint(name)))
        return inspect.Signature(found, return_annotation=None)

    def docstring(self) -> str:
        """The rule's, and every argument."""
        lines = [
            (inspect.getdoc(self.core.rule) or self.name).strip() + "\n\nArgs:",
            "    params: parameters, (name, parameter) pairs, or dicts that make groups of them.",
            *(f"    {k}: {self._about(k)} Default: {v!r}." for k, v in self.options.items()),
        ]
        return "\n".join(lines) + "\n"

    def _about(self, name: str) -> str:
        if name in OWN:
            return OWN[name]
        hyper = hyperparameters(self.core.rule)[self.betas[0] if name == "betas" else name]
        legal = f"in {hyper.legal}"
        if isinstance(hyper.legal, tuple):
            legal = " or ".join(map(repr, hyper.legal))
        if name == "betas":
            legal = f"({', '.join(self.betas)}), each {legal}"
        return f"{legal}{' or None' * hyper.optional}{', for the first step' * hyper.start}."

    def _hint(self, name: str) -> Any:
        if name == "betas":
            return tuple.__class_getitem__((float,) * len(self.betas))
        hyper = hyperparameters(self.core.rule).get(name)
        if name == "state_dtype":
            return str | dict[str, str] | None
        own = {"decay": DECAYS, "maximize": (False, True), "engine": ENGINES}
        legal = hyper.legal if hyper else own.get(name)
        if not isinstance(legal, tuple):
            hint: Any = float | Tensor
        else:
            hint = bool if legal == (False, True) else Literal.__getitem__(legal)
        return hint | None if name == "engine" or (hyper and hyper.optional) else hint


def form_of(rule: Any) -> Form:
    """A rule, a module such as ``arrayopt.adamax`` or its name, in torch's spelling."""
    core = ao.Optimizer(rule)
    found = {k: h.default for k, h in hyperparameters(core.rule).items() if not h.each_step}
    betas = (*itertools.takewhile(found.__contains__, (f"b{i}" for i in itertools.count(1))),)
    betas = betas if len(betas) > 1 else ()
    options = {"lr": found["lr"]} if "lr" in found else {}
    options |= {"betas": tuple(found[b] for b in betas)} if betas else {}
    options |= {k: v for k, v in found.items() if k not in ("lr", *betas)}
    options |= {"weight_decay": 0.0, "decay": core.around.decay, "maximize": False}
    options |= {"state_dtype": None, "engine": None}
    shared: Any = ()
    if hasattr(core.rule, "share"):
        shared = core.rule.share(**keep(core.around, "share", core.hyper))
    return Form(core, betas, options, shared, each_step(core.rule))


def pack(tree: Any) -> Any:
    """Nested NamedTuples as nested dicts, which every checkpoint can hold."""
    if not isinstance(tree, tuple):
        return tree
    return {k: pack(v) for k, v in zip(tree._fields, tree, strict=True)}  # type: ignore[attr-defined]


def unpack(like: Any, kept: Any) -> Any:
    """Nested dicts as the NamedTuples that they were."""
    if not isinstance(like, tuple):
        return kept
    pairs = zip(like._fields, like, strict=True)  # type: ignore[attr-defined]
    return type(like)(*[unpack(x, kept[k]) for k, x in pairs])


def _item(name: str, x: Any) -> Any:
    """An option as state_dict may hold it: a tensor of one element, or of Python's own types."""
    if name == "betas":
        pair = x if isinstance(x, list | tuple) else (x,)
        return tuple(_item(f"{name}[{i}]", v) for i, v in enumerate(pair))
    if hasattr(x, "shape") and math.prod(x.shape) != 1:
        raise ValueError(f"Tensor {name} must be 1-element")
    return x.item() if isinstance(x, np.ndarray | np.generic) else x
