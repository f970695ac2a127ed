"""A page for each rule, each wrapper, and one of all schedules, written before Sphinx reads.

Everything comes from the modules themselves, from the tables of other frameworks' options, and from
the pages of measurements; a new rule has its page with no edit here. The pages go to docs/rules,
docs/wrappers and docs/schedules, which git ignores.
"""

import inspect
from pathlib import Path
from typing import Any

import pictures
from measured import Measured
from repository import pages
from rst import code, escaped, heading, indented, table
from slots import slots, torch_class
from sphinx.application import Sphinx

import arrayopt as ao
from arrayopt import _like
from arrayopt._describe import describe
from arrayopt._schema import title_of
from arrayopt._step import is_elementwise

ROOT = Path(__file__).parent.parent.parent
DECAY = {
    "coupled": ":math:`g \\leftarrow g + \\lambda p` (L2)",
    "decoupled": ":math:`p \\leftarrow (1 - \\eta \\lambda) p` before the step",
    "independent": ":math:`p \\leftarrow (1 - \\lambda) p` before the step",
}


def write_all(app: Sphinx) -> None:
    docs = Path(app.srcdir)
    measured = Measured(docs)
    written = {docs / "schedules" / "index.rst": schedules(docs / "schedules")}
    for kind, names in (("rules", ao.rules.names()), ("wrappers", ao.wrappers.names())):
        page = rule_page if kind == "rules" else wrapper_page
        for name in names:
            written[docs / kind / f"{name}.rst"] = page(name, measured, docs / kind)
        written[docs / kind / "index.rst"] = index(kind, names)
    for folder in {file.parent for file in written}:
        folder.mkdir(exist_ok=True)
        for old in set(folder.glob("*.rst")) - set(written):
            old.unlink()
    for file, text in written.items():
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def index(kind: str, names: list[str]) -> str:
    """All of a kind, in a table and in the sidebar."""
    package = getattr(ao, kind)
    if kind == "rules":
        about = "Bytes: state for each float32 parameter, with the default options."
        rows = [(f":doc:`{n} <{n}>`", escaped(title_of(package.find(n))),
                 str(describe(n)["bytes"])) for n in names]  # fmt: skip
        head = ["rule", "what it is", "bytes"]
        rows += [(code(k), f"is {escaped(v)}", "") for k, v in ao.rules.OTHERS.items()]
    else:
        about = "What may be put around any rule, as in ``adam+ema``: :doc:`/wrappers`."
        rows = [(f":doc:`{n} <{n}>`", escaped(title_of(package.find(n)))) for n in names]
        head = ["wrapper", "what it is"]
    entries = "\n".join(f"{n} <{n}>" for n in names)
    toc = f".. toctree::\n   :hidden:\n\n{indented(entries)}\n"
    return "\n".join([heading(f"All {kind}", "="), about, "", table(head, rows), toc])


def rule_page(name: str, measured: Measured, folder: Path) -> str:
    found, rule = describe(name), ao.rules.find(name)
    module = f"arrayopt/rules/{name}.py"
    parts = [
        heading(name, "="),
        *lead(rule),
        pictures.rule(name, folder),
        heading("Hyperparameters", "-"),
        table(["name", "default", "legal"],
              [[code(k), code(v["default"]), code(v["legal"])] for k, v in found["hyper"].items()]),
        f"Each may be a number, a schedule, a 0-d array or an array that broadcasts. "
        f"``weight_decay``, 0 by default, is {found['decay']} unless asked otherwise: "
        f"{DECAY[found['decay']]}.\n",
        *section("State", state(rule, found) or ["None.\n"]),
        heading("Names elsewhere", "-"),
        f"``ao.Optimizer(\"{name}\")``; the torch class ``arrayopt.backends.torch."
        f"{torch_class(rule)}``; the optax transformation ``arrayopt.backends.jax.{name}``.\n",
        *elsewhere(name),
        *section("Measured", measured.of_rule(name)),
        source(module),
    ]  # fmt: skip
    return "\n".join(parts)


def wrapper_page(name: str, measured: Measured, folder: Path) -> str:
    rule, wrapper = ao.rules.find(f"sgd+{name}"), ao.wrappers.find(name)
    bare, found = describe("sgd"), describe(f"sgd+{name}")
    hyper = {k: v for k, v in found["hyper"].items() if k not in bare["hyper"]}
    rows = [[code(k), code(v["default"]), code(v["legal"])] for k, v in hyper.items()]
    parts = [heading(name, "="), *lead(wrapper), f'``ao.Optimizer("adam+{name}")``\n']
    if rows:
        parts += [heading("Hyperparameters", "-"), table(["name", "default", "legal"], rows)]
    parts += section("State", state(wrapper, found, of=rule))
    parts += section("Measured", measured.of_wrapper(name))
    return "\n".join([*parts, source(f"arrayopt/wrappers/{name}.py")])


def section(title: str, body: list[str]) -> list[str]:
    """A section, unless there is nothing to say in it."""
    return [heading(title, "-"), *body] if body else []


def lead(module: Any) -> list[str]:
    """The docstring: its first line in bold, then the formula, the source and the deviations."""
    first, _, rest = (inspect.getdoc(module) or "").partition("\n")
    module = f".. py:module:: {module.__name__}\n"
    return [module, f"**{escaped(first)}**", pages(rest), ""]


def state(module: Any, found: dict[str, Any], *, of: Any = None) -> list[str]:
    rule = of or module
    rows = [[code(s.name), escaped(s.meaning), s.bytes] for s in slots(module, rule)]
    if not rows:
        return []
    last = f"{found['bytes']} bytes for each float32 parameter with the default options.\n"
    if not is_elementwise(rule):
        last = "Of a matrix of 32 x 32, with the default options: it depends on the shape.\n"
    return [table(["slot", "meaning", "bytes of each float32"], rows), last]


def elsewhere(rule: str) -> list[str]:
    """The optimizers of other frameworks that are this rule, and what is different."""
    own = ao.Optimizer(rule).options()
    rows = []
    for framework in _like.FRAMEWORKS:
        for where, those in _like.load(framework).modules.items():
            for name, row in those.items():
                theirs = made(framework, name, row)
                if theirs.name == rule:
                    different = {k: v for k, v in theirs.options().items() if v != own[k]}
                    cells = ", ".join(code(f"{k}={v!r}") for k, v in different.items() if k != "lr")
                    rows.append([code(f"{where}.{name}"), cells, escaped(row.note)])
    if not rows:
        return ["``ao.like`` knows no optimizer of torch, optax, Keras or MLX that is this rule.\n"]
    text = (
        "What each framework's defaults, the rate aside, change here. ``ao.like`` makes each from "
        "its own options; :doc:`/like` compares them.\n"
    )
    return [table(["there", "with its defaults, here", "note"], rows), text]


def made(framework: str, name: str, row: _like.Row) -> ao.Optimizer:
    """The framework's optimizer, with its defaults and any rate."""
    rate = "learning_rate" if "learning_rate" in row.defaults else "lr"
    return _like.like(framework, name, **({rate: 0.1} if rate in row.defaults else {}))


def source(path: str) -> str:
    lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    text = f".. literalinclude:: /../{path}\n   :language: python\n"
    about = f".. dropdown:: The whole of it: {path}, {lines} lines\n\n{indented(text)}"
    return f"{heading('Source', '-')}\n{about}\n"


def schedules(folder: Path) -> str:
    """Every schedule with its formula and its picture."""
    parts = [
        heading("All schedules", "="),
        ".. module:: arrayopt.schedules\n",
        pages(inspect.getdoc(ao.schedules) or ""),
        "",
    ]
    for name in ao.schedules.__all__:
        kind = "autofunction" if inspect.isfunction(getattr(ao.schedules, name)) else "autoclass"
        parts += [heading(name, "-"), f".. {kind}:: arrayopt.schedules.{name}\n",
                  pictures.schedule(name, folder)]  # fmt: skip
    return "\n".join(parts)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", write_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
