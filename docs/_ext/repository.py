"""Pages of the repository's own files: a link to ``../CONTRIBUTING.md`` leads to its page here."""

from typing import Any

from sphinx.application import Sphinx

PAGES = {"../CONTRIBUTING.md": "contributing.md", "../CHANGELOG.md": "changelog.md"}


def relink(app: Sphinx, name: str, source: list[str]) -> None:
    for file, page in PAGES.items():
        source[0] = source[0].replace(f"]({file})", f"]({page})")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", relink)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
