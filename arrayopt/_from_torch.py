"""Runs begun with torch.optim, taken up here."""

from collections.abc import Mapping
from typing import Any

from . import rules
from ._namespace import is_array
from ._paths import keys_of
from ._plan import one_namespace
from ._schema import hyperparameters, name_of
from ._takeover import bound, number, state_beside
from ._transfer import CheckpointError
from ._tree import Tree
from .optimizer import Optimizer, State

ADAM = {"m": "exp_avg", "v": "exp_avg_sq"}
TORCH = {  # where torch.optim's classes keep what our slots are
    "adam": ADAM,
    "amsgrad": {**ADAM, "w": "max_exp_avg_sq"},
    "adamax": {"m": "exp_avg", "u": "exp_inf"},
    "sgd": {"m": "momentum_buffer"},
}


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

    Taken up are the state dicts of ``torch.optim.Adam`` (with ``amsgrad`` as the rule
    ``amsgrad``), ``AdamW`` (as ``adam`` with ``decay="decoupled"``), ``Adamax``, ``SGD``, and of
    the classes in ``arrayopt.backends.torch`` (name their ``rule``).

    Args:
        state_dict: the optimizer's ``state_dict()``.
        params: the parameters as they were then: a tree of arrays of any library. The state
            takes its structure, library and devices.
        rule: the rule, where the state dict does not tell.
        order: the parameters' names in the order in which torch's optimizer had them:
            ``[name for name, _ in net.named_parameters()]``. A name is the keys of the
            parameter's path joined by dots: ``layer.0.weight`` for ``['layer'][0]['weight']``
            and for ``['layer.0.weight']`` alike. Not needed if the state dict has
            ``param_names``. Without either, ``params`` must be a list, or a dict that is flat and
            in torch's order, such as one made of ``net.named_parameters()``.
        step: the number of steps taken. By default that which torch counted; SGD counts none,
            and 1 then stands for any number. Given, it holds for every parameter.
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
    states = {dotted[n]: held.get(i) or {} for n, i in zip(names, ids, strict=True)}
    found = {k for s in states.values() for k, x in s.items() if x is not None} - {"step"}
    ours = bool(groups) and "decay" in groups[0]
    rule, slots = _torch_rule(rule, groups[0], found, ours)
    options = _torch_options(rule, groups, override, ours)
    rates = [number(g.get("weight_decay", 0.0)) for g in groups for _ in g["params"]]
    if "weight_decay" not in override and len({*rates}) > 1:
        mask = {dotted[n]: rate != 0 for n, rate in zip(names, rates, strict=True)}
        options |= {"decay_mask": tree.join([mask[p] for p in tree.paths])}
    optimizer = bound(rule, options | override)
    if step is None:
        step = _torch_step(name_of(rule), states, slots, optimizer)
    values = {
        name: {p: s[key] for p, s in states.items() if s.get(key) is not None}
        for name, key in slots.items()
    }
    return optimizer, state_beside(optimizer, params, step, values, groups[0].get("shared"))


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


def _torch_rule(rule: Any, group: Any, found: set[str], ours: bool) -> tuple[Any, dict[str, str]]:
    """The rule, and the key under which torch has each slot."""
    if rule is None and ours:
        raise CheckpointError("the state dict is of a class of arrayopt: name its rule=")
    if rule is None:
        if "amsgrad" in group and "betas" in group:
            rule = "amsgrad" if number(group["amsgrad"]) else "adam"
        elif {"momentum", "dampening", "nesterov"} <= group.keys():
            rule = "sgd"
        elif "exp_inf" in found:
            rule = "adamax"
        else:
            has = f"the state {sorted(found)} and " if found else "no state yet, and "
            raise CheckpointError(
                "cannot tell which optimizer of torch this is; known are Adam, AdamW, Adamax and "
                f"SGD, for the last two say rule=. It has {has}the options {sorted(group)}"
            )
    rule = rules.find(rule) if isinstance(rule, str) else rule
    fields = rule.State._fields
    slots = {f: f for f in fields} if ours else TORCH.get(name_of(rule), {})
    if not slots.keys() >= {*fields} or found - {*slots.values()}:
        raise CheckpointError(
            f"{name_of(rule)} has the slots {', '.join(fields)}, "
            f"but the state dict has {', '.join(sorted(found))}"
        )
    return rule, slots


def _torch_options(rule: Any, groups: list[Any], override: Any, ours: bool) -> dict[str, Any]:
    """The optimizer's keywords, which must be the same in all groups."""
    seen: dict[str, Any] = {}
    for i, group in enumerate(groups):
        known = {*hyperparameters(rule), "maximize", "decay"}
        values = {k: number(v) for k, v in group.items() if k in known}
        betas = [b for b in ("b1", "b2", "b3") if b in known]
        values |= zip(betas, map(number, group.get("betas", ())), strict=False)
        rate = number(group.get("weight_decay", 0.0))
        values |= {"weight_decay": rate} if rate or i == 0 else {}
        if not ours and name_of(rule) == "adamax":
            values["eps_in_max"] = True
        if not ours and name_of(rule) in ("adam", "amsgrad"):
            if "decoupled_weight_decay" in group:
                values["decay"] = "decoupled" if group["decoupled_weight_decay"] else "coupled"
            elif rate and "decay" not in override:
                raise CheckpointError(
                    "this state dict, of an older torch, does not tell Adam from AdamW: give "
                    'decay="coupled" for Adam or decay="decoupled" for AdamW'
                )
        for name, value in values.items():
            first = seen.get(name, value)
            mask = name == "weight_decay" and not first
            if first != value and not mask and name not in override:
                raise CheckpointError(
                    f"param groups differ in {name}, {first!r} and {value!r}: an optimizer here "
                    f"has one; give {name}= to choose it"
                )
            seen[name] = value if mask else first
    return seen


def _torch_step(who: str, states: Any, slots: Any, optimizer: Optimizer) -> int:
    """The number of steps taken: the same for every parameter."""
    counts = {p: int(number(s["step"])) if "step" in s else 0 for p, s in states.items()}
    if who == "sgd" and not any("step" in s for s in states.values()):  # torch's SGD counts none
        counts = {p: int(s.get(slots["m"]) is not None) for p, s in states.items()}
        if optimizer.hyper["dampening"] == 0 or optimizer.hyper["momentum"] == 0:
            return max(counts.values(), default=0)
    if len({*counts.values()}) > 1:
        low, high = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        raise CheckpointError(
            f"torch counted {counts[low]} steps of {low}, but {counts[high]} of {high}; here all "
            "parameters have one count: step= sets it, at the price of another bias correction"
        )
    return max(counts.values(), default=0)
