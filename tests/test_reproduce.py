"""The experiments run, and their pages say what their numbers say.

``python tests/test_reproduce.py`` writes the tables of ``docs/reproduce/*.md`` anew from the JSON
files beside them, which ``arrayopt reproduce NAME --output docs/reproduce`` has written.
"""

import inspect
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from arrayopt import cli, reproduce
from arrayopt.reproduce._record import dumps

PAGES = Path(__file__).parent.parent / "docs" / "reproduce"
PLACE = re.compile(r"(<!-- table -->\n).*?(<!-- end -->)", re.DOTALL)


def plain(settings: dict) -> dict:
    """As JSON has it."""
    return json.loads(json.dumps(settings))


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
def test_the_record_is_of_these_settings(name):
    experiment, text = reproduce.find(name), (PAGES / f"{name}.json").read_text()
    recorded = json.loads(text)
    assert recorded["settings"] == plain(experiment.SETTINGS)
    assert recorded["seed"] == 0
    assert {"arrayopt", "numpy"} <= recorded["versions"].keys()
    assert experiment.QUICK.keys() < experiment.SETTINGS.keys()
    assert text == dumps(recorded) + "\n"
    assert len(text) < 300_000


@pytest.mark.parametrize("name", reproduce.names())
def test_no_function_reads_a_number_from_elsewhere(name):
    """Than from the settings that it is given: of the module's constants, none with a number."""
    module = reproduce.find(name)
    todo = [f.__code__ for f in vars(module).values() if inspect.isfunction(f)]
    read = set()
    while todo:
        code = todo.pop()
        read |= set(code.co_names)
        todo += [c for c in code.co_consts if inspect.iscode(c)]
    constants = {k for k, v in vars(module).items() if k.isupper() and numeric(v)}
    assert {"SETTINGS", "QUICK"} <= constants
    assert not read & constants


def numeric(value) -> bool:
    inside = value.values() if isinstance(value, dict) else value
    many = type(value) in (dict, list, tuple, np.ndarray)
    return any(map(numeric, inside)) if many else isinstance(value, float | int)


@pytest.mark.parametrize("name", reproduce.names())
def test_runs_from_one_command(name, tmp_path):
    command = ["reproduce", name, "--quick", "--output", str(tmp_path)]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    numbers = json.loads((tmp_path / f"{name}-quick.json").read_text())
    recorded = json.loads((PAGES / f"{name}.json").read_text())
    assert numbers.keys() == recorded.keys()
    experiment = reproduce.find(name)
    assert numbers["settings"] == plain(experiment.SETTINGS | experiment.QUICK)
    assert (tmp_path / f"{name}-quick.png").read_bytes()[:4] == b"\x89PNG"


def test_a_mistake_is_told():
    done = CliRunner().invoke(cli.app, ["reproduce", "mada_counter"])
    assert isinstance(done.exception, ValueError)
    assert "did you mean" in str(done.exception)
    missing = CliRunner().invoke(cli.app, ["reproduce", reproduce.names()[0], "--output", "/no"])
    assert "--output" in str(missing.exception)


@pytest.mark.parametrize(
    ("name", "missing", "install"),
    [
        ("maxva_stochastic", "jax", '"arrayopt[jax]"'),
        ("transformer", "sklearn", '"arrayopt[cli]"'),
        ("rosenbrock", "unheard_of", "unheard_of"),
    ],
)
def test_a_package_that_is_missing_is_told(name, missing, install, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "unheard_of":  # by something that no extra installs

        def run(*_, **__):
            import unheard_of.deep  # noqa: F401

        monkeypatch.setattr(reproduce.find(name), "run", run)
    done = CliRunner().invoke(cli.app, ["reproduce", name, "--quick", "--output", str(tmp_path)])
    assert str(done.exception) == f"{name} needs {missing}: pip install {install}"
    assert not list(tmp_path.iterdir())


def test_numbers_are_written_one_line_for_each_list():
    numbers = {"a": [1, 2.5, "[x] {y}\n"], "b": {"c": [[], [{}]], "d": {"e": None}}}
    text = dumps(numbers)
    assert json.loads(text) == numbers
    assert text.split("\n")[1] == r' "a": [1, 2.5, "[x] {y}\n"],'
    assert ' "d": {"e": null}' in text


if __name__ == "__main__":
    for each in reproduce.names():
        (PAGES / f"{each}.md").write_text(written(each))
