"""The command ``arrayopt``: list and show rules, train a network, check parity."""

import inspect
import json
import math
from pathlib import Path
from typing import Annotated, Any

from . import backends, parity, rules, wrappers
from ._arguments import assignment, words
from ._describe import describe
from ._needs import needed
from ._plain import plain
from ._version import __version__
from .bench import report
from .bench import run as bench
from .optimizer import Optimizer

try:
    import rich.progress
    import typer
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from ._like.command import like
    from .race._command import race
    from .race.draw import check_file
    from .reproduce._command import reproduce
except ImportError as error:
    raise SystemExit(f'the command line needs: pip install "arrayopt[cli]" ({error})') from None

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("like")(like)
app.command("race")(race)
app.command("reproduce")(reproduce)
console = Console()
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.callback(invoke_without_command=True)
def tell(version: Annotated[bool, typer.Option("--version", help="Print it.")] = False) -> None:
    """Optimizer update rules, written once for every array library."""
    if version:
        print(f"arrayopt {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command; a wrong argument is one line, not a traceback."""
    try:
        app()
    except (ValueError, TypeError, ImportError, OSError) as error:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        raise SystemExit(2) from None


@app.command("list")
def list_rules(as_json: Json = False) -> None:
    """Every rule: its paper, memory and hyperparameters."""
    found = [describe(name) for name in rules.names()]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    about = Column("what it is, its paper, its hyperparameters", overflow="fold")
    table = Table(Column("rule", no_wrap=True), "bytes", about, show_lines=True)
    for r in found:
        hyper = ", ".join(f"{k}={h['default']} {h['legal']}" for k, h in r["hyper"].items())
        table.add_row(r["rule"], str(r["bytes"]), escape(f"{r['title']}\n{r['url']}\n{hyper}"))
    console.print(table)
    console.print("bytes: state per float32 parameter with the default options")
    console.print("also: " + "; ".join(f"{k} is {v}" for k, v in rules.OTHERS.items()))
    console.print(f"around any rule, as in adam+ema: {', '.join(wrappers.names())}")


@app.command()
def show(rule: str) -> None:
    """One rule in full: formula, source, deviations, state, hyperparameters."""
    found = describe(rule)
    text = plain(inspect.getdoc(rules.find(rule)) or "")
    console.print(escape(text), highlight=False, soft_wrap=True)
    console.print(f"\nWeight decay is {found['decay']} unless asked otherwise.")
    console.print(f"State per parameter: {', '.join(found['slots'])}; {found['bytes']} bytes each "
                  "float32 element with the default options.")  # fmt: skip
    table = Table("hyperparameter", "default", "legal")
    for k, h in found["hyper"].items():
        table.add_row(k, str(h["default"]), escape(h["legal"]))
    console.print(table)


@app.command()
def train(
    rule: Annotated[str, typer.Option(help="The rule; see `arrayopt list`.")] = "madam",
    backend: Annotated[
        str, typer.Option(help=f"{', '.join(backends.PACKAGES)}, or all.")
    ] = "numpy",
    epochs: Annotated[int, typer.Option(min=1)] = 100,
    batch: Annotated[int, typer.Option(min=1, max=1400, help="Images in a step.")] = 64,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    lr: Annotated[float | None, typer.Option(help="First learning rate; it falls to 0.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--set", help="A hyperparameter: --set b1=0.8")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the curves into this file.")] = None,
    as_json: Json = False,
) -> None:
    """Train a small network on the handwritten digits that scikit-learn ships."""
    from .train import train as run

    hyper = dict(map(assignment, option or ())) | ({} if lr is None else {"lr": lr})
    Optimizer(rule, **hyper)  # a mistake is told before anything runs
    check_file("--plot", plot, (".png", ".pdf", ".svg"))
    if plot is not None:
        needed("--plot", "matplotlib", "plot")
    curves: dict[str, list[Any]] = {}
    for name in _usable(backend):
        about = backends.load(name).about()
        with _progress(as_json) as bar:
            task = bar.add_task(f"{rule} on {about}", total=epochs, note="")
            curves[name] = []
            for e in run(rule, name, epochs=epochs, batch=batch, seed=seed, **hyper):
                curves[name].append(e)
                note = f"loss {e.loss:.4f}  test accuracy {e.accuracy:.1%}"
                bar.update(task, advance=1, note=note)
    if plot is not None:
        _draw(curves, rule, plot)
    if as_json:
        print(json.dumps({k: [e._asdict() for e in c] for k, c in curves.items()}))
        return
    table = Table("backend", "training loss", "test accuracy", "seconds")
    for name, c in curves.items():
        e = c[-1]
        table.add_row(name, f"{e.loss:.9f}", f"{e.accuracy:.2%}", f"{e.seconds:.1f}")
    console.print(table)


@app.command("parity")
def check_parity(
    names: Annotated[str, typer.Option("--rules", help="Comma-separated.")] = "all",
    on: Annotated[str, typer.Option("--backends", "--backend", help="Comma-separated.")] = "all",
    dtype: Annotated[str, typer.Option(help="Comma-separated.")] = "float32,float64",
    steps: Annotated[int, typer.Option(min=1)] = 100,
    as_json: Json = False,
) -> None:
    """Do all libraries compute the same numbers? Exit status 1 where a bound is broken."""
    chosen = rules.names() if names == "all" else words(names)
    libraries = _usable(on)
    dtypes = words(dtype)
    for name in chosen:
        rules.find(name)
    for d in dtypes:
        if d not in ("float16", "bfloat16", "float32", "float64"):
            raise ValueError(f"no dtype is named {d!r}")
    total = len(chosen) * sum(d in backends.load(b).DTYPES for b in libraries for d in dtypes)
    if not total:
        raise ValueError(f"none of {', '.join(libraries)} has {', '.join(dtypes)}")
    rows: list[parity.Row] = []
    with _progress(as_json) as bar:
        task = bar.add_task("parity", total=total, note="")
        for row in parity.run(chosen, libraries, dtypes, steps):
            rows.append(row)
            bar.update(task, advance=1, note=f"{row.rule} {row.backend} {row.dtype}")
    broken = [r for r in rows if not r.kept]
    if as_json:
        print(json.dumps([r._asdict() for r in rows]))
    else:
        for d in dtypes:
            console.print(_parity_table([r for r in rows if r.dtype == d], d, steps))
        for library in sorted({r.about for r in rows}):
            console.print(f"  {library}", highlight=False)
        console.print(
            "Largest distance to NumPy in the same dtype after any step: ulp over parameters and "
            "slots,\nor, where that is not promised, eps of the largest magnitude each element had."
        )
        red, green = f"[red]{len(broken)} bounds broken[/red]", "[green]every bound kept[/green]"
        console.print(red if broken else green)
    raise typer.Exit(1 if broken else 0)


@app.command("bench")
def benchmark(
    names: Annotated[str, typer.Option("--rules", help="Comma-separated.")] = "all",
    sizes: Annotated[str, typer.Option(help=f"{', '.join(bench.SIZES)}, or all.")] = "all",
    dtypes: Annotated[str, typer.Option(help=f"{', '.join(bench.DTYPES)}, or all.")] = "all",
    threads: Annotated[int | None, typer.Option(min=1, help="Of all; by default, cores.")] = None,
    quick: Annotated[bool, typer.Option(help="Small and short: does it run?")] = False,
    to_json: Annotated[Path | None, typer.Option("--json", help="Every time.")] = None,
    chart: Annotated[Path | None, typer.Option(help="A .png, .pdf or .svg file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="The tables.")] = None,
) -> None:
    """Time the engines beside other libraries, and beside what the memory allows."""
    files = {"to_json": to_json, "chart": chart, "to_markdown": markdown}
    report.check_files(**files)
    needed("bench", "llvmlite", "bench")
    chosen = [None if x == "all" else words(x) for x in (names, sizes, dtypes)]
    found, todo = bench.Report(quick, threads), bench.cases(*chosen)
    with _progress(False) as bar:
        task = bar.add_task("bench", total=len(todo) + 1, note="")
        for i, note in enumerate(bench.run(found, todo)):
            bar.update(task, completed=i, note=note)
        bar.update(task, completed=len(todo) + 1, note="")
    for sheet in report.sheets(found):
        columns = (Column(c, overflow="fold") for c in sheet.columns)
        table = Table(*columns, title=escape(sheet.title), title_justify="left")
        for row in sheet.rows:
            table.add_row(*map(escape, row), style="red" if row[-1] == "NO" else None)
        console.print(table)
    for line in report.about(found):
        console.print(escape(line), highlight=False)
    report.write(found, **files)


@app.command("engines")
def show_engines(
    names: Annotated[str, typer.Option("--rules", help="Comma-separated.")] = "all",
    as_json: Json = False,
) -> None:
    """What carries out a step on which arrays, and why nothing faster does."""
    chosen = rules.names() if names == "all" else words(names)
    found = [
        {"arrays": name, "rule": r, "engines": backends.load(name).engines(Optimizer(r))}
        for name in backends.available()
        for r in chosen
    ]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    alike: dict[Any, list[str]] = {}
    for one in found:
        alike.setdefault((one["arrays"], *one["engines"].items()), []).append(one["rule"])
    table = Table("arrays", "engine", "rules", "others", show_lines=True)
    for (library, *ways), served in alike.items():
        first = next((name for name, why in ways if why is None), "none")
        rest = [f"{name}: {why or 'can too'}" for name, why in ways if name != first]
        whole = "all" if len(served) == len(chosen) else ", ".join(served)
        table.add_row(library, first, whole, escape("\n".join(rest)))
    console.print(table)
    console.print(
        "fused and blocks: InPlace, and torch's classes on a CPU. jit: backends.jax.step. A pure "
        "Optimizer.step is eager, but where a compiler traces it. Hyperparameters that are arrays, "
        "and torch's sharded tensors, go to the next engine; engine=... names one."
    )


def _usable(text: str) -> list[str]:
    """The backends of that name, or all that run here."""
    if text == "all":
        return backends.installed()
    for name in words(text):
        if not backends.load(name).usable():
            raise ValueError(f"{name} finds no GPU here")
    return words(text)


def _progress(hidden: bool) -> rich.progress.Progress:
    columns = ("{task.description}", rich.progress.BarColumn(), "{task.completed}/{task.total}")
    return rich.progress.Progress(
        *columns, "{task.fields[note]}", rich.progress.TimeElapsedColumn(),
        console=Console(stderr=True), disable=hidden,
    )  # fmt: skip


def _parity_table(rows: list[parity.Row], dtype: str, steps: int) -> Table:
    libraries = list(dict.fromkeys(r.backend for r in rows))
    table = Table("rule", *libraries, title=f"{dtype}, {steps} steps")
    for rule in dict.fromkeys(r.rule for r in rows):
        cells = {r.backend: _cell(r) for r in rows if r.rule == rule}
        table.add_row(rule, *(cells.get(b, "") for b in libraries))
    return table


def _cell(row: parity.Row) -> str:
    value = row.ulp if row.bound.endswith("ulp") else row.eps
    if value is None:
        return row.bound
    color = ("green" if value == 0 else "yellow") if row.kept else "red"
    number = f"{value:.0f}" if value == 0 or math.isinf(value) else f"{value:.3g}"
    return f"[{color}]{number} {row.bound.split()[1]}[/{color}]"


def _draw(curves: dict[str, list[Any]], rule: str, file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    for name, c in curves.items():
        x = [e.epoch for e in c]
        loss.semilogy(x, [e.loss for e in c], label=name)
        accuracy.plot(x, [e.accuracy for e in c], label=name)
    loss.set(xlabel="epoch", ylabel="training loss", title=rule)
    accuracy.set(xlabel="epoch", ylabel="test accuracy", title="handwritten digits")
    accuracy.legend()
    figure.savefig(file)
