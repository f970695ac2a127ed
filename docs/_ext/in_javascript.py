"""The catalogue's rules and the race's problems as JavaScript, for the page that runs them."""

import json
import math
from typing import Any

import optree
from javascript import XP, Array, Script, Unwritable, literal

import arrayopt as ao
from arrayopt import rules
from arrayopt._schema import WEIGHT_DECAY, each_step, hyperparameters, title_of
from arrayopt._step import Part, evaluate, is_off, keep
from arrayopt._types import Range
from arrayopt.race import problems
from arrayopt.race._rates import WRAPPED


def sources() -> dict[str, str]:
    """For each rule that can be written so, an object of JavaScript; for the others, none."""
    found = {}
    for name in sorted((*rules.names(), *WRAPPED)):
        try:
            found[name] = rule(name)
        except Unwritable:
            continue
    return found


def rule(name: Any) -> str:
    """One rule: what it is, its numbers, and its functions.

    ``init(s, h)`` and ``step(s, g, t, h, value)`` give a new state: x, y, then the slots and what
    is shared, all flat; ``at(s, t, h)`` gives the point to evaluate at. ``h`` has the
    hyperparameters.
    """
    opt = ao.Optimizer(name)
    hyper = hyperparameters(opt.rule) | {"weight_decay": WEIGHT_DECAY}
    hyper = {k: h for k, h in hyper.items() if not h.each_step}
    numbers = [k for k, h in hyper.items() if isinstance(h.legal, Range) and is_number(h.default)]
    script = Script()

    def values() -> dict[str, Any]:
        return opt.hyper | {k: Array(script, script.value(f"h.{k}")) for k in numbers}

    def given(*names: str) -> Array:
        return Array(script, [script.value(n) for n in names])

    param = given("s[0]", "s[1]")
    slots = opt.start(param, keep(opt.around, "init", values()), XP)
    shared: Any = ()
    if hasattr(opt.rule, "share"):
        start = opt.rule.share(**keep(opt.around, "share", values()))
        shared = optree.tree_map(lambda x: as_array(script, x), start)
    state = [param, *slots, *optree.tree_leaves(shared)]
    init = function(script, "s, h", state)

    script = Script()
    param, place = given("s[0]", "s[1]"), 2

    def again(x: Any) -> Any:
        nonlocal place
        if is_off(x):
            return x
        names = [f"s[{i}]" for i in range(place, place + x.size)]
        place += x.size
        return Array(script, [script.value(n) for n in names]).reshaped(x.shape)

    slots = opt.rule.State(*map(again, slots))
    shared = optree.tree_map(again, shared)
    known, t = values(), Array(script, script.value("t"))
    at = param
    if hasattr(opt.rule, "evaluate"):
        at = evaluate(opt.around, param, slots, t, known, xp=XP)
    look = function(script, "s, t, h", [at])
    known |= {k: Array(script, script.value(k)) for k in each_step(opt.rule)}
    part = Part("p", param, given("g[0]", "g[1]"), slots, known, t, decays=True)
    ((new, after),), shared = opt.moved([part], shared, XP)
    step = function(script, "s, g, t, h, value", [new, *after, *optree.tree_leaves(shared)])
    told = {k: {"default": hyper[k].default, **interval(hyper[k].legal)} for k in numbers}
    about = json.dumps({"title": title_of(opt.rule), "hyper": told})[1:-1]
    return f'{{{about},\n"init": {init},\n"step": {step},\n"at": {look}}}'


def problem(one: problems.Problem) -> str:
    """One problem: its value and gradient, and where to look at it."""
    functions = []
    for call in (one.value, one.gradient):
        script = Script()
        x, y = (Array(script, script.value(n)) for n in "xy")
        functions.append(function(script, "x, y", call(x, y)))
    about = json.dumps({"formula": one.formula, "start": one.start, "box": one.box,
                        "minimum": one.minimum})[1:-1]  # fmt: skip
    return f'{{{about},\n"value": {functions[0]},\n"gradient": {functions[1]}}}'


def function(script: Script, takes: str, results: Any) -> str:
    """A function that gives a list of all elements, or the one of a single array."""
    if isinstance(results, Array):
        flat, form = elements(results), "{}"
    else:
        flat, form = [x for one in results for x in elements(one)], "[{}]"
    return f"({takes}) => {{\n{script.text(flat)}\nreturn {form.format(', '.join(flat))};\n}}"


def interval(legal: Range) -> dict[str, Any]:
    """An interval as data; an end that is infinite is null."""
    low, high = (x if math.isfinite(x) else None for x in legal.bounds)
    closed = [legal.text[0] == "[", legal.text[-1] == "]"]
    return {"legal": str(legal), "low": low, "high": high, "closed": closed}


def is_number(x: Any) -> bool:
    return isinstance(x, float) and math.isfinite(x)


def elements(x: Any) -> list[str]:
    """An array's elements in order; none of a slot that is off."""
    return [] if is_off(x) else list(x.items.flat)


def as_array(script: Script, x: Any) -> Array:
    return x if isinstance(x, Array) else Array(script, literal(x))
