"""The small tables of the report: margins, slowest cases, environment, arithmetic of the counts."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.gate.drift import CLAIMS, Drift
from harness.report import status as looks
from harness.report.text import number, plural

if TYPE_CHECKING:
    from harness.results.record import Record


@dataclass(frozen=True)
class Margin:
    """The smallest margin of one check, and how many records have one."""

    record: Record
    measured: int


def margins(records: Iterable[Record]) -> list[Margin]:
    """The smallest margin per check, the smallest first.  NaN, which separates nothing, leads."""
    by_check: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.margin is not None:
            by_check[record.check].append(record)
    found = [Margin(min(held, key=_margin), len(held)) for held in by_check.values()]
    return sorted(found, key=lambda m: _margin(m.record))


def _margin(record: Record) -> float:
    assert record.margin is not None
    return -math.inf if math.isnan(record.margin) else record.margin


def slowest(records: Iterable[Record], n: int = 10) -> list[Record]:
    """The records that took longest, the longest first."""
    timed = [record for record in records if record.seconds is not None]
    return sorted(timed, key=lambda r: -(r.seconds or 0))[:n]


def environment(records: Sequence[Record]) -> list[tuple[str, str]]:
    """(name, value) of what the records say of the machine; several values are all named."""
    versions: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for package, version in record.versions.items():
            versions[package].add(version)
    facts = [
        ("run", {r.run for r in records}),
        ("device", {r.device for r in records}),
        ("threads", {str(r.threads) for r in records if r.threads is not None}),
        *sorted(versions.items()),
    ]
    return [(name, ", ".join(sorted(values - {""})) or "not stated") for name, values in facts]


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
    """The sums behind the verdict."""
    parts = looks.ordered(counts)
    return Arithmetic(
        total=sum(counts.values()),
        parts=parts,
        red=[(s, counts[s]) for s, look in looks.LOOKS.items() if look.red],
    )


def breadth(records: Sequence[Record]) -> str:
    """How much was looked at: subjects, checks and cases."""
    held = [r for r in records if r.case]
    return ", ".join(
        (
            plural(len({r.subject for r in records}), "subject"),
            plural(len({r.check for r in held}), "check"),
            plural(len({r.case for r in held}), "case"),
        )
    )


@dataclass
class DriftKind:
    """Integers of one name that drifted, of one subject and check."""

    subject: str
    check: str
    integer: str
    held: list[Drift] = field(default_factory=list)

    @property
    def said(self) -> str:
        """The first, and how many there are: "cache_bytes 4,096 → 4,608 (+512), 3 cases"."""
        first = self.held[0]
        was, now = (number(v) or "none" for v in (first.baseline, first.now))
        change = ""
        if first.baseline is not None and first.now is not None:
            change = f" ({first.now - first.baseline:+,})"
        name = "" if self.integer == self.check else f"{self.integer} "
        text = f"{name}{was} → {now}{change}"
        return text if self.integer == CLAIMS else f"{text}, {plural(len(self.held), 'case')}"


def drifts(drift: Iterable[Drift]) -> list[DriftKind]:
    """By subject, check and integer, those of most cases first."""
    found: dict[tuple[str, str, str], DriftKind] = {}
    for d in drift:
        key = (d.subject, d.check, d.integer)
        found.setdefault(key, DriftKind(*key)).held.append(d)
    return sorted(found.values(), key=lambda kind: -len(kind.held))
