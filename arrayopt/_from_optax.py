"""Runs begun with optax, taken up here."""

from typing import Any

from . import rules
from ._schema import hyperparameters, name_of
from ._takeover import bound, number, state_beside
from ._transfer import CheckpointError
from ._tree import Tree
from .optimizer import Optimizer, State

OPTAX = {  # where optax does; the state's class may serve several rules
    "ScaleByAdamState": {
        "adam": {"m": "mu", "v": "nu"},
        "adamax": {"m": "mu", "u": "nu"},
        "yogi": {"m": "mu", "v": "nu"},
    },
    "TraceState": {"sgd": {"m": "trace"}},
    "ScaleBySimplifiedAdEMAMixState": {"simplified_ademamix": {"m": "m", "v": "n"}},
}
INSIDE = {  # states of optax that hold another, and where
    "MaskedState": "inner_state",
    "InjectHyperparamsState": "inner_state",
    "InjectStatefulHyperparamsState": "inner_state",
    "ApplyIfFiniteState": "inner_state",
    "MultiStepsState": "inner_opt_state",
}


def from_optax_state(
    opt_state: Any,
    params: Any,
    *,
    rule: Any = None,
    step: int | None = None,
    **override: Any,
) -> tuple[Optimizer, State]:
    """The optimizer and state of a run begun in optax, for parameters in any library.

    Taken up are the states of ``optax.sgd``, ``adam``, ``adamw``, ``adamax``, ``adamaxw``,
    ``yogi``, ``contrib.simplified_ademamix``, and of chains that hold one of them, with
    ``masked``, ``inject_hyperparams``, ``apply_if_finite`` or ``MultiSteps`` around it.

    Args:
        opt_state: the state.
        params: the parameters: a tree of arrays of any library, whose paths are those of the
            tree that optax had. The state takes its structure, library and devices.
        rule: ``"adam"``, ``"adamax"`` or ``"yogi"``, of which optax's states look alike;
            ``"sgd"`` if it has no momentum.
        step: the number of steps taken, where optax did not count them. Without it 1 stands for
            any number.
        override: the optimizer's keywords. optax stores none but those that
            ``inject_hyperparams`` holds: ``lr`` must be given, ``momentum`` too, and all that
            were not at the default. A schedule of optax is one here.

    ``weight_decay`` needs ``decay``: ``"decoupled"`` for ``optax.adamw``, ``"coupled"`` where
    ``add_decayed_weights`` stands before the rule. Nothing else of a chain is taken up, such as
    clipping: do that to the gradients; nor Nesterov's form of Adam, which cannot be seen.

    Raises:
        CheckpointError: it cannot go on as it would have in optax; the message says why.
    """
    found: dict[str, list[Any]] = {"rules": [], "counts": [], "stateless": [], "options": []}
    _walk(opt_state, found)
    if len(found["rules"]) > 1:
        kinds = ", ".join(type(x).__name__ for x in found["rules"])
        raise CheckpointError(f"optax's state holds more than one rule: {kinds}")
    node = found["rules"][0] if found["rules"] else None
    choice = OPTAX[type(node).__name__] if found["rules"] else {"sgd": {}}
    if rule is None and len(choice) == 1 and found["rules"]:
        (rule,) = choice
    rule = rules.find(rule) if isinstance(rule, str) else rule
    if rule is None or name_of(rule) not in choice:
        kind = type(node).__name__ if found["rules"] else "no state of a rule"
        raise CheckpointError(
            f"optax's state has {kind}, which belongs to {' or '.join(choice)}: say rule="
        )
    options: dict[str, Any] = {"eps_in_max": True} if name_of(rule) == "adamax" else {}
    known = {*hyperparameters(rule), "weight_decay"}
    for k, v in (item for o in found["options"] for item in o.items()):
        name = "lr" if k == "learning_rate" else k
        if name not in known and name not in override:
            raise CheckpointError(f"optax's hyperparameter {k} is none of {name_of(rule)}")
        options |= {name: number(v)} if name in known else {}
    options |= override
    plain = not found["rules"]
    _ask(name_of(rule), options, plain, len(found["stateless"]) - plain)
    optimizer = bound(rule, options)
    counts = {int(number(c)) for c in found["counts"]}
    if step is None and len(counts) > 1:
        raise CheckpointError(f"optax's counts of steps differ: {sorted(counts)}; give step=")
    if step is None:
        step = counts.pop() if counts else 1
    values, paths = {}, Tree(params).paths
    for name, field in choice[name_of(rule)].items():
        slot = Tree(getattr(node, field))
        values[name] = dict(zip(slot.paths, slot.leaves, strict=True))
        odd = sorted({*paths} ^ {*slot.paths})
        if odd:
            whose = "params" if odd[0] in paths else "optax's state"
            raise CheckpointError(
                f"optax's {field} has not the paths of params: {odd[0]} is in {whose} only"
            )
    return optimizer, state_beside(optimizer, params, step, values, None)


def _walk(node: Any, found: dict[str, list[Any]]) -> None:
    """The parts of an optax state, by their classes' names and fields."""
    kind, fields = type(node).__name__, getattr(node, "_fields", None)
    if kind in OPTAX and fields is not None:
        found["rules"].append(node)
        found["counts"] += [getattr(node, f) for f in fields if f in ("count", "t")]
    elif kind in INSIDE:
        if kind.startswith("Inject"):
            found["options"].append(node.hyperparams)
            found["counts"].append(node.count)
        if kind == "MultiStepsState" and int(node.mini_step):
            raise CheckpointError(
                f"optax has summed {int(node.mini_step)} gradients for its next step: save it "
                "right after a step"
            )
        _walk(getattr(node, INSIDE[kind]), found)
    elif kind == "ScaleByScheduleState":
        found["stateless"].append(node)
        found["counts"].append(node.count)
    elif fields == ():
        found["stateless"].append(node)
    elif fields is None and isinstance(node, list | tuple):
        for part in node:
            _walk(part, found)
    else:
        raise CheckpointError(f"optax's state holds {kind}, which arrayopt cannot take up")


def _ask(who: str, options: dict[str, Any], plain: bool, stateless: int) -> None:
    """Raise for what optax does not store and the user has not said."""
    if "lr" not in options:
        raise CheckpointError("optax does not store the learning rate: give lr=")
    if who == "sgd" and not plain and "momentum" not in options:
        raise CheckpointError("optax does not store the momentum: give momentum=")
    if stateless > 1 and "weight_decay" not in options:
        raise CheckpointError(
            "optax's chain has a transformation without state, which may be weight decay: "
            "give weight_decay=, 0 if there is none"
        )
    if number(options.get("weight_decay", 0)) != 0 and "decay" not in options:
        raise CheckpointError(
            'with weight_decay say decay="decoupled" (optax.adamw), or "coupled" '
            "(add_decayed_weights before the rule)"
        )
