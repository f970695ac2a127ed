"""A link to a file of the repository, good where it is read as it is, leads to that file's page."""

import re
from typing import Any

from sphinx.application import Sphinx

FILES = re.compile(r"\]\(\.\./(CONTRIBUTING|CHANGELOG)\.md\)")
MODULES = re.compile(r"\]\(\.\./arrayopt/(rules|wrappers|schedules)(?:/([a-z]\w*)\.py)?\)")


def relink(app: Sphinx, name: str, source: list[str]) -> None:
    text = FILES.sub(lambda found: f"]({found[1].lower()}.md)", source[0])
    source[0] = MODULES.sub(lambda found: f"]({found[1]}/{found[2] or 'index'}.rst)", text)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", relink)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
