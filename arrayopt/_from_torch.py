"""Runs begun with torch.optim, taken up here."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import rules
from ._like import translate
from ._like.torch import BOTH, FUSED, GRAPH, TABLE
from ._namespace import is_array
from ._paths import keys_of
from ._plan import one_namespace
from ._schema import hyperparameters, name_of
from ._takeover import From, Slots, bound, joined, keys_read, number, slot_of, state_beside
from ._transfer import CheckpointError
from ._tree import Tree
from .optimizer import Optimizer, State


def sign(_: Any, x: np.ndarray) -> np.ndarray:
    return np.sign(x)


ADAM = {"m": "exp_avg", "v": "exp_avg_sq"}
TORCH: dict[str, Slots] = {  # where torch.optim's classes keep what our slots are
    "adadelta": {"v": "square_avg", "u": "acc_delta"},
    "adafactor": {"v": From(joined, ("row_var", "col_var", "variance"))},
    "adagrad": {"v": "sum"},
    "adam": ADAM,
    "adamax": {"m": "exp_avg", "u": "exp_inf"},
    "amsgrad": {**ADAM, "w": "max_exp_avg_sq"},
    "asgd": {"ax": "ax"},
    "muon": {"m": "momentum_buffer"},
    "nadam": {**ADAM, "product": "mu_product"},
    "radam": ADAM,
    "rmsprop": {"v": "square_avg", "mu": "grad_avg", "m": "momentum_buffer"},
    "rprop": {"s": From(sign, ("prev",)), "size": "step_size"},
    "sgd": {"m": "momentum_buffer"},
}
COMPUTED = {"asgd": {"eta", "mu"}}  # what torch keeps and we compute in each step
UNCOUNTED = {"muon", "sgd"}  # whose steps torch does not count
# Keys of a group that tell no class from another: those that came with time, and the schedulers'.
LATER = {*GRAPH, *FUSED, *BOTH}
OTHER = {"params", "param_names", "initial_lr", "min_lr", "max_lr", "swa_lr"}
OTHER |= {"base_momentum", "max_momentum"}


def from_torch_state_dict(
    state_dict: Mapping[str, Any],
    params: Any,
    *,
    rule: Any = None,
    order: Any = None,
    step: int | None = None,
    **override: Any,
) -> tuple[Optimizer, State]:
    """The optimizer and state of a run begun in torch, for parameters in any library.

    Taken up are the state dicts of every class in ``torch.optim`` but ``LBFGS`` and ``SparseAdam``
    (of ``Adam`` with ``amsgrad`` as the rule ``amsgrad``, of ``AdamW`` as ``adam`` with
    ``decay="decoupled"``), and of the classes in ``arrayopt.backends.torch`` (name their ``rule``).
    What remains different is in the notes of ``arrayopt like torch``.

    Args:
        state_dict: the optimizer's ``state_dict()``.
        params: the parameters as they were then: a tree of arrays of any library. The state
            takes its structure, library and devices.
        rule: the rule, where the state dict does not tell: of Adamax before its first step, of
            RAdam of an older torch, and where groups have keys that torch does not know.
        order: the parameters' names in the order in which torch's optimizer had them:
            ``[name for name, _ in net.named_parameters()]``. A name is the keys of the
            parameter's path joined by dots: ``layer.0.weight`` for ``['layer'][0]['weight']``
            and for ``['layer.0.weight']`` alike. Not needed if the state dict has
            ``param_names``. Without either, ``params`` must be a list, or a dict that is flat and
            in torch's order, such as one made of ``net.named_parameters()``.
        step: the number of steps taken. By default that which torch counted; SGD and Muon
            count none, and 1 then stands for any number. Given, it holds for every parameter.
        override: keywords of the optimizer that replace those of the state dict.

    Groups may differ in ``weight_decay`` alone, where some have none: this becomes a mask.

    Raises:
        CheckpointError: it cannot go on as it would have in torch; the message says why.
    """
    try:
        groups, held = list(state_dict["param_groups"]), state_dict["state"]
        ids = [i for g in groups for i in g["params"]]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"not a torch optimizer's state dict: {error!r}") from None
    tree = Tree(params)
    one_namespace("params", tree)
    names = _order(params, groups, ids, order)
    dotted = {".".join(map(str, keys_of(p))) or p: p for p in tree.paths}
    if len({*names}) < len(names) or dotted.keys() != {*names}:
        only = [sorted(dotted.keys() - {*names})[:1], sorted({*names} - dotted.keys())[:1]]
        raise CheckpointError(
            f"torch's parameters are not those of params: {only[0]} is in params only, {only[1]} "
            f"in torch only; params has {len(dotted)} and torch {len(names)}"
        )
    states = {
        dotted[n]: {k: x for k, x in (held.get(i) or {}).items() if x is not None}
        for n, i in zip(names, ids, strict=True)
    }
    found = {k for s in states.values() for k in s} - {"step"}
    if groups and "decay" in groups[0]:
        rule, slots, options = _ours(rule, groups, found, override)
    else:
        rule, slots, options = _theirs(rule, groups, found, override)
    rates = [number(g.get("weight_decay", 0.0)) for g in groups for _ in g["params"]]
    if "weight_decay" not in override and len({*rates}) > 1:
        mask = {dotted[n]: rate != 0 for n, rate in zip(names, rates, strict=True)}
        options |= {"decay_mask": tree.join([mask[p] for p in tree.paths])}
    optimizer = bound(rule, options | override)
    if step is None:
        step = _torch_step(states, optimizer)
    whole = [p for p, s in states.items() if s.keys() - {"step"}]
    values = {
        name: {p: x for p in whole if (x := slot_of(made, states[p], optimizer.hyper)) is not None}
        for name, made in slots.items()
    }
    shared = groups[0].get("shared")
    return optimizer, state_beside(optimizer, params, step, values, shared, whole)


def _order(params: Any, groups: list[Any], ids: list[Any], order: Any) -> list[str]:
    """The parameters' names, in torch's order."""
    if order is not None:
        names = [str(n) for n in order]
    elif all("param_names" in g for g in groups):
        names = [n for g in groups for n in g["param_names"]]
    elif all(isinstance(i, str) for i in ids):
        names = ids
    elif is_array(params):
        names = ["params"]
    elif isinstance(params, Mapping) and all(map(is_array, params.values())):
        names = [str(k) for k in params]
    elif isinstance(params, list | tuple) and all(map(is_array, params)):
        names = [str(i) for i in range(len(params))]
    else:
        raise CheckpointError(
            "the state dict numbers its parameters and params is nested: give order=, "
            "their names in torch's order"
        )
    if len(names) != len(ids):
        raise CheckpointError(
            f"torch's optimizer has {len(ids)} parameters, but there are {len(names)} names: "
            f"{', '.join(names[:5])}"
        )
    return names


Found = tuple[Any, Slots, dict[str, Any]]  # the rule, where its slots are, the options


def _ours(rule: Any, groups: list[Any], found: set[str], override: Any) -> Found:
    """Of a class of arrayopt."""
    if rule is None:
        raise CheckpointError("the state dict is of a class of arrayopt: name its rule=")
    rule = rules.find(rule) if isinstance(rule, str) else rule
    slots = {f: f for f in rule.State._fields}
    _same_slots(rule, slots, found)
    known = {*hyperparameters(rule), "maximize", "decay", "weight_decay"}
    betas = [b for b in ("b1", "b2", "b3") if b in known]
    options = [
        {k: number(v) for k, v in g.items() if k in known}
        | dict(zip(betas, map(number, g.get("betas", ())), strict=False))
        for g in groups
    ]
    return rule, slots, _same_options(options, override)


def _theirs(rule: Any, groups: list[Any], found: set[str], override: Any) -> Found:
    """Of a class of torch.optim."""
    known = {n: row for n, row in TABLE.rows.items() if n != "AdamW"}  # whose groups are Adam's
    if rule is not None:
        rule = rules.find(rule) if isinstance(rule, str) else rule
        _same_slots(rule, TORCH.get(name_of(rule), {}), found)
        base = {"amsgrad": "adam"}.get(name_of(rule), name_of(rule))
        names = [n for n, row in known.items() if row.rule == base]
    else:
        keys = groups[0].keys() - LATER - OTHER
        late = "Adamax" if "decoupled_weight_decay" in groups[0] else "RAdam"  # else alike
        names = [n for n, row in known.items() if keys == row.defaults.keys() - LATER if n != late]
    if rule is None and (not names or (names == ["Adamax"] and "exp_inf" not in found)):
        has = f"the state {sorted(found)} and " if found else "no state yet, and "
        raise CheckpointError(
            f"cannot tell which optimizer of torch this is; known are {', '.join(TABLE.rows)}: "
            f"say rule=. It has {has}the options {sorted(groups[0].keys() - {'params'})}"
        )
    (name,) = names
    row, options = known[name], []
    for group in groups:
        values = {k: _plain(group.get(k, default)) for k, default in row.defaults.items()}
        if (
            name == "Adam"
            and values["weight_decay"]
            and "decoupled_weight_decay" not in group
            and "decay" not in override
        ):
            raise CheckpointError(
                "this state dict, of an older torch, does not tell Adam from AdamW: give "
                'decay="coupled" for Adam or decay="decoupled" for AdamW'
            )
        try:
            options.append({"rule": row.rule} | translate(TABLE, row, values))
        except ValueError as error:
            raise CheckpointError(f"torch.optim.{name}: {error}") from None
    same = _same_options(options, override)
    who = same.pop("rule")
    if rule is not None and who != name_of(rule):
        raise CheckpointError(f"the state dict is of {who}, not of {name_of(rule)}")
    rule = rules.find(who)
    _same_slots(rule, TORCH[who], found)
    return rule, TORCH[who], same


def _plain(value: Any) -> Any:
    """An option without arrays."""
    return [*map(number, value)] if isinstance(value, list | tuple) else number(value)


def _same_slots(rule: Any, slots: Slots, found: set[str]) -> None:
    if not slots or found - keys_read(slots) - COMPUTED.get(name_of(rule), set()):
        raise CheckpointError(
            f"{name_of(rule)} has the slots {', '.join(rule.State._fields)}, "
            f"but the state dict has {', '.join(sorted(found))}"
        )


def _same_options(options: list[dict[str, Any]], override: Any) -> dict[str, Any]:
    """The optimizer's keywords, which must be the same in all groups."""
    seen = dict(options[0]) if options else {}
    for group in options:
        for name, value in group.items():
            first = seen.get(name, value)
            masked = name == "weight_decay" and not (first and value)  # where some have none
            if first != value and not masked and name not in override:
                raise CheckpointError(
                    f"param groups differ in {name}, {first!r} and {value!r}: an optimizer here "
                    f"has one; give {name}= to choose it"
                )
            seen[name] = first or value if masked else first
    return seen


def _torch_step(states: Any, optimizer: Optimizer) -> int:
    """The number of steps taken: the same for every parameter."""
    counts = {p: int(number(s["step"])) if "step" in s else 0 for p, s in states.items()}
    if optimizer.name in UNCOUNTED and not any("step" in s for s in states.values()):
        counts = {p: int(bool(s)) for p, s in states.items()}
        if not optimizer.hyper.get("dampening", 0) or not optimizer.hyper["momentum"]:
            return max(counts.values(), default=0)  # the first step is like the others
    if len({*counts.values()}) > 1:
        low, high = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        raise CheckpointError(
            f"torch counted {counts[low]} steps of {low}, but {counts[high]} of {high}; here all "
            "parameters have one count: step= sets it, at the price of another bias correction"
        )
    return max(counts.values(), default=0)
