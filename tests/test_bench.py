"""The benchmark: that it measures what it says. Its times are looked at elsewhere."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import adapter, package

import arrayopt as ao
from arrayopt._schema import rounds
from arrayopt._step import is_elementwise
from arrayopt.bench import measure, peers
from arrayopt.bench import problem as problems
from arrayopt.bench import report as sheets
from arrayopt.bench import run as bench
from arrayopt.fuse.trace import signature, trace

pytest.importorskip("llvmlite")
KEYS = {"to_json": "bench.json", "chart": "bench.png", "to_markdown": "bench.md"}


@pytest.fixture(scope="module")
def report():
    """A quick run of all."""
    adapter("torch")
    package("optax")
    found = bench.Report(quick=True, threads=2)
    todo = bench.cases()
    assert len(list(bench.run(found, todo))) == len(todo) + 1
    return found


def test_a_quick_run_has_every_promise(report):
    measured = [report.measured(p) for p in bench.promises()]
    assert len(measured) > 70
    for promise, value in zip(bench.promises(), measured, strict=True):
        assert value is not None, promise
        assert value > 0, promise


def test_what_cannot_run_says_why(monkeypatch):
    """A package that is not there; a peer that fails. What is ours must not."""
    adapter("torch")
    broken = {"torch fused": lambda _: 1 / 0}
    monkeypatch.setattr(peers, "CONTESTANTS", peers.CONTESTANTS | broken)
    monkeypatch.setitem(peers.NEEDS, "foreach", ("no_such_package",))
    found, todo = bench.Report(quick=True, threads=1), bench.cases(["sgd"], ["10x100"], ["float32"])
    list(bench.run(found, todo))
    assert {s.contestant: s.reason for s in found.skipped} == {
        "torch fused": "ZeroDivisionError: division by zero",
        "torch foreach": "no_such_package is not installed",
    }
    broken["arrayopt torch"] = broken["torch fused"]
    monkeypatch.setattr(peers, "CONTESTANTS", peers.CONTESTANTS | broken)
    with pytest.raises(ZeroDivisionError):
        list(bench.run(found, todo))


def test_what_the_memory_cannot_hold_is_left_out(monkeypatch):
    case, found = bench.Case("adam", "10M", "float32"), bench.Report(quick=False, threads=1)
    all_of_them = bench._fitting(found, case, 10_000_000)
    monkeypatch.setattr(measure, "available", lambda: 9 * 120e6)
    some = bench._fitting(found, case, 10_000_000)
    assert len(some) == 7
    assert set(some) < set(all_of_them)
    assert {s.contestant for s in found.skipped} == set(all_of_them) - set(some)
    monkeypatch.setattr(measure, "available", lambda: 0)
    assert bench._fitting(found, case, 10_000_000) == []


def test_every_result_has_its_rounds(report):
    for r in report.results:
        assert len(r.times) == 2
        assert min(r.first, r.number, *r.times) > 0
        assert r.elements <= 100_000
        assert (r.traced is not None) == ("numpy" in r.contestant)


def test_turns_alternate():
    turns, calls, runners = [], [], {}
    for name in "abc":
        entry = problems.Entry(lambda name=name: calls.append(name), list, list)
        runners[name] = measure.Runner(entry, fresh=False, pace=measure.QUICK)
    calls.clear()
    measure.race(runners, 4, turns)
    assert "".join(turns) == "abcbcacababc"
    assert "".join(calls) == "aabbccbbccaaccaabbaabbcc"  # one untimed step, and one timed
    assert all(len(one.times) == 4 for one in runners.values())


def test_a_slow_contestant_has_fewer_turns():
    turns, entry = [], problems.Entry(lambda: None, list, list)
    pace = measure.QUICK
    runners = {n: measure.Runner(entry, fresh=True, pace=pace) for n in ("slow", "fast")}
    runners["slow"].spent = 1e9
    measure.race(runners, 9, turns)
    assert (turns.count("slow"), turns.count("fast")) == (3, 9)


def test_ratios_are_of_the_same_rounds():
    found = bench.Report(quick=True, threads=1)
    case = bench.Case("adam", "10M", "float32")
    for name, times in (("a", [3.0, 9.0, 6.0]), ("b", [2.0, 1.0, 2.0, 50.0, 50.0])):
        found.results.append(bench.Result(*case, 1, name, 1.0, 1, times, None, None))
    assert found.ratio(case, "a", "b") == 3.0
    assert found.ratio(case, "a", "c") is None


def problem(rule, dtype="float32"):
    """Gradients that are not small beside an epsilon, which has not the same place everywhere."""
    rng, kind = np.random.default_rng(0), "float64" if dtype == "float64" else "float32"
    params = [rng.standard_normal(s).astype(kind) for s in ((30, 4), (50,))]
    grads = [rng.uniform(0.5, 2, p.shape) * rng.choice([-1.0, 1.0], p.shape) for p in params]
    return problems.Problem(rule, dtype, 2, params, [g.astype(kind) for g in grads])


def after_a_step(name, one):
    if lacks := peers.missing(name):
        pytest.skip(f"{lacks} is not installed")
    entry = peers.CONTESTANTS[name](one)
    before = [np.array(x) for x in entry.params()]
    entry.step()
    return before, entry.params()


@pytest.mark.parametrize("name", [*peers.OURS, *peers.PEERS])
def test_contestants_compute_the_rule(name):
    adapter("torch")
    with problems.same_threads(2):
        for rule in (*bench.MEASURED, "lamb", "muon", "polyak_sgd"):
            if peers.takes_part(name, rule, "float32"):
                want = after_a_step("arrayopt numpy eager", problem(rule))[1]
                before, got = after_a_step(name, problem(rule))
                for old, a, b in zip(before, got, want, strict=True):
                    assert np.abs(a - b).max() < 1e-6, rule
                    moved = np.abs(a - old)
                    assert (moved.min() if rule in bench.MEASURED else moved.max()) > 1e-5, rule


@pytest.mark.parametrize("name", ["arrayopt torch", "torch fused"])
def test_bfloat16_is_of_torch_alone(name):
    adapter("torch")
    before, got = after_a_step(name, problem("adam", "bfloat16"))
    assert all(np.any(a != b) for a, b in zip(before, got, strict=True))
    assert not peers.takes_part("arrayopt numpy fused", "adam", "bfloat16")


def test_jax_is_in_64_bits_only_for_float64():
    adapter("jax")
    one = problem("adam", "float64")
    got = after_a_step("optax", one)[1]
    one.close()
    want = after_a_step("arrayopt numpy eager", problem("adam", "float64"))[1]
    assert got[0].dtype == np.float64
    assert np.abs(got[0] - want[0]).max() < 1e-12
    assert after_a_step("optax", problem("adam"))[1][0].dtype == np.float32


@pytest.mark.parametrize("name", ["arrayopt numpy fused", "arrayopt torch", "torch foreach"])
def test_fresh_gradients_are_elsewhere_and_the_same(name):
    adapter("torch")
    got = []
    for fresh in (False, True):
        entry = peers.CONTESTANTS[name](problem("adam"))
        for _ in range(3):
            if fresh:
                entry.feed()
            entry.step()
        got.append(entry.params())
    assert all(np.array_equal(a, b) for a, b in zip(*got, strict=True))


@pytest.mark.usefixtures("elementwise")
@pytest.mark.parametrize("what", ["move", "measure"])
def test_a_roof_moves_the_arrays_of_its_rule(rule, what):
    optimizer, params = ao.Optimizer(rule), np.ones(8, np.float32)
    if what == "measure" and not hasattr(optimizer.rule, "measure"):
        return
    state = optimizer.init(params)
    part = optimizer.plan(params, params, state, {}).parts[0]
    program = trace(what, optimizer.around, signature(optimizer.around, part), state.shared)
    top = problems.roof_program(program)

    arrays = tuple(x for x in program.inputs if not x.single)  # one value for all costs nothing
    names = {x.name for x in arrays}

    def read(p):
        return {node.data for node in p.nodes if node.op == "input"} & names

    assert top.inputs == arrays
    assert read(top) == read(program)
    assert [name for name, _ in top.stores] == [name for name, _ in program.stores]
    assert bool(top.sums) == bool(program.sums)
    assert sum(n.op == "add" for n in top.nodes) == len(read(top)) - 1
    assert {n.op for n in top.nodes} <= {"input", "add", "astype"}


def test_a_roof_adds():
    adapter("torch")
    for name, dtype in (("roof numpy", "float32"), ("roof torch", "float64")):
        one = problem("sgd", dtype)
        before, got = after_a_step(name, one)
        for p, g, new in zip(before, one.grads, got, strict=True):
            assert np.array_equal(new, p + g)


@pytest.mark.parametrize(
    ("kind", "name"), [("chosen", "adm"), ("sizes", "10Q"), ("dtypes", "float8")]
)
def test_an_unknown_name_is_told(kind, name):
    with pytest.raises(ValueError, match=name):
        bench.cases(**{kind: [name]})


def test_cases_are_chosen():
    assert {c.rule for c in bench.cases()} == {*bench.MEASURED}
    assert {c.size for c in bench.cases(["adam"])} == {*bench.SIZES}
    assert bench.cases(["yogi"], ["gpt2"], ["float64"]) == [("yogi", "gpt2", "float64")]
    assert {c.size for c in bench.cases(["yogi"])} == {"10M", "40M"}
    assert sum(np.prod(s) for s in bench.SIZES["gpt2"]) == 124_439_808
    assert len(bench.SIZES["gpt2"]) == 148


def test_memory_is_seen():
    def step():
        np.ones(20_000_000, np.uint8)

    assert 20 <= measure.traced(step) < 21
    resident = measure.resident(step)
    assert resident is None or 15 < resident < 40


def test_files(report, tmp_path):
    pytest.importorskip("matplotlib")
    files = {k: tmp_path / name for k, name in KEYS.items()}
    sheets.check_files(**files)
    sheets.write(report, **files)
    plain = json.loads(files["to_json"].read_text())
    assert len(plain["results"]) == len(report.results)
    assert len(plain["promises"]) == len(bench.promises())
    assert plain["quick"] is True
    assert plain["machine"]["cpu"]
    assert plain["versions"]["numpy"] == np.__version__
    text = files["to_markdown"].read_text()
    assert text.startswith(sheets.QUICK)
    for sheet in sheets.sheets(report):
        assert f"## {sheet.title}\n" in text
        assert all(len(row) == len(sheet.columns) for row in sheet.rows)
    assert files["chart"].read_bytes().startswith(b"\x89PNG")


def test_a_file_that_cannot_be_written_is_told(tmp_path):
    none = dict.fromkeys(KEYS)
    with pytest.raises(ValueError, match="folder that is there"):
        sheets.check_files(**none | {"to_json": tmp_path / "no" / "a.json"})
    with pytest.raises(ValueError, match=r"--chart needs a \.png"):
        sheets.check_files(**none | {"chart": tmp_path / "a.gif"})


def test_the_document_has_rules_beside_their_roofs():
    text = (Path(__file__).parent.parent / "docs" / "roofs.md").read_text()
    number = r"([\d.]+) \| "
    found = re.findall(rf"\| `(\w+)` \| (\d) \| {4 * number}", text)
    rules = {r for r in ao.rules.names() if is_elementwise(ao.rules.find(r))}
    assert len(found) > 50
    assert {name for name, *_ in found} <= rules
    head = text.partition("| rule |")[0]
    for name, passes, time, memory, arithmetic, ratio in found:
        assert int(passes) == 1 + len(rounds(ao.rules.find(name)))
        larger = max(float(memory), float(arithmetic))
        assert float(ratio) == pytest.approx(float(time) / larger, rel=0.05)
        assert (float(ratio) > 1.3) == (f"`{name}` ({ratio})" in head)
        assert float(ratio) < 1.6
