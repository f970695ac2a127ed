"""Every rule of the catalogue against the frameworks' own optimizers.

``python tests/test_catalogue.py`` writes what is measured to docs/oracles.md.
"""

import ast
import functools
import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import reference
import test_oracles
from oracle import Oracle, run_optax, torch_oracle

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


def rows() -> list[tuple[str, str, float, str]]:
    """Rule, against what, bound and its reason: the table without what is measured."""
    every = sorted([*ORACLES, *elsewhere()], key=lambda o: o.rule)
    return [(o.rule, o.against, o.bound, o.why) for o in every]


def written() -> str:
    every = sorted([*ORACLES, *elsewhere()], key=lambda o: o.rule)
    lines = [HEAD]
    for oracle in every:
        against = oracle.against.replace("|", "\\|")
        bound = f"{oracle.bound:.0e}" + (f": {oracle.why}" if oracle.why else "")
        lines.append(f"| `{oracle.rule}` | `{against}` | {oracle.error():.1e} | {bound} |")
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


HEAD = """# Oracles

Every rule beside optimizers that others have written, in float64, over the same gradients: elements
of 1e-6 to 1e3, some 0 in the first step, some for ever. Nothing of this library runs on the other
side. The error is the largest difference of any element in any of 30 steps, in units of the largest
value that the element had; the bound is what the tests allow. Each rule is also broken in every way
that `tests/mutants.py` knows, and the same comparisons must fail.

Written by `python tests/test_catalogue.py`.

| rule | against | error | bound |
|---|---|---|---|"""


def test_the_table_in_the_documents_is_of_these_oracles() -> None:
    lines = TABLE.read_text().splitlines()
    found = [line for line in lines if line.startswith("| `")]
    assert len(found) == len(rows())
    for line, (rule, against, bound, why) in zip(found, rows(), strict=True):
        against = against.replace("|", "\\|")
        assert line.startswith(f"| `{rule}` | `{against}` |")
        assert line.endswith(f"| {bound:.0e}{f': {why}' if why else ''} |")
        assert float(re.findall(r"\| ([\d.e+-]+) \|", line)[0]) < bound


def test_every_rule_and_wrapper_has_an_oracle() -> None:
    """But one that was dropped into the folder and is none of ours."""
    known = {part for rule, *_ in rows() for part in rule.split("+")}
    missing = [r for r in ao.rules.names() if r not in known and not r.startswith("temporary_")]
    assert missing == [], [title_of(ao.rules.find(r)) for r in missing]
    assert set(ao.wrappers.names()) <= known


if __name__ == "__main__":
    TABLE.write_text(written())
