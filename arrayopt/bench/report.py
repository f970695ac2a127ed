"""What :mod:`arrayopt.bench` has measured, as tables, JSON, Markdown and a chart."""

import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .._needs import needed
from . import peers
from . import run as bench
from .run import Case, Promise, Report, Result

PACKAGES = (
    "arrayopt", "numpy", "llvmlite", "torch", "jax", "jaxlib", "optax", "keras",
    "pytorch-optimizer",
)  # fmt: skip
HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
COLUMNS = (
    "rule", "contestant", "ms", "min", "quartiles", "/ best peer", "/ roof",
    "first s", "traced MB", "resident MB",
)  # fmt: skip
UNITS = {"time": "of the time", "memory": "MB", "compile": "s", "start": "s"}
NOTES = (
    "Medians, in ms a step, of turns that alternate. Every contestant has parameters of its own "
    "and the same number of threads; the gradients are the same arrays in each step, but for the "
    "sizes called fresh.",
    "The roof is a loop that reads what the rule reads and writes what it writes, and only adds.",
    "first: seconds of the first step, with compilation. traced: what a step allocates at its peak "
    "(tracemalloc; NumPy only). resident: by how much it raises the process's memory (Linux).",
)
BUSY = 0.5  # threads wait for one another: one that is held up holds up all
QUICK = "A quick run: all sizes are small, so that its times show nothing."


class Sheet(NamedTuple):
    """A table."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def machine() -> dict[str, str]:
    """What the numbers were measured on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    found = {"cpu": model, "cores": f"{os.cpu_count()} cores", "system": platform.platform()}
    if HUGE.exists():
        found["huge pages"] = f"huge pages: {HUGE.read_text().strip()}"
    return found


def versions() -> dict[str, str]:
    """Python's, and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def about(report: Report) -> list[str]:
    """The machine, the versions and how to read the tables."""
    lines = [
        f"{report.date}, {report.threads} threads; " + ", ".join(machine().values()),
        ", ".join(f"{k} {v}" for k, v in versions().items()),
        *NOTES,
    ]
    if report.load is not None and report.load > BUSY:
        lines.insert(0, f"The machine was not quiet: its load was {report.load:.1f} at the start.")
    return [QUICK, *lines] if report.quick else lines


def plain(report: Report) -> dict[str, Any]:
    """All of it, with every time, as plain data."""
    return {
        "date": report.date,
        "quick": report.quick,
        "threads": report.threads,
        "load": report.load,
        "machine": machine(),
        "versions": versions(),
        "results": [r._asdict() for r in report.results],
        "skipped": [s._asdict() for s in report.skipped],
        "compile": report.compile,
        "start": report.start,
        "promises": [{**p._asdict(), "measured": m, "kept": m <= p.limit} for p, m in kept(report)],
    }


def kept(report: Report) -> Iterator[tuple[Promise, float]]:
    """Each promise of which this run has the numbers, and what was measured."""
    for promise in bench.promises():
        measured = report.measured(promise)
        if measured is not None:
            yield promise, measured


def sheets(report: Report) -> list[Sheet]:
    """Promises; a table for each size and dtype; what did not run."""
    found = [_promises(report)]
    for size, dtype in dict.fromkeys((r.size, r.dtype) for r in report.results):
        results = [r for r in report.results if (r.size, r.dtype) == (size, dtype)]
        title = f"{size}, {dtype}: {results[0].elements:,} elements"
        found.append(Sheet(title, COLUMNS, [_row(report, r) for r in results]))
    if report.skipped:
        rows = [tuple(map(str, s)) for s in report.skipped]
        found.append(Sheet("Not run", ("rule", "size", "dtype", "contestant", "why"), rows))
    return found


def _promises(report: Report) -> Sheet:
    rows: list[tuple[str, ...]] = []
    for promise, measured in kept(report):
        verdict = "yes" if measured <= promise.limit else "NO"
        verdict = "not judged" if report.quick else verdict
        limit = f"{promise.limit:g} {UNITS[promise.kind]}"
        if promise.other:
            limit += f" of {promise.other}"
        who = " ".join(filter(None, (promise.rule, promise.size, promise.contestant)))
        rows.append((f"{promise.kind}: {who}", limit, f"{measured:.3g}", verdict))
    return Sheet("Promises, in float32", ("of", "at most", "measured", "kept"), rows)


def _row(report: Report, result: Result) -> tuple[str, ...]:
    case, name = Case(*result[:3]), result.contestant
    ms = [1e3 * t for t in result.times]
    low, _, high = statistics.quantiles(ms, n=4, method="inclusive") if len(ms) > 1 else 3 * ms
    roof = "roof torch" if "torch" in name else "roof numpy"
    best = best_peer(report, case)
    return (
        case.rule,
        name,
        _text(statistics.median(ms)),
        _text(min(ms)),
        f"{_text(low)}-{_text(high)}",
        _text(best and report.ratio(case, name, best)),
        _text(report.ratio(case, name, roof)),
        _text(result.first),
        _text(result.traced),
        _text(result.resident, "not measured"),
    )


def best_peer(report: Report, case: Case) -> str | None:
    """The fastest contestant that is not ours."""
    found = [r for name in peers.PEERS if (r := report.find(case, name))]
    return min(found, key=lambda r: statistics.median(r.times)).contestant if found else None


def _text(x: Any, missing: str = "") -> str:
    if x is None:
        return missing
    return f"{x:.0f}" if abs(x) >= 1000 else f"{x:.3g}"


def markdown(report: Report) -> str:
    """The tables for a page of the documentation."""
    parts = ["\n".join(f"{line}  " for line in about(report))]
    for sheet in sheets(report):
        lines = [sheet.columns, ("---",) * len(sheet.columns), *sheet.rows]
        table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        parts.append(f"## {sheet.title}\n\n{table}")
    return "\n\n".join(parts) + "\n"


def check_files(*, to_json: Path | None, chart: Path | None, to_markdown: Path | None) -> None:
    """Tell of a file that cannot be written before anything runs."""
    for option, file in (("--json", to_json), ("--chart", chart), ("--markdown", to_markdown)):
        if file is not None and not file.parent.is_dir():
            raise ValueError(f"{option} needs a file in a folder that is there: {file}")
    if chart is not None and chart.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"--chart needs a .png, .pdf or .svg file: {chart}")
    if chart is not None:
        needed("--chart", "matplotlib", "plot")


def write(
    report: Report, *, to_json: Path | None, chart: Path | None, to_markdown: Path | None
) -> None:
    """The files that are asked for."""
    if to_json is not None:
        to_json.write_text(json.dumps(plain(report), indent=1), encoding="utf-8")
    if to_markdown is not None:
        to_markdown.write_text(markdown(report), encoding="utf-8")
    if chart is not None:
        draw(report, chart)


def draw(report: Report, file: Path) -> None:
    """Adam beside torch's fused one, size by size; every rule beside its roof."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    sizes = [s for s in bench.SIZES if report.find(Case("adam", s, "float32"), "torch fused")]
    ours = ["arrayopt numpy fused", "arrayopt torch"]
    names = [*ours, "arrayopt jax", "torch foreach", "optax", "keras"]
    bars = {
        n: [report.ratio(Case("adam", s, "float32"), n, "torch fused") for s in sizes]
        for n in names
    }
    _bars(left, sizes, bars, "Adam: time / torch.optim fused")
    found = [r for r in report.results if r.contestant == "roof numpy" and r.dtype == "float32"]
    size = "40M" if any(r.size == "40M" for r in found) else found[0].size if found else ""
    chosen = [r.rule for r in found if r.size == size]
    bars = {
        n: [report.ratio(Case(r, size, "float32"), n, f"roof {n.split()[1]}") for r in chosen]
        for n in ours
    }
    _bars(right, chosen, bars, f"{size}: time / roof")
    figure.savefig(file)


def _bars(axes: Any, groups: list[str], bars: dict[str, list[float | None]], title: str) -> None:
    width = 0.8 / len(bars)
    for i, (name, heights) in enumerate(bars.items()):
        there = [(k + i * width, h) for k, h in enumerate(heights) if h is not None]
        if there:
            axes.bar([x for x, _ in there], [h for _, h in there], width, label=name)
    middle = (len(bars) - 1) / 2 * width
    axes.set_xticks([k + middle for k in range(len(groups))], groups, rotation=30, ha="right")
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_title(title)
    if groups:
        axes.legend(loc="upper left")
