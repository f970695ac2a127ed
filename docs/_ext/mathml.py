"""Formulas as MathML, which browsers show themselves: no script, no font, no network."""

import html
import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def mathml(node: Any, *, block: bool) -> str:
    """The formula of a node; lines that are aligned by & or broken by \\\\ in one table."""
    latex = re.sub(r"(?<!\\)\\\n", r"\\ ", node.astext().strip())  # the converter wants a space
    latex = latex.replace("{aligned}", "{align*}")  # which it knows
    if block and ("&" in latex or r"\\" in latex) and r"\begin" not in latex:
        latex = rf"\begin{{align*}}{latex}\end{{align*}}"
    try:
        found = convert(latex, display="block" if block else "inline")
    except Exception as error:  # whatever a broken formula makes the converter raise
        logger.warning("formula %r: %r", latex, error, location=node)
        return html.escape(latex)
    if "\\" in html.unescape(found):
        logger.warning("formula %r: a command is not known", latex, location=node)
    return found


def inline(self: Any, node: nodes.math) -> None:
    self.body.append(mathml(node, block=False))
    raise nodes.SkipNode


def displayed(self: Any, node: nodes.math_block) -> None:
    label = f' id="{node["ids"][0]}"' if node.get("ids") else ""
    self.body.append(f'<div class="math"{label}>{mathml(node, block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (inline, None), (displayed, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
