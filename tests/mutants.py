"""Breaks every rule in many ways and shows that the tests notice: ``python tests/mutants.py``.

Each operator is written once, over the syntax tree, and is applied wherever it fits in a rule's
update, init, average, adapt, share, measure and evaluate, a wrapper's gradient, source and turn,
and in the tables they read. One pytest session collects test_reference.py and test_catalogue.py and
runs them unbroken; then, for every mutant, a fork of that session puts the broken module in the
rule's place and runs the rule's own tests up to the first that fails. No operator is meant to make
a module that fails to run: "crashed" counts those mutants that raised another error than a failed
comparison.

All mutants of all rules take half an hour. ``--sample 25`` is what each change has to pass: one in
twenty-five of each rule, always the same ones, but seven at least. A rule that is new or changed is
to be named: then all of its mutants run.
"""

import argparse
import ast
import contextlib
import copy
import gc
import mmap
import os
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from test_catalogue import FAMILIES

import arrayopt as ao
from arrayopt._wrapped import wrapped

HERE = Path(__file__).parent
BROKEN = {"update", "init", "average", "adapt", "share", "measure", "evaluate"}  # functions
BROKEN |= {"gradient", "source", "turn"}  # of wrappers
FEWEST = 5
CRASHED = 9  # a child's exit status
FACTOR = 15 / 16  # of a number that is changed: what was legal stays so
SWAPPED: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
RENAMED = {"maximum": "minimum", "minimum": "maximum", "zeros_like": "ones_like"}
UNARY = {"abs", "sign", "sqrt", "exp", "asarray"}  # dropped: f(x) -> x
CHOICE = {"maximum": (0, 1), "minimum": (0, 1), "where": (1, 2), "pick": (1, 2), "clip": (0,)}

# What no test of a rule's numbers can tell from the rule: rule, part of the line, what became of
# it, why. Each names one mutant.
MASKED = "where it makes a difference, the outer `where` takes its other branch"
EQUIVALENT = [
    ("mada", "strict=True", "strict=False", "all have five elements"),
    ("mada", "where(V == 0, 1.0, root)", "where(V == 1, 1.0, root)", MASKED),
    ("mada", "where(V == 0, 1.0, root)", "where(V == 0, 0.9375, root)", MASKED),
    ("mada", "xp.where(V == 0, 1.0, root)", "root", MASKED),
    ("madam", "where(v == 0, 1.0, v)", "where(v == 1, 1.0, v)", MASKED),
    ("madam", "where(v == 0, 1.0, v)", "where(v == 0, 0.9375, v)", MASKED),
    ("madam", "xp.where(v == 0, 1.0, v)", "v", MASKED),
    (
        "madam",
        "xp.where(v == 0, 0.0, grad / root)",
        "grad / root",
        "then |grad| < 1e-160: no move",
    ),
    ("maxva_madam", "where(fresh, 1.0, w)", "where(fresh, 0.9375, w)", "u = v = 0, and " + MASKED),
    ("maxva_madam", "xp.where(fresh, 1.0, w)", "w", MASKED),
    *(line for family in FAMILIES for line in getattr(family, "EQUIVALENT", ())),
]


class Mutant(NamedTuple):
    """A rule's module with one thing changed."""

    rule: str
    operator: str
    line: int
    before: str  # the smallest expression around the change
    after: str
    source: str

    @property
    def reason(self) -> str:
        """Why it is equivalent to the rule, or ""."""
        found = (
            why
            for rule, old, new, why in EQUIVALENT
            if rule == self.rule and self.after == self.before.replace(old, new) != self.before
        )
        return next(found, "")


Edit = tuple[str, ast.AST]  # the operator's name, what comes in the node's place


def called(node: ast.AST) -> str:
    """The name of the function that a call calls, or ""."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def expression(text: str, **parts: ast.expr) -> ast.expr:
    """An expression, with the nodes in the places of the names."""

    class Fill(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.AST:
            return copy.deepcopy(parts.get(node.id, node))

    return Fill().visit(ast.parse(text, mode="eval").body)


def calls(node: ast.AST, slots: list[str]) -> Iterator[Edit]:
    """A function is dropped, renamed, or given something else."""
    name = called(node)
    if not isinstance(node, ast.Call):
        return
    args = node.args
    if name == "debias":
        yield "bias correction dropped", ast.Constant(1.0)
        yield "bias correction without t", expression("1 - b", b=args[0])
    if name == "guarded":
        x, eps = args
        yield "eps dropped", expression("guarded(x, 0.0, xp=xp)", x=x)
        yield "guard dropped", expression("x + eps", x=x, eps=eps)
        yield "eps moved into the root", expression("xp.sqrt(x * x + eps)", x=x, eps=eps)
    if name == "sqrt" and isinstance(args[0], ast.BinOp) and isinstance(args[0].op, ast.Add):
        x, eps = args[0].left, args[0].right
        yield "eps moved out of the root", expression("xp.sqrt(x) + eps", x=x, eps=eps)
    if name in UNARY:
        yield f"{name} dropped", args[0]
    for i in CHOICE.get(name, ()):
        yield f"{name} dropped", args[i]
    if name == "clip":
        yield "clip from above only", expression("xp.minimum(x, high)", x=args[0], high=args[-1])
        if len(args) == 3:
            yield "clip from below only", expression("xp.maximum(x, low)", x=args[0], low=args[1])
    if name in RENAMED:
        func = copy.deepcopy(node.func)
        func.attr = RENAMED[name]
        yield f"{name} -> {RENAMED[name]}", ast.Call(func, args, node.keywords)
    if name == "State":  # positional, in the order of the slots
        for i, (slot, arg) in enumerate(zip(slots, args, strict=False)):
            if not isinstance(arg, ast.Starred | ast.GeneratorExp):
                old = ast.Attribute(ast.Name("state"), slot)
                yield (
                    f"slot {slot} not updated",
                    ast.Call(node.func, [*args[:i], old, *args[i + 1 :]], []),
                )


def operators(node: ast.AST, slots: list[str]) -> Iterator[Edit]:
    """Another operator, or another branch."""
    if isinstance(node, ast.BinOp | ast.BoolOp):
        for op in SWAPPED.get(type(node.op), ()):
            new = copy.deepcopy(node)
            new.op = op()
            yield f"{type(node.op).__name__} -> {op.__name__}", new
    if isinstance(node, ast.BinOp):
        yield "left operand alone", node.left
        yield "right operand alone", node.right
    if isinstance(node, ast.Compare):
        for op in SWAPPED.get(type(node.ops[0]), ()):
            yield (
                f"{type(node.ops[0]).__name__} -> {op.__name__}",
                ast.Compare(node.left, [op()], node.comparators),
            )
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "sign dropped", node.operand
    if isinstance(node, ast.IfExp):
        yield "if taken", node.body
        yield "else taken", node.orelse
    if isinstance(node, ast.If):
        for value in (True, False):
            yield f"if {value}", ast.If(ast.Constant(value), node.body, node.orelse)


def names(node: ast.AST, slots: list[str]) -> Iterator[Edit]:
    """Another beta, another slot."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in BETAS:
        for other in BETAS[node.id]:
            yield f"{node.id} -> {other}", ast.Name(other)
    if isinstance(node, ast.Attribute) and node.attr in slots:
        other = slots[(slots.index(node.attr) + 1) % len(slots)]
        yield f"slot {node.attr} -> {other}", ast.Attribute(node.value, other)


BETAS = {
    "b1": ("b2", "b3"),
    "b2": ("b1", "b3"),
    "b3": ("b1", "b2"),
    "b_lo": ("b_hi",),
    "b_hi": ("b_lo",),
    "rho": ("c",),
    "c": ("rho",),
}


def constants(node: ast.AST, slots: list[str]) -> Iterator[Edit]:
    """Another number, flag or text."""
    if not isinstance(node, ast.Constant):
        return
    value = node.value
    if isinstance(value, bool):
        yield "flag turned", ast.Constant(not value)
    elif isinstance(value, int | float):
        yield "number changed", ast.Constant(value * FACTOR if value else 1 - FACTOR)
        if isinstance(value, int):
            yield "number + 1", ast.Constant(value + 1)
    elif value is None:
        yield "None -> number", ast.Constant(0.5)
    elif value in OTHERS:
        for other in OTHERS[value]:
            yield f"{value} -> {other}", ast.Constant(other)


OTHERS = {
    "coupled": ("decoupled", "independent"),
    "decoupled": ("coupled", "independent"),
    "max": ("mean",),
    "mean": ("max",),
    "mixed": ("ema",),
    "ema": ("mixed",),
    "gradient": ("zero",),
    "zero": ("gradient",),
}
OPERATORS: tuple[Callable[[ast.AST, list[str]], Iterator[Edit]], ...] = (
    calls, operators, names, constants,
)  # fmt: skip


def places(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.AST, str, int | None]]:
    """Every node of what is broken: parent, statement or default around it, its field and index."""

    def below(node: ast.AST, near: ast.AST) -> Iterator[tuple[ast.AST, ast.AST, str, int | None]]:
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "targets", "op", "ops", "func", "ctx"):
                continue
            for i, child in enumerate(value if isinstance(value, list) else [value]):
                if not isinstance(child, ast.AST):
                    continue
                if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                    continue  # a docstring
                inner = isinstance(child, ast.stmt)
                yield node, child if inner else near, field, i if isinstance(value, list) else None
                yield from below(child, child if inner else near)

    for node in tree.body:
        table = isinstance(node, ast.Assign | ast.AugAssign) and "PARITY_EPS" not in (
            ast.unparse(node)  # the bound of another test, no part of the rule
        )
        if table or (isinstance(node, ast.FunctionDef) and node.name in BROKEN):
            yield from below(node, node)


def text_of(near: ast.AST, parent: ast.AST, field: str, i: int | None) -> str:
    """The line that a change shows in: a statement, a default with its name, or an if."""
    if isinstance(near, ast.FunctionDef):
        args = near.args
        if parent is args and field == "kw_defaults" and i is not None:
            return f"{near.name}(..., {args.kwonlyargs[i].arg}={ast.unparse(args.kw_defaults[i])})"
        return near.name
    if isinstance(near, ast.If | ast.For):
        return ast.unparse(near).partition("\n")[0]
    return ast.unparse(near)


def mutants(rule: str) -> Iterator[Mutant]:
    """Every mutant of a rule; no two of them are the same program."""
    source = source_of(rule)
    tree = ast.parse(source)
    slots = slots_of(tree)
    seen = {ast.unparse(tree)}
    for parent, near, field, i in places(tree):
        value = getattr(parent, field)
        node = value if i is None else value[i]
        before = text_of(near, parent, field, i)
        for operator in OPERATORS:
            for name, new in operator(node, slots):
                put(parent, field, i, new)
                code = ast.unparse(tree)
                after = text_of(new if isinstance(node, ast.stmt) else near, parent, field, i)
                if code not in seen:
                    seen.add(code)
                    yield Mutant(rule, name, getattr(node, "lineno", 0), before, after, code)
                put(parent, field, i, node)


def unbroken(rule: str) -> Mutant:
    """The rule itself, which must survive: else it is the fork that fails and not the mutants."""
    return Mutant(rule, "", 0, "", "", source_of(rule))


def source_of(rule: str) -> str:
    """Of a rule or a wrapper."""
    package = ao.wrappers if rule in ao.wrappers.names() else ao.rules
    return Path(package.find(rule).__file__).read_text()


def slots_of(tree: ast.Module) -> list[str]:
    """The fields of the module's State."""
    found = [x for x in tree.body if isinstance(x, ast.ClassDef) and x.name == "State"]
    return [field.target.id for x in found for field in x.body if isinstance(field, ast.AnnAssign)]


def put(parent: ast.AST, field: str, i: int | None, node: ast.AST) -> None:
    """A node in the place of what is there."""
    if i is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[i] = node


def install(mutant: Mutant) -> None:
    """The mutant in the place of the rule, for whoever asks for the rule from now on."""
    package = ao.wrappers if mutant.rule in ao.wrappers.names() else ao.rules
    name = f"{package.__name__}.{mutant.rule}"
    module = types.ModuleType(name)
    module.__package__ = package.__name__
    exec(compile(mutant.source, name, "exec"), module.__dict__)
    sys.modules[name] = module
    setattr(package, mutant.rule, module)
    wrapped.cache_clear()


class Mutation:
    """A pytest plugin: runs the collected tests once as they are, then once in each fork."""

    def __init__(self, rules: list[str], jobs: int, sample: int) -> None:
        self.rules, self.jobs, self.sample = rules, jobs, sample
        self.failed: set[str] = set()  # rules whose tests fail without a mutation
        self.crash = False
        self.results: list[tuple[Mutant, int]] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [x for x in items if self.rule_of(x) in self.rules]

    def pytest_exception_interact(self, call: pytest.CallInfo) -> None:
        kinds = (AssertionError, pytest.fail.Exception)
        self.crash = not isinstance(call.excinfo.value, kinds)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        by_rule = {r: [x for x in session.items if self.rule_of(x) == r] for r in self.rules}
        for rule, items in by_rule.items():
            if not items or self.run(session, items):
                self.failed.add(rule)
        hint = mmap.mmap(-1, 2)  # shared: the number of the test that killed the mutant before
        gc.freeze()  # what is there now is never collected, so that forks share its memory
        running: dict[int, Mutant] = {}
        sound = [rule for rule in self.rules if rule not in self.failed]
        for mutant in (m for rule in sound for m in (unbroken(rule), *self.some(rule))):
            if len(running) == self.jobs:
                self.reap(running)
            sys.stdout.flush()
            if (pid := os.fork()) == 0:
                code = CRASHED
                try:
                    code = self.child(session, by_rule[mutant.rule], mutant, hint)
                finally:
                    os._exit(code)
            running[pid] = mutant
        while running:
            self.reap(running)
        return True

    def some(self, rule: str) -> Iterator[Mutant]:
        """The rule's mutants, or some of them."""
        found = list(mutants(rule))
        return iter(found[:: max(1, min(self.sample, len(found) // (FEWEST + 2)))])

    def child(
        self, session: pytest.Session, items: list[pytest.Item], mutant: Mutant, hint: mmap.mmap
    ) -> int:
        """0 if the mutant survives."""
        try:
            install(mutant)
        except Exception:
            return CRASHED
        first = int.from_bytes(hint[:2]) % len(items)  # what killed its neighbour may kill it
        killer = self.run(session, [items[first], *items[:first], *items[first + 1 :]])
        if killer is None:
            return 0
        hint[:2] = items.index(killer).to_bytes(2)
        return CRASHED if self.crash else 1

    def run(self, session: pytest.Session, items: list[pytest.Item]) -> pytest.Item | None:
        """The first of these tests that fails."""
        failed = session.testsfailed
        for item in items:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            if session.testsfailed > failed:
                return item
        return None

    def reap(self, running: dict[int, Mutant]) -> None:
        pid, status = os.wait()
        mutant, code = running.pop(pid), os.waitstatus_to_exitcode(status)
        if mutant.operator:
            self.results.append((mutant, code))
        elif code:
            self.failed.add(mutant.rule)

    @staticmethod
    def rule_of(item: pytest.Item) -> str:
        """The rule that a test is of; "" for one that is of none."""
        spec = getattr(item, "callspec", None)
        return str(spec.params.get("rule", "")).rpartition("+")[2] if spec else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rules", nargs="*", metavar="rule", help="or a wrapper; all unless given")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="processes at a time (2)")
    parser.add_argument(
        "--sample", type=int, default=1, metavar="K", help="every K-th mutant, seven at least"
    )
    args = parser.parse_args()
    names = [*ao.rules.names(), *ao.wrappers.names()]
    rules = args.rules or names
    if unknown := set(rules) - set(names):
        parser.error(f"no such rule: {', '.join(sorted(unknown))}")
    start = time.monotonic()
    plugin = Mutation(rules, args.jobs, args.sample)
    options = [
        "-q",
        "--tb=native",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:unraisableexception",
        "-o",
        "addopts=",
        "-o",
        "timeout=20",
    ]
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        files = [str(HERE / f"test_{name}.py") for name in ("reference", "catalogue")]
        status = pytest.main([*files, *options], plugins=[plugin])
    if not plugin.results:
        why = f"; without a mutation fail: {sorted(plugin.failed)}" if plugin.failed else ""
        print(f"pytest ended with {status!r} and no mutant was run{why}")
        return 1
    survivors = [m for m, code in plugin.results if code == 0]
    listed = [m for m in survivors if m.reason]
    unlisted = [m for m in survivors if not m.reason]
    print(f"{'rule':<22}{'mutants':>8}{'killed':>8}{'crashed':>8}{'equivalent':>11}{'survived':>9}")
    few = []
    for rule in rules:
        codes = [code for m, code in plugin.results if m.rule == rule]
        same, alive = (sum(m.rule == rule for m in ms) for ms in (listed, unlisted))
        killed = sum(code != 0 for code in codes)
        crashed = sum(code not in (0, 1) for code in codes)
        print(f"{rule:<22}{len(codes):>8}{killed:>8}{crashed:>8}{same:>11}{alive:>9}")
        few += [rule] if killed < min(FEWEST, len(codes) - same) else []
    for title, some in (("equivalent", listed), ("SURVIVED", unlisted)):
        for m in sorted(some):
            print(f"\n{title}: {m.rule}.py:{m.line}: {m.operator}")
            print(f"  - {m.before}\n  + {m.after}")
            if m.reason:
                print(f"  equivalent: {m.reason}")
    stale = [m for m, code in plugin.results if code and m.reason]
    whole = set(rules) == set(names) and args.sample == 1
    gone = len(EQUIVALENT) - len(listed) - len(stale) if whole else 0
    for why, what in (
        ("fails without a mutation, or has no test", sorted(plugin.failed)),
        (f"fewer than {FEWEST} mutants killed", few),
        ("listed as equivalent, but killed", [f"{m.rule}.py:{m.line}: {m.after}" for m in stale]),
        ("lines of EQUIVALENT that name no mutant, or more than one", gone),
    ):
        if what:
            print(f"\n{why}: {what}")
    seconds = time.monotonic() - start
    killed = len(plugin.results) - len(survivors)
    print(f"\n{len(plugin.results)} mutants, {killed} killed, {seconds:.0f} s")
    return int(bool(unlisted or plugin.failed or few or stale or gone))


if __name__ == "__main__":
    sys.exit(main())
