"""``arrayopt race``: rules over a two-dimensional problem."""

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .._arguments import assignment, words
from .._needs import needed
from ..optimizer import Optimizer
from . import draw, problems, run


def race(
    names: Annotated[str, typer.Option("--rules", help="Comma-separated.")] = "sgd,adam,madam",
    problem: Annotated[str, typer.Option(help=f"{', '.join(problems.PROBLEMS)}.")] = "rosenbrock",
    steps: Annotated[int, typer.Option(min=1)] = run.STEPS,
    lr: Annotated[
        float | None, typer.Option(help="For all; without it, each rule's best of a grid.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--set", help="A hyperparameter of all: --set b1=0.8")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help=f"A .png, .pdf or .svg file, of {draw.MOST} rules at most.")
    ] = None,
    animate: Annotated[
        Path | None, typer.Option(help=f"A .gif or .webp file, of {draw.MOST} rules at most.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Let rules race over a problem of two variables: numbers, a picture, an animation."""
    where = problems.find(problem)
    chosen = list(dict.fromkeys(words(names)))
    draw.check_file("--output", output, (".png", ".pdf", ".svg"))
    draw.check_file("--animate", animate, (".gif", ".webp"))
    if output or animate:
        draw.check_number(len(chosen))
        needed("race", "matplotlib", "plot")
    hyper = dict(map(assignment, option or ()))
    if "lr" in hyper:
        raise ValueError("race: the learning rate is --lr's")
    check_all(hyper, chosen)
    rates = {r: run.tuned(r, where, steps, **hyper) if lr is None else lr for r in chosen}
    paths = {r: run.trajectory(r, where, steps, rates[r], **hyper) for r in chosen}
    found = {r: outcome(where, rates[r], paths[r]) for r in chosen}
    if as_json:
        whole = {r: row | {"path": numbers(paths[r])} for r, row in found.items()}
        print(json.dumps({"problem": problem, "steps": steps, "set": hyper, "rules": whole}))
    else:
        title = f"{problem}, {steps} steps"
        table = Table("rule", "learning rate", "value at the end", "from the minimum", title=title)
        for r, row in found.items():
            table.add_row(r, f"{row['lr']:g}", *(cell(row[k]) for k in ("value", "distance")))
        Console().print(table)
    shown = {f"{r}, lr {rates[r]:g}": path for r, path in paths.items()}
    for file, make in ((output, draw.picture), (animate, draw.animation)):
        if file is not None:
            make(shown, where, file)
            Console(stderr=True).print(f"written: {file}", highlight=False, soft_wrap=True)


def check_all(hyper: dict[str, Any], chosen: list[str]) -> None:
    """Raise for a hyperparameter that some of the rules have, and some have not."""
    known = {r: Optimizer(r).options() for r in chosen}
    for name in hyper:
        lacking = [r for r in chosen if name not in known[r]]
        if 0 < len(lacking) < len(chosen):
            has = "has" if len(lacking) == 1 else "have"
            who = " and ".join(lacking)
            raise ValueError(
                f"--set is for all rules, and {who} {has} no {name}; choose with --rules"
            )


def outcome(problem: problems.Problem, lr: float, path: Any) -> dict[str, float | None]:
    """Where a run ended; None for what is not finite."""
    value, distance = math.nan, math.nan
    if math.isfinite(path[-1].sum()):
        value = float(problem.value(*path[-1]))
        distance = math.dist(path[-1], problem.minimum)
    return {"lr": lr, "value": finite(value), "distance": finite(distance)}


def numbers(path: Any) -> list[list[float | None]]:
    return [[finite(x) for x in point] for point in path.tolist()]


def finite(x: float) -> float | None:
    return x if math.isfinite(x) else None


def cell(x: float | None) -> str:
    return "not finite" if x is None else f"{x:.3g}"
