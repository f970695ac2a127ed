"""Every rule of the catalogue against the frameworks' own; ``python tests/test_catalogue.py``
writes what was found to docs/oracles.md."""

import importlib
from pathlib import Path

import pytest
from oracle import Oracle

HERE = Path(__file__).parent
FAMILIES = [importlib.import_module(f.stem) for f in sorted(HERE.glob("oracles_*.py"))]
ORACLES: list[Oracle] = [oracle for family in FAMILIES for oracle in family.ORACLES]


def name(oracle: Oracle) -> str:
    return f"{oracle.rule}-{oracle.against}".replace(" ", "").replace("::", ":")


@pytest.mark.parametrize(("rule", "oracle"), [pytest.param(o.rule, o, id=name(o)) for o in ORACLES])
def test_equal_to_the_frameworks_own(rule: str, oracle: Oracle) -> None:
    assert rule == oracle.rule
    assert oracle.bound == 1e-12 or oracle.why
    assert oracle.error() < oracle.bound
