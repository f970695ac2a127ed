"""Pieces of reStructuredText."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

Row = Sequence[str]


def heading(text: str, line: str) -> str:
    """A title with its line below it: ``=`` of a page, ``-`` of a section."""
    return f"{text}\n{line * len(text)}\n"


def code(value: object) -> str:
    """A value as it is written in Python."""
    return f"``{value}``"


def indented(text: str, by: int = 3) -> str:
    return "\n".join(" " * by + line if line else "" for line in text.split("\n"))


def table(head: Row, rows: Iterable[Row]) -> str:
    """A table; cells are reStructuredText of one line."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (head, *rows):
        lines += [f"   {'  ' if i else '* '}- {cell}" for i, cell in enumerate(row)]
    return "\n".join(lines) + "\n"


def from_markdown(cell: str) -> str:
    """A cell of a Markdown table, of plain text and code."""
    parts = re.split(r"`([^`]*)`", cell)
    return "".join(code(p.strip()) if i % 2 else escaped(p) for i, p in enumerate(parts))


def escaped(text: str) -> str:
    """Plain text, in which nothing is markup."""
    return re.sub(r"([\\*`|_])", r"\\\1", text)


class Table(NamedTuple):
    """A table of a Markdown page, and the heading that it stands under."""

    under: str
    head: Row
    rows: list[Row]


def markdown_tables(page: Path) -> list[Table]:
    """All tables of a Markdown page."""
    found: list[Table] = []
    inside, under = False, ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            under = line.lstrip("# ").replace("`", "")
        if line.startswith("|"):
            cells = [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]]
            if not inside:
                found.append(Table(under, cells, []))
            elif not set("".join(cells)) <= set("-: "):  # the line below the head
                found[-1].rows.append(cells)
        inside = line.startswith("|")
    return found
