"""The site: built as README says, without a warning; whole, and in need of no network."""

import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from conftest import package

import arrayopt as ao
from arrayopt._describe import describe

ROOT = Path(__file__).parent.parent
COMMAND = re.search(r"sphinx-build [^`\n]*", (ROOT / "README.md").read_text())[0]


class Page(HTMLParser):
    """What an HTML page refers to, and what may be referred to in it."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads, self.images = set(), [], [], []
        self.heads, self.tags, self.open, self.title = 0, set(), [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.add(tag)
        self.ids |= {found[k] for k in ("id", "name") if found.get(k)}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link":
            self.loads += [found["href"]] if found["rel"] in ("stylesheet", "preload") else []
        elif "src" in found:
            self.loads.append(found["src"])
        if tag == "img":
            self.images.append(found)
        self.heads += tag == "h1"
        self.open = [tag]

    def handle_data(self, data):
        if self.open == ["title"]:
            self.title += data.strip()

    def handle_endtag(self, tag):
        self.open = []


def check_links(site, pages):
    for file, page in pages.items():
        for target in {*page.links, *page.loads}:
            parts = urlsplit(target)
            if parts.scheme:
                assert parts.scheme in ("http", "https"), (file, target)
                assert re.fullmatch(r"([\w-]+\.)+[a-z]{2,}", parts.netloc), (file, target)
                continue
            found = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            assert found.is_file(), (file.relative_to(site), target)
            if parts.fragment and found in pages:
                assert unquote(parts.fragment) in pages[found].ids, (file, target)


def check_no_network(site, pages):
    for file, page in pages.items():
        assert not [x for x in page.loads if urlsplit(x).netloc], file
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", sheet.read_text()), sheet


def check_rules(site, pages):
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    slots = package("slots")
    torch = package("arrayopt.backends.torch")
    for name in ao.rules.names():
        file = site / "rules" / f"{name}.html"
        text = file.read_text()
        found, rule = describe(name), ao.rules.find(name)
        for word in (*found["hyper"], *found["slots"], f"backends.torch.{slots.torch_class(rule)}"):
            assert f'<span class="pre">{word}</span>' in text or f".{word}</span>" in text, word
        assert slots.torch_class(rule) in torch.CLASSES
        assert {"math", "details"} <= pages[file].tags, name  # a formula, and the source
        (picture,) = (x["src"] for x in pages[file].images if f"{name}.png" in x["src"])
        assert picture in pages[file].links, name  # in full size
    for name in ao.wrappers.names():
        assert site / "wrappers" / f"{name}.html" in pages
    ids = pages[site / "schedules" / "index.html"].ids
    assert {f"arrayopt.schedules.{name}" for name in ao.schedules.__all__} <= ids


def check_front(site, pages):
    text = (site / "index.html").read_text()
    assert text.count("highlight-python") == text.count("sd-tab-label") == 6
    front = pages[site / "index.html"]
    assert front.images
    assert not [x for x in front.links if "_images" in x]  # its picture leads to a page already
    assert (
        'class="reference external" href="https://arxiv.org/abs/1904.09237"'
        in (site / "reproduce" / "mada_counterexample.html").read_text()
    )  # an address in plain text
    assert "precision.html" in pages[site / "api.html"].links  # docs/precision.md of a docstring
    (own,) = (page for file, page in pages.items() if file.name == "own_rule.html")
    assert {"rules/lamb.html", "contributing.html"} <= {*own.links}  # pages, not downloads


def test_the_site_builds_without_a_warning_and_is_whole(tmp_path):
    for name in ("sphinx", "myst_parser", "furo", "sphinx_design", "latex2mathml"):
        package(name)
    program, *options, source, _ = shlex.split(COMMAND)
    assert (program, source) == ("sphinx-build", "docs")
    assert "-W" in options
    site = tmp_path / "site"
    command = [sys.executable, "-m", "sphinx", "-q", *options, source, str(site)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    pages = {f.resolve(): Page(f.read_text()) for f in site.rglob("*.html")}
    site = site.resolve()
    assert len(pages) > len(ao.rules.names()) + len(ao.wrappers.names())
    for file, page in pages.items():
        assert page.title, file
        assert page.heads == (file.name != "search.html"), file
        assert all(x.get("alt") for x in page.images), file
    check_links(site, pages)
    check_no_network(site, pages)
    check_rules(site, pages)
    check_front(site, pages)


def test_formulas_that_cannot_be_shown_are_warnings(monkeypatch):
    nodes = package("docutils.nodes")
    package("latex2mathml")
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    import mathml

    told = []
    monkeypatch.setattr(mathml.logger, "warning", lambda *args, **kwargs: told.append(args))
    two = mathml.mathml(nodes.math_block("", r"a &= b \\ c &= \frac{d}{e}"), block=True)
    assert two.count("<mtr>") == 2
    assert two.count("<mfrac>") == 1
    assert told == []
    for broken in (r"\nosuchcommand x", r"\frac", r"x^a^b"):
        mathml.mathml(nodes.math("", broken), block=False)
        assert told.pop(), broken
