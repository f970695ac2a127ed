"""The tables of docs/numbers.md: ``arrayopt parity --json | python benchmarks/parity.py``."""

import json
import re
import sys
from pathlib import Path
from typing import Any

from arrayopt import parity

DOCUMENT = Path(__file__).parent.parent / "docs" / "numbers.md"
TABLES = re.compile(r"(?<=<!-- tables -->\n).*?(?=<!-- end -->)", re.S)


def tables(rows: list[dict[str, Any]]) -> str:
    """A table for each dtype: a line for each rule, with what is promised and what was measured."""
    about = "; ".join(dict.fromkeys(row["about"] for row in rows))
    rows = [row for row in rows if row["backend"] != "numpy"]  # which is what the others are beside
    libraries = list(dict.fromkeys(row["backend"] for row in rows))
    lines = []
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        lines += [f"### {dtype}", "", "| rule | promised | " + " | ".join(libraries) + " |"]
        lines += ["|---" * (len(libraries) + 2) + "|"]
        for rule in dict.fromkeys(row["rule"] for row in rows):
            found = {r["backend"]: r for r in rows if (r["rule"], r["dtype"]) == (rule, dtype)}
            cells = [cell(found[x]) if x in found else f"no {dtype}" for x in libraries]
            lines.append(f"| `{rule}` | {promised(rule)} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(["", *lines, f"Versions: {about}.", ""])


def promised(rule: str) -> str:
    """What holds in eager code, and under a compiler where that is another bound."""
    bounds = dict.fromkeys(parity.bound(rule, x, 100) for x in ("strict", "jax"))
    return ", ".join(f"{most:g} {unit}" if most < float("inf") else "none" for unit, most in bounds)


def cell(row: dict[str, Any]) -> str:
    """The distance in the unit in which something is promised."""
    unit = row["bound"].rpartition(" ")[2]
    return row["bound"] if row["ulp"] is None else f"{row[unit]:.2g} {unit}"


if __name__ == "__main__":
    text = DOCUMENT.read_text(encoding="utf-8")
    found = tables(json.load(sys.stdin))
    DOCUMENT.write_text(TABLES.sub(lambda _: found, text), encoding="utf-8")
