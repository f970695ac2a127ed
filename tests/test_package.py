"""The package: what it loads, what it ships, what its documents claim."""

import importlib
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

import arrayopt as ao
from arrayopt import parity

ROOT = Path(__file__).parent.parent
FRAMEWORKS = ("torch", "jax", "cupy", "dask", "mlx", "numba", "optax", "safetensors", "sklearn",
              "typer", "rich", "matplotlib")  # fmt: skip


def python(code, **kwargs):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, **kwargs
    )
    return done.stdout


def test_import_loads_no_framework():
    code = (
        "import sys, arrayopt as ao, numpy as np; o = ao.Optimizer('adam'); p = np.ones(2);"
        f"o.step(p, p, o.init(p)); print([m for m in {FRAMEWORKS} if m in sys.modules])"
    )
    assert python(code).strip() == "[]"


@pytest.mark.parametrize("name", ["numpy", "torch", "jax", "dask", "mlx", "strict"])
def test_a_backend_loads_only_its_own_framework(name):
    from conftest import adapter

    adapter(name)
    code = (
        f"import sys, arrayopt.backends.{name};print([m for m in {FRAMEWORKS} if m in sys.modules])"
    )
    loaded = set(eval(python(code)))
    also = {"jax": "optax", "dask": "cupy"}  # Dask looks for CuPy itself
    assert loaded <= {name, also.get(name, name)}


def test_import_takes_under_150_ms_beyond_numpy():
    code = (
        "import numpy, time; t = time.process_time(); import arrayopt;"
        "print(time.process_time() - t)"
    )
    assert min(float(python(code)) for _ in range(5)) < 0.150


def test_backends_is_not_a_global_package():
    code = "import backends"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    beside = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert "import arrayopt.backends, not backends" in beside.stderr


def test_wheel_holds_every_module_and_nothing_else(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    inside = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    own = {p.relative_to(ROOT).as_posix() for p in (ROOT / "arrayopt").rglob("*.py")
           if "backends" not in p.parts}  # fmt: skip
    own |= {f"arrayopt/backends/{p.name}" for p in (ROOT / "backends").glob("*.py")}
    assert inside == own | {"arrayopt/py.typed"}


def test_rules_are_one_screen_and_import_only_helpers():
    for name in ao.rules.names():
        text = (ROOT / "arrayopt" / "rules" / f"{name}.py").read_text()
        imports = set(re.findall(r"^from (\S+) import|^import (\S+)", text, re.M))
        allowed = {"functools", "math", "typing", ".._math", ".._types", ".maxva_madam"}
        assert {a or b for a, b in imports} <= allowed, name
        code = text.split('"""', 2)[2]
        whole = "def share(" in code  # state of the whole optimizer takes three more functions
        most = 170 if name == "mada" else 120 if whole else 100
        assert len(code.splitlines()) <= most, name


DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *sorted(
    p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md"))]  # fmt: skip


def fences(document):
    """Language and content of every fenced block, without its indentation."""
    text = (ROOT / document).read_text()
    found = re.findall(r"^( *)```([^`\n]*)\n(.*?)^\1```$", text, re.M | re.S)
    assert 2 * len(found) == len(re.findall(r"^ *```", text, re.M)), document
    return [(language, textwrap.dedent(code)) for _, language, code in found]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_code_in_documents_runs(document, tmp_path):
    together = []
    for language, code in fences(document):
        assert language in ("python", "sh", "text") or language[:1] == "{", language
        if language != "python":
            continue
        if file := re.match(r"# (\w+\.py)\n", code):  # a file that later blocks import
            (tmp_path / file[1]).write_text(code)
        if "import cupy" in code:
            compile(code, document, "exec")  # it needs a GPU
        elif "XLA_FLAGS" in code or "__main__" in code:  # read at the start; starts processes
            python(code, cwd=tmp_path)
        else:
            together.append(code)
    if together:  # each with no names but its own
        python(f"for code in {together!r}: exec(code, {{'__name__': '__main__'}})", cwd=tmp_path)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files_of_the_repository(document):
    text = re.sub(r"```.*?```", "", (ROOT / document).read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (ROOT / document).parent.joinpath(target).exists(), target


def commands(document):
    """Every command of the shell that a document shows, split into words."""
    text = (ROOT / document).read_text()
    lines = [line for language, code in fences(document) if language == "sh"
             for line in code.replace("\\\n", " ").splitlines()]  # fmt: skip
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    lines += [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", prose)
              if re.match(r"(arrayopt|pip|pytest|python|sphinx-build) [^|]*$", span)]  # fmt: skip
    for line in lines:
        for one in re.split(r"&&|;|\|", line.partition(" #")[0]):
            if words := shlex.split(one):
                yield words


def check_command(words, arrayopt):
    """Raise where a command, one of its options or a file that it names is not there."""
    program, *args = words
    if program == "arrayopt":
        name, *args = args
        command = arrayopt.commands[name]
        if "--help" not in args:
            command.make_context(name, args)
    elif program == "pip":
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for extras in re.findall(r"^(?:\.|arrayopt)\[(.*)\]$", "\n".join(args), re.M):
            assert {*extras.split(",")} <= known["optional-dependencies"].keys(), extras
    elif program in ("python", "python3"):
        assert args[0] == "-m" or (ROOT / args[0]).is_file(), args
    else:
        assert program in (".", "pytest", "sphinx-build", ".ci/run"), program


def test_commands_in_documents_are_there():
    typer = pytest.importorskip("typer.main")
    from arrayopt.cli import app

    arrayopt = typer.get_command(app)
    found = [(d, words) for d in DOCUMENTS for words in commands(d)]
    assert {"arrayopt", "pip", "python", "pytest", "sphinx-build"} <= {w[0] for _, w in found}
    for document, words in found:
        try:
            check_command(words, arrayopt)
        except Exception as error:
            raise AssertionError(f"{document}: {shlex.join(words)}: {error!r}") from None


def test_a_rule_that_a_newcomer_wrote_is_grams(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    Grams = pytest.importorskip("pytorch_optimizer").Grams
    (code,) = (c for _, c in fences("docs/own_rule.md") if c.startswith("# grams.py"))
    (tmp_path / "grams.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    assert len([line for line in code.splitlines() if line.strip()]) <= 25
    opt = ao.Optimizer(importlib.import_module("grams"), lr=0.1, b1=0.8, weight_decay=0.01)
    torch.manual_seed(0)
    params = {"w": torch.randn(50, dtype=torch.float64)}
    theirs = params["w"].clone().requires_grad_()
    other = Grams([theirs], lr=0.1, betas=(0.8, 0.999), weight_decay=0.01)
    state = opt.init(params)
    for _ in range(20):
        theirs.grad = torch.randn(50, dtype=torch.float64)
        params, state = opt.step(params, {"w": theirs.grad}, state)
        other.step()
        np.testing.assert_allclose(params["w"], theirs.detach(), rtol=1e-12, atol=1e-12)


def test_readme_shows_running_code_by_line_15():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert any(line.startswith("```python") for line in lines[:15])


def own_rules():
    """All but one that another test has dropped into the folder."""
    return [name for name in ao.rules.names() if not name.startswith("temporary_")]


def test_the_documents_name_every_rule():
    text = (ROOT / "docs" / "oracles.md").read_text()
    assert [r for r in own_rules() if f"## `{r}`" not in text] == []


def test_what_the_documents_say_of_parity_keeps_the_promises():
    text = (ROOT / "docs" / "numbers.md").read_text().partition("<!-- tables -->")[2]
    *_, head = re.findall(r"^\| rule \| promised \| (.*) \|$", text, re.M)
    libraries, found = head.split(" | "), {}
    for rule, cells in re.findall(r"^\| `(\w+)` \| [^|]+ \| (.*) \|$", text, re.M):
        found.setdefault(rule, []).append(cells.split(" | "))
    assert found.keys() == {*own_rules()}
    for rule in own_rules():
        assert len(found[rule]) == 2  # float32 and float64
        cells = [cell for row in found[rule] for cell in row]
        for library, cell in zip(2 * libraries, cells, strict=True):
            number, _, unit = cell.partition(" ")
            if number not in ("no", "has"):  # no such dtype, or a function that the library lacks
                named, most = parity.bound(rule, library, 100)
                assert unit == named, (rule, library)
                assert float(number) <= most, (rule, library)


def test_readme_has_every_extra_and_the_counts_are_current():
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "README.md").read_text()
    table = re.search(r"<!-- extras -->\n(.*?)<!-- end -->", text, re.S)[1]
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == [*known["optional-dependencies"]]

    def takes(rule):
        try:
            return bool(ao.Optimizer(rule, complex="modulus"))
        except TypeError:
            return False

    names = own_rules()
    counts = f"{sum(map(takes, names))} of the {len(names)} rules"
    assert counts in (ROOT / "docs" / "complex.md").read_text()
