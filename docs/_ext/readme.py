"""``{readme} NumPy``: the README's code below the line that starts so."""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

README = Path(__file__).parent.parent.parent / "README.md"


class Readme(Directive):
    """The code of an example of the README, which is the one source."""

    required_arguments, final_argument_whitespace = 1, True

    def run(self) -> list[nodes.Node]:
        _, *below = README.read_text(encoding="utf-8").split(f"\n{self.arguments[0]}")
        if len(below) != 1:
            raise self.error(f"README.md has {len(below)} lines that start {self.arguments[0]!r}")
        code = re.search(r"^```python\n(.*?)\n```", below[0], re.M | re.S)[1]
        self.state.document.settings.env.note_dependency(str(README))
        return [nodes.literal_block(code, code, language="python")]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("readme", Readme)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
