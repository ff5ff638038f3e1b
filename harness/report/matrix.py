"""The matrix: subject by check, one table per scheme."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.report import status as looks
from harness.results.finding import NAMES
from harness.results.record import rows

if TYPE_CHECKING:
    import pandas as pd

    from harness.results.record import Row

#: Schemes in the order of the report, and what is particular to each.
SCHEMES = {
    "full": "every query sees all keys before it",
    "uniform": "a sliding window in every layer",
    "interleaved": "sliding and full layers alternate",
    "sink": "a sliding window, and the first tokens are kept for ever",
    "chunked": "attention inside aligned blocks",
}


@dataclass
class Cell:
    """One subject under one check.  anchor: id of its case table.  target: where it links to."""

    anchor: str
    records: list[Row] = field(default_factory=list)
    target: str = ""

    @property
    def counts(self) -> Counter[str]:
        """Records by status."""
        return Counter(record.status for record in self.records)

    @property
    def lead(self) -> str:
        """The status that the cell shows."""
        return looks.lead(self.counts)

    @property
    def rest(self) -> list[tuple[str, int]]:
        """(status, count) of every other status."""
        return [(s, n) for s, n in looks.ordered(self.counts) if s != self.lead]


@dataclass
class Line:
    """The row of one subject; a check without records has no cell."""

    subject: str
    version: str
    anchor: str
    cells: dict[str, Cell] = field(default_factory=dict)

    @property
    def counts(self) -> Counter[str]:
        """Records by status, over all checks."""
        return sum((cell.counts for cell in self.cells.values()), Counter[str]())


@dataclass
class Table:
    """The table of one scheme.  checks: its columns, in the order of the report."""

    scheme: str
    anchor: str
    checks: list[str] = field(default_factory=list)
    lines: dict[str, Line] = field(default_factory=dict)

    @property
    def about(self) -> str:
        """What is particular to the scheme; "" for one that is not in `SCHEMES`."""
        return SCHEMES.get(self.scheme, "")


def tables(frame: pd.DataFrame) -> list[Table]:
    """A table per scheme.  Records without a case (a subject that did not load) are left out."""
    held = frame[frame["case"] != ""]
    # The same columns in every table, so that tables can be compared down the page.
    checks = _in_order(held["check"].unique(), NAMES)
    return [
        _table(Table(scheme, f"t{t}", checks), held[held["scheme"] == scheme])
        for t, scheme in enumerate(_in_order(held["scheme"].unique(), list(SCHEMES)))
    ]


def _table(table: Table, frame: pd.DataFrame) -> Table:
    for record in rows(frame.sort_values("subject", kind="stable")):
        line = table.lines.setdefault(
            record.subject,
            Line(record.subject, record.subject_version, f"{table.anchor}s{len(table.lines)}"),
        )
        line.version = line.version or record.subject_version
        anchor = f"{line.anchor}c{table.checks.index(record.check)}"
        line.cells.setdefault(record.check, Cell(anchor, target=anchor)).records.append(record)
    return table


def _in_order(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """The distinct names: those in `order` first, in that order, then the others."""
    found = list(dict.fromkeys(names))
    return [n for n in order if n in found] + [n for n in found if n not in order]


def unloaded(frame: pd.DataFrame) -> list[Row]:
    """The records of subjects that reached no case: not installed, or not loadable."""
    return list(rows(frame[frame["case"] == ""]))
