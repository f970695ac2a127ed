"""``arrayopt like``: what the frameworks' optimizers are here."""

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from . import FRAMEWORKS, find, load, spelled


def like(
    framework: Annotated[str | None, typer.Argument(help=f"{', '.join(FRAMEWORKS)}.")] = None,
    name: Annotated[str | None, typer.Argument(help="One optimizer, with its options.")] = None,
) -> None:
    """A framework's optimizers, and what they are here."""
    console = Console()
    if framework is None:
        for each in FRAMEWORKS:
            console.print(f"{each}: {', '.join(load(each).rows)}\n", highlight=False)
        console.print("arrayopt like FRAMEWORK says what these are here.")
        return
    names = load(framework)
    if name is not None:
        where, row = find(framework, name)
        columns = (where, "default there", f"here: {row.rule}")
        table = Table(*(Column(c, overflow="fold") for c in columns))
        for option, default in row.defaults.items():
            table.add_row(option, escape(repr(default)), escape(spelled(names, row, option)))
        for option, value in row.fixed.items():
            table.add_row("", "always", escape(f"{option}={value!r}"))
        console.print(table)
        console.print(escape(row.note))
        return
    for where, rows in names.modules.items():
        head = (Column(where, no_wrap=True), Column("rule", overflow="fold"))
        noted = any(row.fixed or row.note for row in rows.values())
        rest = [Column("always, and what remains different", overflow="fold")] * noted
        table = Table(*head, *rest, title=f"{where}: its optimizers here", title_justify="left")
        for each, row in rows.items():
            fixed = ", ".join(f"{k}={v!r}" for k, v in row.fixed.items())
            about = "; ".join(filter(None, (fixed, row.note)))
            table.add_row(each, row.rule, *[escape(about)] * noted)
        console.print(table)
    for each, why in names.absent.items():
        console.print(escape(f"{each} has no counterpart: {why}"), highlight=False)
    console.print(f'ao.like("{framework}", NAME, ...) makes one, from its own options.')
