"""Runs begun with optax, taken up here."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from . import rules
from ._like import NEEDED, Row, find, load, translate
from ._namespace import is_array
from ._schema import hyperparameters, name_of
from ._step import is_off
from ._takeover import From, bound, joined, keys_read, number, slot_of, state_beside
from ._transfer import CheckpointError, put_scalar, to_numpy
from ._tree import Tree
from .optimizer import Optimizer, State


class Kept(NamedTuple):
    """Where optax keeps a rule's state."""

    states: str  # the classes of a chain's states in their order, as a pattern
    slots: Mapping[str, str | From] = {}  # from their fields
    shared: Mapping[str, str] = {}  # of the whole optimizer, likewise; the rest each step computes
    empty: int = 1  # most states without a field that belong to it
    named: bool = False  # whether the same states are better known as another's


def minus(_: Any, x: np.ndarray) -> np.ndarray:
    return -x


def by_rate(hyper: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    """Optax has minus the rate in this momentum."""
    rate = number(hyper["lr"])
    if not isinstance(rate, int | float) or rate == 0:
        raise CheckpointError(
            f"optax has the learning rate in its momentum: lr must be a number, not 0, got {rate!r}"
        )
    return -x / rate


def factored(hyper: Mapping[str, Any], row: Any, column: Any, whole: Any) -> np.ndarray:
    """What optax does not use has the shape (1,)."""
    return whole if row.shape == column.shape == (1,) else joined(hyper, row, column)


ADAM = {"m": "mu", "v": "nu"}
OGD = "optimistic_gradient_descent"
P0 = {"p0": "init_params"}
FREE = {"z": "z", "W": "weight_sum", "top": "max_lr"}
LOSS = {"f": "barf", "gamma": "gamma", "floor": "lb"}
OPTAX = {
    "acprop": Kept("ScaleByBeliefState", {"m": "mu", "s": "nu"}),
    "adabelief": Kept("ScaleByBeliefState", {"m": "mu", "s": "nu"}),
    "adadelta": Kept("ScaleByAdaDeltaState", {"v": "e_g", "u": "e_x"}),
    "adafactor": Kept(
        "FactoredState( EmaState)?",
        {"v": From(factored, ("v_row", "v_col", "v")), "m": "ema"},
        empty=3,
    ),
    "adagrad": Kept("ScaleByRssState", {"v": "sum_of_squares"}),
    "adam": Kept("ScaleByAdamState", ADAM),
    "adamax": Kept("ScaleByAdamState", {"m": "mu", "u": "nu"}),
    "adan": Kept("ScaleByAdanState", {"m": "m", "n": "v", "v": "n", "g": "g"}),
    "ademamix": Kept("ScaleByAdemamixState", {"m": "m1", "n": "m2", "v": "nu"}),
    "adopt": Kept("ScaleByAdamState", ADAM),
    "amsgrad": Kept("ScaleByAmsgradState", {**ADAM, "w": "nu_max"}),
    "cocob": Kept(
        "COCOBState",
        {"p0": "init_particles", "theta": "cumulative_gradients", "L": "scale"}
        | {"G": "subgradients", "R": "reward"},
    ),
    "dadapt_adam": Kept(
        "DAdaptAdamWState",
        {"m": "exp_avg", "v": "exp_avg_sq", "s": "grad_sum"},
        {"d": "estim_lr", "r": "numerator_weighted"},
    ),
    "dog": Kept("DoGState", P0, {"r": "max_dist", "G": "sum_sq_norm_grads"}),
    "dowg": Kept("DoWGState", P0, {"R": "estim_sq_dist", "v": "weighted_sq_norm_grads"}),
    "fromage": Kept("", empty=3),
    "lamb": Kept("ScaleByAdamState", ADAM),
    "lars": Kept("(TraceState)?", {"m": From(minus, ("trace",))}, named=True),
    "lion": Kept("ScaleByLionState", {"m": "mu"}),
    "madgrad": Kept("MadgradState", {"s": "s", "v": "grad_sum_sq", "x": "x0"}),
    "momo": Kept("MomoState", {"m": "exp_avg"}, LOSS),
    "momo_adam": Kept("MomoAdamState", {"m": "exp_avg", "v": "exp_avg_sq"}, LOSS),
    "muon": Kept("MuonState", {"m": "mu"}),
    "nadam": Kept("ScaleByAdamState", ADAM),
    "novograd": Kept("ScaleByNovogradState", ADAM),
    "optimistic_adam": Kept(
        "ScaleByAdamState ScaleByOptimisticGradientState", {**ADAM, "r": "previous_gradient"}
    ),
    OGD: Kept("ScaleByOptimisticGradientState", {"g": "previous_gradient"}),
    "polyak_sgd": Kept("", empty=3),
    "prodigy": Kept(
        "ProdigyState",
        {"p0": "params0", "m": "exp_avg", "v": "exp_avg_sq", "s": "grad_sum"},
        {"d": "estim_lr", "top": "estim_lr", "r": "numerator_weighted"},
    ),
    "radam": Kept("ScaleByAdamState", ADAM),
    "rmsprop": Kept(
        "ScaleBy(Rms|RStdDev)(WithCount)?State( TraceState)?",
        {"v": "nu", "mu": "mu", "m": From(by_rate, ("trace",))},
        empty=2,
    ),
    "schedule_free_adamw": Kept("ScheduleFreeState ScaleByRmsWithCountState", {**FREE, "v": "nu"}),
    "schedule_free_sgd": Kept("ScheduleFreeState", FREE),
    "sgd": Kept("(TraceState)?", {"m": "trace"}, empty=2),
    "signum": Kept("(EmaState)?", {"m": "ema"}, empty=2, named=True),
    "simplified_ademamix": Kept("ScaleBySimplifiedAdEMAMixState", {"m": "m", "v": "n"}),
    "sm3": Kept("ScaleBySM3State", {"mu": "mu", "m": "nu"}),
    "yogi": Kept("ScaleByAdamState", ADAM),
}
INSIDE = {  # states of optax that hold another, and where
    "MaskedState": "inner_state",
    "InjectHyperparamsState": "inner_state",
    "InjectStatefulHyperparamsState": "inner_state",
    "ApplyIfFiniteState": "inner_state",
    "MultiStepsState": "inner_opt_state",
}
COUNTS = {"count": 0, "t": 0, "step_count": 1}  # fields that count steps, and before the first
FIRST = {"is_initial_step", "is_init_step"}  # whether there was none


def from_optax_state(
    opt_state: Any, params: Any, *, rule: Any = None, step: int | None = None, **override: Any
) -> tuple[Optimizer, State]:
    """The optimizer and state of a run begun in optax, for parameters in any library.

    Taken up are the states of all that ``arrayopt like optax`` lists, and of chains that hold one
    of them, with ``masked``, ``inject_hyperparams``, ``apply_if_finite`` or ``MultiSteps`` around.

    Args:
        opt_state: the state.
        params: the parameters: a tree of arrays of any library, whose paths are those of the
            tree that optax had. The state takes its structure, library and devices.
        rule: ``ao.like("optax", NAME, ...)``, with the options that optax was given; or a name,
            of optax's or ours, such as ``"adamw"``, with options in ``override``. Not needed where
            the state tells it.
        step: the number of steps taken, where optax did not count them. Without it 1 stands for
            any number.
        override: the optimizer's keywords. optax stores none but those that
            ``inject_hyperparams`` holds: by a name, ``lr`` must be given, and all that were not
            at optax's default. A schedule of optax is one here.

    Where optax's own has none, ``weight_decay`` needs ``decay``: ``"coupled"`` where
    ``add_decayed_weights`` stands before the rule, ``"decoupled"`` as in ``optax.adamw``. Nothing
    else of a chain is taken up, such as clipping: do that to the gradients; nor can Nesterov's form
    of Adam be seen, which is the rule ``nadam``.

    Raises:
        CheckpointError: it cannot go on as it would have in optax; the message says why.
    """
    found: dict[str, list[Any]] = {"rules": [], "counts": [], "stateless": [], "options": []}
    _walk(opt_state, found)
    kinds = " ".join(type(x).__name__ for x in found["rules"])
    fits = [who for who, kept in OPTAX.items() if re.fullmatch(kept.states, kinds)]
    if not fits:
        raise CheckpointError(
            f"optax's state holds {kinds.replace(' ', ', ')}, which arrayopt cannot take up"
        )
    plain = [who for who in fits if not OPTAX[who].named]
    rule = plain[0] if rule is None and kinds and len(plain) == 1 else rule
    row, who, options = None, "", {}
    if isinstance(rule, Optimizer):
        who, options = rule.name, rule.options() | override
    elif rule is not None:
        name = rule if isinstance(rule, str) else name_of(rule)
        row, options = _named(name, found["options"], override)
        who = options.pop("rule")
    if who not in fits:
        raise CheckpointError(
            f"optax's state has {kinds or 'no state of a rule'}, which belongs to "
            f"{' or '.join(fits)}: say rule="
        )
    kept = OPTAX[who]
    if row:
        _ask(row, options, len(found["stateless"]) - kept.empty + ("TraceState" in kinds))
    optimizer = bound(who, options)
    fields = {f: getattr(node, f) for node in found["rules"] for f in node._fields}
    counts = {*found["counts"]}
    counts |= {int(number(fields[f])) - zero for f, zero in COUNTS.items() if f in fields}
    if step is None and len(counts) > 1:
        raise CheckpointError(f"optax's counts of steps differ: {sorted(counts)}; give step=")
    if step is None:
        first = any(fields[f] for f in fields.keys() & FIRST)
        step = counts.pop() if counts else int(not first)
    _no_more(optimizer, kept, fields)
    paths, read = Tree(params).paths, keys_read(kept.slots)
    columns = {k: _column(k, x, paths) for k, x in fields.items() if k in read}
    held = {p: {k: column[p] for k, column in columns.items()} for p in paths}
    values = {
        name: {p: x for p in paths if (x := slot_of(made, held[p], optimizer.hyper)) is not None}
        for name, made in kept.slots.items()
    }
    state = state_beside(optimizer, params, step, values, None, paths)
    if kept.shared:
        like = state.shared._asdict()
        new = {k: put_scalar(number(fields[f]), like[k]) for k, f in kept.shared.items()}
        state = state._replace(shared=state.shared._replace(**new))
    return optimizer, state


def _walk(node: Any, found: dict[str, list[Any]]) -> None:
    """The parts of an optax state, by their classes' names and fields."""
    kind, fields = type(node).__name__, getattr(node, "_fields", None)
    if kind in INSIDE:
        if kind.startswith("Inject"):
            found["options"].append(node.hyperparams)
            found["counts"].append(int(number(node.count)))
        if kind == "MultiStepsState" and int(node.mini_step):
            raise CheckpointError(
                f"optax has summed {int(node.mini_step)} gradients for its next step: save it "
                "right after a step"
            )
        _walk(getattr(node, INSIDE[kind]), found)
    elif kind == "PartitionState" and node.inner_states.keys() == {"adam", "muon"}:
        _walk(node.inner_states["muon"], found)
        if any(x.shape for x in Tree(node.inner_states["adam"]).leaves):  # not matrices alone
            _walk(node.inner_states["adam"], found)
    elif kind == "ScaleByScheduleState":
        found["stateless"].append(node)
        found["counts"].append(int(number(node.count)))
    elif fields == ():
        found["stateless"].append(node)
    elif fields is None and isinstance(node, list | tuple):
        for part in node:
            _walk(part, found)
    else:
        found["rules"].append(node)
        _walk(getattr(node, "base_optimizer_state", ()), found)


def _named(name: str, stored: list[Any], override: Any) -> tuple[Row, dict[str, Any]]:
    """An optimizer of optax's and our options for it: what optax stored, its defaults, override."""
    table = load("optax")
    try:
        ours = {row.rule: row for row in table.rows.values()}
        row = ours[name] if name in ours.keys() - table.rows.keys() else find("optax", name)[1]
        known = {*row.defaults, *hyperparameters(rules.find(row.rule)), "weight_decay"}
        values = dict(row.defaults)
        for k, v in (item for options in stored for item in options.items()):
            if k not in known and k not in override:
                raise ValueError(f"optax's hyperparameter {k} is none of {name}")
            values |= {k: number(v)} if k in known else {}
        asked = "learning_rate" in values and values["learning_rate"] in (None, NEEDED)
        values |= {"learning_rate": override.get("lr", 1.0)} if asked or "lr" in override else {}
        options = {"rule": row.rule} | translate(table, row, values)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    return row, {k: x for k, x in options.items() if not asked or k != "lr"} | override


def _ask(row: Row, options: Mapping[str, Any], more: int) -> None:
    """Raise for what optax does not store and the user has not said."""
    if "lr" not in options:
        raise CheckpointError("optax does not store the learning rate: give lr=")
    if "weight_decay" in row.defaults:
        return
    if more > 0 and "weight_decay" not in options:
        raise CheckpointError(
            "optax's chain has a transformation without state, which may be weight decay: "
            "give weight_decay=, 0 if there is none"
        )
    if number(options.get("weight_decay", 0)) != 0 and "decay" not in options:
        raise CheckpointError(
            'with weight_decay say decay="decoupled" (optax.adamw), or "coupled" '
            "(add_decayed_weights before the rule)"
        )


def _no_more(optimizer: Optimizer, kept: Kept, fields: Mapping[str, Any]) -> None:
    """Raise where optax has a slot that the options at hand turn off."""
    blank = optimizer.blank((1,), optimizer.hyper)._asdict()
    off = {k: made for k, made in kept.slots.items() if is_off(blank[k])}
    switches = sorted(optimizer.around.reads["init"])
    if more := keys_read(off) & fields.keys():
        raise CheckpointError(
            f"optax's state holds {', '.join(more)}, for which {optimizer.name} has no slot: optax "
            f"does not store the {' or '.join(switches)}: give {'= or '.join(switches)}="
        )


def _column(field: str, value: Any, paths: list[str]) -> dict[str, Any]:
    """A field of optax's state by parameter: of a tree like the parameters, or one for all."""
    if is_array(value):
        return dict.fromkeys(paths, value)
    tree = Tree(value)
    found: dict[str, list[Any]] = {p: [] for p in paths}
    for path, leaf in zip(tree.paths, tree.leaves, strict=True):
        found.setdefault(path if path in found else path[: path.rindex("[")], []).append(leaf)
    odd = sorted(p for p, x in found.items() if not x or p not in paths)
    if odd:
        whose = "params" if odd[0] in paths else "optax's state"
        raise CheckpointError(
            f"optax's {field} has not the paths of params: {odd[0]} is in {whose} only"
        )
    return {p: x[0] if len(x) == 1 else joined(None, *map(to_numpy, x)) for p, x in found.items()}
