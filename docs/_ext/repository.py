"""A link to a file of the repository, good where it is read as it is, leads to that file's page.

So does ``docs/precision.md`` in a docstring; and a picture leads to itself in full size.
"""

import posixpath
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.osutil import relative_uri

FILES = re.compile(r"\]\(\.\./(CONTRIBUTING|CHANGELOG)\.md\)")
MODULES = re.compile(r"\]\(\.\./arrayopt/(rules|wrappers|schedules)(?:/([a-z]\w*)\.py)?\)")
PAGES = re.compile(r"(``|)\bdocs/([\w/]+)\.md\1")


def relink(app: Sphinx, name: str, source: list[str]) -> None:
    text = FILES.sub(lambda found: f"]({found[1].lower()}.md)", source[0])
    source[0] = MODULES.sub(lambda found: f"]({found[1]}/{found[2] or 'index'}.rst)", text)


def pages(text: str) -> str:
    """A docstring whose ``docs/NAME.md`` are references."""
    return PAGES.sub(r":doc:`/\2`", text)


def relink_docstring(app: Sphinx, *args: Any) -> None:
    lines = args[-1]
    lines[:] = pages("\n".join(lines)).split("\n")


def enlarge(app: Sphinx, doctree: nodes.document, name: str) -> None:
    """Each picture that is no link yet becomes one to its file."""
    if app.builder.format != "html":
        return
    folder = relative_uri(app.builder.get_target_uri(name), "_images")
    for image in list(doctree.findall(nodes.image)):
        if not linked(image):
            _, file = app.env.images[image["uri"]]
            link = nodes.reference("", "", internal=True, refuri=posixpath.join(folder, file))
            image.replace_self(link)
            link.append(image)


def linked(node: nodes.Node) -> bool:
    """Whether a node stands in a link."""
    while node is not None and not isinstance(node, nodes.reference):
        node = node.parent
    return node is not None


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", relink)
    app.connect("autodoc-process-docstring", relink_docstring)
    app.connect("doctree-resolved", enlarge)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
