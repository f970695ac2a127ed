"""What the pages of measurements say of one rule or wrapper."""

from pathlib import Path

from rst import Row, code, from_markdown, markdown_tables, table

ERRORS = "The largest error beside others' implementations, in float64 (:doc:`/oracles`):\n"
PARITY = "Distance to NumPy in the same dtype after 100 steps (:doc:`/numbers`):\n"
SPEED = (
    "A step of ten million float32 parameters takes {time} ms on two cores, {to memory} times what "
    "a loop takes that only reads, adds and writes ({memory} ms); passes over memory: {passes} "
    "(:doc:`/roofs`).\n"
)


class Measured:
    """The tables of docs/roofs.md, docs/numbers.md and docs/oracles.md."""

    def __init__(self, docs: Path) -> None:
        (self.roofs,) = markdown_tables(docs / "roofs.md")
        self.numbers = [t for t in markdown_tables(docs / "numbers.md") if t.head[0] == "rule"]
        self.oracles = markdown_tables(docs / "oracles.md")

    def of_rule(self, name: str) -> list[str]:
        """Speed, parity and errors, as far as they were measured."""
        speed = [SPEED.format(**dict(zip(self.roofs.head, r, strict=True)))
                 for r in self.roofs.rows if r[0] == code_of(name)]  # fmt: skip
        return [*speed, *self.parity(name), *errors(self.found(name), around=False)]

    def of_wrapper(self, name: str) -> list[str]:
        """Errors, around any rule."""
        names = [t.under for t in self.oracles if name in t.under.split("+")[1:]]
        return errors([row for one in dict.fromkeys(names) for row in self.found(one)], around=True)

    def parity(self, name: str) -> list[str]:
        """The rule's row of each table of docs/numbers.md."""
        found = [(one.under, row) for one in self.numbers for row in one.rows
                 if row[0] == code_of(name)]  # fmt: skip
        if not found:
            return []
        cells = [[dtype, *(from_markdown(c) for c in row[1:])] for dtype, row in found]
        return [PARITY, table(["dtype", *self.numbers[0].head[1:]], cells)]

    def found(self, name: str) -> list[Row]:
        """The comparisons of a rule, wrapped as it is: the name, and what the table says."""
        return [(code(name), *row) for one in self.oracles if one.under == name for row in one.rows]


def code_of(name: str) -> str:
    """The name as it stands in a Markdown table."""
    return f"`{name}`"


def errors(found: list[Row], *, around: bool) -> list[str]:
    """The table of what was compared, with the rules inside if it is of a wrapper."""
    if not found:
        return []
    head = ["rule", "error", "bound", "against", "remarks"]
    cells = [[row[0], *map(from_markdown, row[1:])] for row in found]
    return [ERRORS, table(head[not around :], [row[not around :] for row in cells])]
