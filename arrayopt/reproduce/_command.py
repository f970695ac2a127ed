"""``arrayopt reproduce``: run an experiment, write its numbers and its picture."""

import inspect
import os
from pathlib import Path
from typing import Annotated, Any

import rich.progress
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .._needs import needed
from . import find, names
from ._record import dumps, record

EXTRAS = {"jax": "jax", "optax": "jax", "sklearn": "cli", "torch": "torch"}  # what installs it


def reproduce(
    name: Annotated[str | None, typer.Argument(help="The experiment; without it, a list.")] = None,
    output: Annotated[Path, typer.Option(help="The folder for NAME.json and NAME.png.")] = Path(),
    seed: Annotated[int, typer.Option(min=0)] = 0,
    quick: Annotated[bool, typer.Option(help="Does it run? Short, into NAME-quick.*")] = False,
) -> None:
    """Run an experiment of a rule's paper: numbers beside the paper's, a picture, a JSON file."""
    console = Console()
    if name is None:
        table = Table("experiment", "what it is")
        for each in names():
            table.add_row(each, escape(title(find(each))))
        console.print(table)
        return
    experiment = find(name)
    if not output.is_dir() or not os.access(output, os.W_OK):
        raise ValueError(f"--output needs a folder that is there and can be written to: {output}")
    needed("reproduce", "matplotlib", "plot")
    columns = ("{task.description}", rich.progress.BarColumn(), "{task.fields[note]}")
    bar = rich.progress.Progress(
        *columns, rich.progress.TimeElapsedColumn(), console=Console(stderr=True)
    )
    with bar:
        task = bar.add_task(name, total=1.0, note="")

        def tell(done: float, note: str) -> None:
            bar.update(task, completed=done, note=note)

        try:
            numbers = record(experiment, tell, seed=seed, quick=quick)
        except ModuleNotFoundError as error:
            package = str(error.name).partition(".")[0]
            extra = EXTRAS.get(package)
            install = f'"arrayopt[{extra}]"' if extra else package
            raise ImportError(f"{name} needs {package}: pip install {install}") from error
        tell(1.0, "")
    head = title(experiment) + ("\nquick: that it runs is all that this shows" if quick else "")
    table = Table("", "paper", "here", title=escape(head), title_justify="left")
    for row in experiment.table(numbers):
        table.add_row(*map(escape, row))
    console.print(table)
    for file in write(experiment, numbers, output / (f"{name}-quick" if quick else name)):
        console.print(f"written: {file}", highlight=False, soft_wrap=True)


def title(experiment: Any) -> str:
    """The first line of its docstring."""
    return (inspect.getdoc(experiment) or "").split("\n")[0]


def write(experiment: Any, numbers: dict[str, Any], stem: Path) -> tuple[Path, Path]:
    """``STEM.json`` and ``STEM.png``."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", dpi=150)
    experiment.draw(numbers, figure)
    found = stem.with_suffix(".json"), stem.with_suffix(".png")
    found[0].write_text(dumps(numbers) + "\n", encoding="utf-8")
    figure.savefig(found[1])
    return found
