"""The experiments run, and their pages say what their numbers say.

``python tests/test_reproduce.py`` writes the tables of ``docs/reproduce/*.md`` anew from the JSON
files beside them, which ``arrayopt reproduce NAME --output docs/reproduce`` has written.
"""

import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from arrayopt import cli, reproduce

PAGES = Path(__file__).parent.parent / "docs" / "reproduce"
PLACE = re.compile(r"(<!-- table -->\n).*?(<!-- end -->)", re.DOTALL)


def written(name: str) -> str:
    """The experiment's page, with the table of its numbers in its place."""
    rows = reproduce.find(name).table(json.loads((PAGES / f"{name}.json").read_text()))
    lines = ["| | paper | here |", "|---|---|---|", *("| " + " | ".join(r) + " |" for r in rows)]
    page = (PAGES / f"{name}.md").read_text()
    assert PLACE.search(page)
    return PLACE.sub(lambda m: m[1] + "\n".join(lines) + "\n" + m[2], page)


@pytest.mark.parametrize("name", reproduce.names())
def test_the_page_says_what_the_numbers_say(name):
    page = (PAGES / f"{name}.md").read_text()
    assert page == written(name)
    assert f"arrayopt reproduce {name}" in page
    assert f"({name}.png)" in page
    assert (PAGES / f"{name}.png").stat().st_size < 400_000


@pytest.mark.parametrize("name", reproduce.names())
def test_runs_from_one_command(name, tmp_path):
    command = ["reproduce", name, "--quick", "--output", str(tmp_path)]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    numbers = json.loads((tmp_path / f"{name}.json").read_text())
    recorded = json.loads((PAGES / f"{name}.json").read_text())
    assert numbers.keys() == recorded.keys()
    assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_a_mistake_is_told():
    done = CliRunner().invoke(cli.app, ["reproduce", "mada_counter"])
    assert isinstance(done.exception, ValueError)
    assert "did you mean" in str(done.exception)
    missing = CliRunner().invoke(cli.app, ["reproduce", reproduce.names()[0], "--output", "/no"])
    assert "--output" in str(missing.exception)


def test_a_package_that_is_missing_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "jax", None)
    command = ["reproduce", "maxva_stochastic", "--quick", "--output", str(tmp_path)]
    done = CliRunner().invoke(cli.app, command)
    assert "maxva_stochastic needs jax: pip install" in str(done.exception)
    assert not list(tmp_path.iterdir())


if __name__ == "__main__":
    for each in reproduce.names():
        (PAGES / f"{each}.md").write_text(written(each))
