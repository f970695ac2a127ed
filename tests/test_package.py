"""The package: what it loads, what it ships, what its documents claim."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import arrayopt as ao

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


def blocks(document):
    text = (ROOT / document).read_text()
    return re.findall(r"```python\n(.*?)```", text, re.S)


@pytest.mark.parametrize("document", ["README.md", *sorted(
    p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").glob("*.md"))])  # fmt: skip
def test_code_in_documents_runs(document, tmp_path):
    together = []
    for code in blocks(document):
        if "import cupy" in code:
            compile(code, document, "exec")  # it needs a GPU
        elif "XLA_FLAGS" in code or "__main__" in code:  # read at the start; starts processes
            python(code, cwd=tmp_path)
        else:
            together.append(code)
    # each with no names but its own
    python(f"for code in {together!r}: exec(code, {{'__name__': '__main__'}})", cwd=tmp_path)


def test_readme_shows_running_code_by_line_15():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert any(line.startswith("```python") for line in lines[:15])


def test_the_documents_name_every_rule():
    text = (ROOT / "docs" / "oracles.md").read_text()
    assert [r for r in ao.rules.names() if f"`{r}`" not in text] == []
