"""The small tables of the report: margins, slowest cases, environment, sums of the counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.gate.drift import CLAIMS, Drift
from harness.report import status as looks
from harness.results.record import rows
from harness.results.text import mebibytes, number, plural

if TYPE_CHECKING:
    import pandas as pd

    from harness.results.folder import RunInfo
    from harness.results.record import Row


@dataclass(frozen=True)
class Margin:
    """The record with a check's smallest margin, and how many records have a margin."""

    record: Row
    measured: int


def margins(frame: pd.DataFrame) -> list[Margin]:
    """The smallest margin per check, the smallest first."""
    measured = frame.dropna(subset="margin")
    counts = measured["check"].value_counts()
    smallest = measured.sort_values("margin", kind="stable").drop_duplicates("check")
    return [Margin(row, int(counts[row.check])) for row in rows(smallest)]


def slowest(frame: pd.DataFrame, n: int = 10) -> list[Row]:
    """The records that took longest, the longest first."""
    timed = frame.dropna(subset="seconds")
    return list(rows(timed.sort_values("seconds", ascending=False, kind="stable").head(n)))


def environment(frame: pd.DataFrame, run: RunInfo | None = None) -> list[tuple[str, str]]:
    """(name, value) of what is known about the machine; several values are all listed.

    run: adds the largest resident size of a process that ran checks, if it was measured.
    """
    versions: dict[str, set[str]] = {}
    for held in frame["versions"]:
        for package, version in held.items():
            versions.setdefault(package, set()).add(version)
    facts = [
        ("run", set(frame["run"])),
        ("device", set(frame["device"])),
        ("threads", set(frame["threads"].dropna().astype(str))),
        *sorted(versions.items()),
    ]
    out = [(name, ", ".join(sorted(values - {""})) or "not known") for name, values in facts]
    if run is not None and run.resident_peak_bytes is not None:
        size = mebibytes(run.resident_peak_bytes)
        out.append(("peak resident size", f"{size} in one process, indicative: never gated"))
    return out


@dataclass(frozen=True)
class Arithmetic:
    """The counts as sums: all records, what ran, and what is red."""

    total: int
    parts: list[tuple[str, int]]
    red: list[tuple[str, int]]

    @property
    def red_total(self) -> int:
        """Records that turn the gate red."""
        return sum(n for _, n in self.red)


def arithmetic(counts: Counter[str]) -> Arithmetic:
    """The counts by status as sums: of all records, and of the red ones."""
    parts = looks.ordered(counts)
    return Arithmetic(
        total=sum(counts.values()),
        parts=parts,
        red=[(s, counts[s]) for s, look in looks.LOOKS.items() if look.red],
    )


def breadth(frame: pd.DataFrame) -> str:
    """How much was checked: numbers of subjects, checks and cases."""
    held = frame[frame["case"] != ""]
    return ", ".join(
        (
            plural(frame["subject"].nunique(), "subject"),
            plural(held["check"].nunique(), "check"),
            plural(held["case"].nunique(), "case"),
        )
    )


@dataclass
class DriftKind:
    """All drift of one integer in one subject and check."""

    subject: str
    check: str
    integer: str
    held: list[Drift] = field(default_factory=list)

    @property
    def said(self) -> str:
        """The first drift and the number of cases: "cache_bytes 4,096 → 4,608 (+512), 3 cases"."""
        first = self.held[0]
        was, now = (number(v) or "none" for v in (first.baseline, first.now))
        change = ""
        if first.baseline is not None and first.now is not None:
            change = f" ({first.now - first.baseline:+,})"
        name = "" if self.integer == self.check else f"{self.integer} "
        text = f"{name}{was} → {now}{change}"
        return text if self.integer == CLAIMS else f"{text}, {plural(len(self.held), 'case')}"


def drifts(drift: Iterable[Drift]) -> list[DriftKind]:
    """Drift grouped by subject, check and integer, the largest group first."""
    found: dict[tuple[str, str, str], DriftKind] = {}
    for d in drift:
        key = (d.subject, d.check, d.integer)
        found.setdefault(key, DriftKind(*key)).held.append(d)
    return sorted(found.values(), key=lambda kind: -len(kind.held))
