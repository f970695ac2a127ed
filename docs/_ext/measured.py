"""What the pages of measurements say of one rule or wrapper."""

from collections.abc import Iterator
from pathlib import Path

from rst import Row, code, from_markdown, markdown_tables, table

ERRORS = "The largest error beside others' implementations, in float64 (:doc:`/oracles`):\n"
PARITY = "Distance to NumPy in the same dtype after 100 steps, in {} (:doc:`/numbers`):\n"
SPEED = (
    "A step of ten million float32 parameters takes {time} ms on two cores, {to memory} times what "
    "a loop takes that only reads, adds and writes ({memory} ms); passes over memory: {passes} "
    "(:doc:`/roofs`).\n"
)


class Measured:
    """The tables of docs/roofs.md, docs/numbers.md and docs/oracles.md."""

    def __init__(self, docs: Path) -> None:
        names = ("roofs", "numbers", "oracles")
        self.roofs, self.numbers, self.oracles = (markdown_tables(docs / f"{n}.md") for n in names)

    def of_rule(self, name: str) -> list[str]:
        """Speed, parity and errors, as far as they were measured."""
        found = []
        (roofs,) = self.roofs
        for row in rows([roofs], name):
            found.append(SPEED.format(**dict(zip(roofs.head[1:], row[1:], strict=True))))
        _, *tables = self.numbers  # the first holds what is promised
        for dtype, one in zip(("float32", "float64"), tables, strict=True):
            for row in rows([one], name):
                cells = [cell or "has none" for cell in row[1:]]
                found += [PARITY.format(dtype), table(one.head[1:], [cells])]
        return found + errors(list(rows(self.oracles, name)))

    def of_wrapper(self, name: str) -> list[str]:
        """Errors, around any rule."""
        found = [row for one in self.oracles for row in one.rows if name in parts(row)[1:]]
        return errors(found)


def rows(tables: list, rule: str) -> Iterator[Row]:
    """The rows whose first cell is the rule alone."""
    return (row for one in tables for row in one.rows if parts(row) == [rule])


def parts(row: Row) -> list[str]:
    """The rule and the wrappers that a row is of."""
    return row[0].strip("`").split("+")


def errors(found: list[Row]) -> list[str]:
    if not found:
        return []
    cells = [[code(parts(row)[0]), *map(from_markdown, row[1:])] for row in found]
    around = len({row[0] for row in found}) > 1  # of a wrapper, the rules inside
    head = ["rule", "against", "error", "bound"]
    return [ERRORS, table(head[not around :], [row[not around :] for row in cells])]
