"""The rules and problems in JavaScript, for the page ``play.md``."""

import json
from pathlib import Path
from typing import Any

import in_javascript
from sphinx.application import Sphinx

from arrayopt.race import problems, run

FILE = "_static/play-rules.js"


def script() -> str:
    """``RULES``, ``PROBLEMS``, and ``RATES``: the learning rate of each rule on each problem."""
    rules = in_javascript.sources()
    rates = {name: {p: run.tuned(name, p) for p in problems.PROBLEMS} for name in rules}
    found = {name: in_javascript.problem(p) for name, p in problems.PROBLEMS.items()}
    return "\n".join(
        (
            "// Written from arrayopt/rules/*.py by docs/_ext/in_javascript.py.",
            '"use strict";',
            f"const RULES = {{\n{_members(rules)}\n}};",
            f"const PROBLEMS = {{\n{_members(found)}\n}};",
            f"const RATES = {json.dumps(rates)};",
            "",
        )
    )


def _members(found: dict[str, str]) -> str:
    return ",\n".join(f"{json.dumps(name)}: {text}" for name, text in found.items())


def write(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        (Path(app.outdir) / FILE).write_text(script(), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
