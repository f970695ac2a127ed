"""Every rule of the catalogue against the frameworks' own optimizers.

``python tests/test_catalogue.py`` writes what is measured to docs/oracles.md.
"""

import ast
import collections
import functools
import importlib
import inspect
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import reference
import test_oracles
from oracle import STEPS, TOLERANCE, Oracle, run_optax, torch_oracle

import arrayopt as ao
from arrayopt._schema import title_of

HERE = Path(__file__).parent
TABLE = HERE.parent / "docs" / "oracles.md"
FAMILIES = [importlib.import_module(f.stem) for f in sorted(HERE.glob("oracles_*.py"))]
ORACLES: list[Oracle] = [oracle for family in FAMILIES for oracle in family.ORACLES]


def name(oracle: Oracle) -> str:
    return f"{oracle.rule}-{oracle.against}".replace(" ", "").replace("::", ":")


@pytest.mark.parametrize(("rule", "oracle"), [pytest.param(o.rule, o, id=name(o)) for o in ORACLES])
def test_equal_to_the_frameworks_own(rule: str, oracle: Oracle) -> None:
    assert rule == oracle.rule
    assert oracle.bound == 1e-12 or oracle.why
    assert oracle.error() < oracle.bound


def elsewhere() -> list[Oracle]:
    """The oracles of ``test_oracles.py`` and the transcriptions of ``reference.py``."""
    found = [torch_oracle(*case) for case in _arranged(test_oracles.TORCH)]
    spelled = _spelled()
    for case, (rule, options, make) in test_oracles.OPTAX.items():
        run = functools.partial(run_optax, make)
        found.append(Oracle(rule, options, spelled[case], run))
    for rule in reference.RULES:
        run = functools.partial(in_50_digits, rule)
        found.append(Oracle(rule, {}, "the paper's formula in 50-digit arithmetic", run))
    return found


def _arranged(cases: dict[str, tuple]) -> list[tuple]:
    return [(rule, ours, cls, theirs) for rule, cls, ours, theirs in cases.values()]


def _spelled() -> dict[str, str]:
    """The transformations of ``test_oracles.OPTAX`` as they are written there."""
    tree = ast.parse((HERE / "test_oracles.py").read_text())
    named = [x for x in tree.body if isinstance(x, ast.Assign)]
    (table,) = (x.value for x in named if ast.unparse(x.targets[0]) == "OPTAX")
    found = {}
    for key, value in zip(table.keys, table.values, strict=True):
        body = ast.unparse(value.elts[2].body)
        found[key.value] = re.sub(r"\bo\.", "optax.", body)
    return found


def in_50_digits(rule: str, params: dict, grads: list[dict]) -> np.ndarray:
    """A rule of ``reference.py`` over the problem."""
    keys = sorted(params)
    rows = [[np.ravel(g[k]) for k in keys] for g in grads]
    path = reference.run(rule, [np.ravel(params[k]) for k in keys], rows).params
    return np.array([[float(x) for p in step for x in p] for step in path])


def every() -> list[Oracle]:
    """All, each once: the rules, then those in wrappers."""
    found = {(o.rule, o.against, remarks(o), repr(o.options)): o for o in (*ORACLES, *elsewhere())}
    return sorted(found.values(), key=lambda o: ("+" in o.rule, o.rule))


KINDS = {  # see ``oracle.problem``
    "pauses": "",
    "dense": "no gradient is 0",
    "matrices": "other shapes, no gradient is 0",
    "tensors": "up to three axes, gradients of one magnitude",
}


def remarks(oracle: Oracle) -> str:
    """In which way the problem, or what is compared, is not the usual, and why the bound is."""
    words = [KINDS[oracle.kind]]
    if type(oracle) is not Oracle:
        about = inspect.getdoc(type(oracle)) or ""
        words.append(about[:1].lower() + about[1:].splitlines()[0].rstrip(".").replace("``", "`"))
    if oracle.steps != STEPS:
        words.append(f"{oracle.steps} steps")
    if getattr(oracle.theirs, "keywords", {}).get("wide"):
        words.append("float64 as torch's default dtype")
    words.append(oracle.why)
    return "; ".join(filter(None, words))


def line(oracle: Oracle, error: float) -> str:
    """A row of the table of the oracle's rule."""
    return f"| {error:.1e} | {_rest(oracle)}"


def _rest(oracle: Oracle) -> str:
    cells = (f"{oracle.bound:.0e}", f"`{oracle.against}`", remarks(oracle))
    return " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def written(errors: dict[int, float]) -> str:
    """The page, from the error of each oracle by its place in ``every()``."""
    found = [(oracle, errors[i]) for i, oracle in enumerate(every())]
    lines = [HEAD]
    for oracle, error in found:
        if oracle.bound > TOLERANCE:
            cells = (f"{error:.1e}", f"{oracle.bound:.0e}", f"`{oracle.against}`", oracle.why)
            lines.append(f"| [`{oracle.rule}`](#{anchor(oracle.rule)}) | {' | '.join(cells)} |")
    for rule, those in itertools.groupby(found, lambda pair: pair[0].rule):
        lines += ["", f"## `{rule}`", "", *COLUMNS, *(line(*pair) for pair in those)]
    return "\n".join(lines) + "\n"


def anchor(rule: str) -> str:
    return rule.replace("+", "")


COLUMNS = ("| error | bound | against | remarks |", "|---|---|---|---|")
HEAD = """# Oracles

Every rule beside optimizers that others have written, in float64, over the same gradients: elements
of 1e-6 to 1e3, some 0 in the first step, some for ever. Nothing of this library runs on the other
side. The error is the largest difference of any element in any of 30 steps, in units of the largest
value that the element had; the bound is what the tests allow; the remarks say where the problem, or
what is compared, is another. Each rule is also broken in every way that `tests/mutants.py` knows,
and the same comparisons must fail.

Written by `python tests/test_catalogue.py`.

## Looser than 1e-12

The bound is 1e-12 everywhere but here, where it is for what the other side does in fewer bits, or
where no more is in the formula:

| rule | error | bound | against | why |
|---|---|---|---|---|"""


def test_the_table_in_the_documents_is_of_these_oracles() -> None:
    """All but the errors, which are below the bounds."""
    text = TABLE.read_text()
    _, *sections = re.split(r"^## `(.*)`$", text, flags=re.M)
    found = []
    for rule, body in zip(sections[::2], sections[1::2], strict=True):
        for error, rest in re.findall(r"^\| ([\d.e+-]+) \| (.*)$", body, re.M):
            found.append((rule, float(error), rest))
    assert [(rule, rest) for rule, _, rest in found] == [(o.rule, _rest(o)) for o in every()]
    assert all(error < o.bound for (_, error, _), o in zip(found, every(), strict=True))
    assert text == written({i: error for i, (_, error, _) in enumerate(found)})


def test_no_two_rows_of_the_table_say_the_same() -> None:
    labels = collections.Counter((o.rule, o.against, remarks(o)) for o in every())
    assert [label for label, times in labels.items() if times > 1] == []


def test_every_rule_and_wrapper_has_an_oracle() -> None:
    """But one that was dropped into the folder and is none of ours."""
    known = {part for oracle in every() for part in oracle.rule.split("+")}
    missing = [r for r in ao.rules.names() if r not in known and not r.startswith("temporary_")]
    assert missing == [], [title_of(ao.rules.find(r)) for r in missing]
    assert set(ao.wrappers.names()) <= known


if __name__ == "__main__":
    measured = {}
    for i, oracle in enumerate(every()):
        measured[i] = oracle.error()
        print(oracle.rule, line(oracle, measured[i]), flush=True)
    TABLE.write_text(written(measured))
