"""``arrayopt like``: what the frameworks' optimizers are here."""

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import FRAMEWORKS, find, load, spelled


def like(
    framework: Annotated[str, typer.Argument(help=f"{', '.join(FRAMEWORKS)}.")],
    name: Annotated[str | None, typer.Argument(help="One optimizer, with its options.")] = None,
) -> None:
    """A framework's optimizers, and what they are here."""
    console = Console()
    names = load(framework)
    if name is not None:
        where, row = find(framework, name)
        table = Table(where, "default there", f"here: {row.rule}")
        for option, default in row.defaults.items():
            table.add_row(option, escape(repr(default)), escape(spelled(names, row, option)))
        for option, value in row.fixed.items():
            table.add_row("", "always", escape(f"{option}={value!r}"))
        console.print(table)
        console.print(escape(row.note))
        return
    table = Table(framework, "rule", "always", "note")
    for where, rows in names.modules.items():
        for each, row in rows.items():
            fixed = ", ".join(f"{k}={v!r}" for k, v in row.fixed.items())
            table.add_row(f"{where}.{each}", row.rule, escape(fixed), escape(row.note))
    console.print(table)
    for each, why in names.absent.items():
        console.print(escape(f"{each} has no counterpart: {why}"), highlight=False)
    console.print(f'ao.like("{framework}", NAME, ...) makes one, from its own options.')
