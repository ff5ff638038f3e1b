"""Drift in a line each: one subject, check and integer, whatever the number of cases."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.gate.drift import CLAIMS, Drift
from harness.report.numbers import number, plural


@dataclass
class Kind:
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


def gather(drift: Iterable[Drift]) -> list[Kind]:
    """By subject, check and integer, those of most cases first."""
    found: dict[tuple[str, str, str], Kind] = {}
    for d in drift:
        key = (d.subject, d.check, d.integer)
        found.setdefault(key, Kind(*key)).held.append(d)
    return sorted(found.values(), key=lambda kind: -len(kind.held))
