"""Claims: of how many cases of a check a subject does not say that it cannot do them.

``reports/baselines/claims.csv`` keeps the count of a whole run for every subject and check, so
that a subject that claims less is told, also where a check has no integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.gate.drift import CLAIMS, Drift, Key, Ran, environment, read_rows, write_rows
from harness.results.finding import Status
from harness.results.record import Record

FILE = "claims.csv"
KEY = ("subject", "check", "device", "threads", "versions")
VALUES = ("claimed",)

#: Broken in a way that hides whether the case is claimed.
_UNTOLD = frozenset({Status.ERROR, Status.MISSING})


@dataclass
class Count:
    """Cases of one subject and check: claimed, of all; untold: that broke before they told."""

    claimed: int = 0
    cases: int = 0
    untold: int = 0

    def hides(self, claimed: int) -> bool:
        """True if as many may be claimed, for all that the broken cases tell: they are red."""
        return self.claimed - self.untold <= claimed <= self.claimed


class Claims:
    """Claimed cases by subject, check and environment.  Only whole runs have counts to compare."""

    def __init__(self, rows: Mapping[Key, int] | None = None) -> None:
        self.rows = dict(rows or {})

    def compare(self, records: Iterable[Record]) -> list[Drift]:
        """Counts of a whole run that differ, either way.

        A check that the rows of its subject do not know counts as claimed by none so far; a
        subject without any row here has nothing to compare with.  What is missing, or broke, is
        not counted as claimed once more.
        """
        records = list(records)
        now, ran = count(records), Ran(records)
        known = {(key[0], key[2:]) for key in self.rows}
        keys = [k for k in now if (k[0], k[2:]) in known]
        told = [k for k in keys if not now[k].hides(self.rows.get(k, 0))]
        out = [_drift(k, self.rows.get(k, 0), now[k]) for k in told]
        out += [
            _drift(key, claimed, None)
            for key, claimed in self.rows.items()
            if key not in now and ran.expected(key[0], key[2:])
        ]
        return [drift for drift in out if drift.vanished or drift.baseline != drift.now]

    def unknown(self, records: Iterable[Record]) -> list[str]:
        """Subjects of a whole run without any row here: nothing says what they should claim."""
        known = {(key[0], key[2:]) for key in self.rows}
        return sorted({key[0] for key in count(records) if (key[0], key[2:]) not in known})

    def update(self, records: Iterable[Record]) -> int:
        """Take over the counts of a whole run; the number of rows that this changes.

        A count is left as it is where a case broke before it told.  A row without a case goes.
        """
        records = list(records)
        now, ran = count(records), Ran(records)
        before = dict(self.rows)
        self.rows.update({key: c.claimed for key, c in now.items() if not c.untold})
        for key in [k for k in self.rows if k not in now and ran.expected(k[0], k[2:])]:
            del self.rows[key]
        return sum(before.get(key) != self.rows.get(key) for key in before.keys() | self.rows)


def count(records: Iterable[Record]) -> dict[Key, Count]:
    """The counts by key; a record that is missing is filed where its subject ran."""
    of_cases = [r for r in records if r.case and r.status != Status.NOT_INSTALLED]
    places = {r.subject: environment(r) for r in of_cases if r.device}
    out: dict[Key, Count] = {}
    for record in of_cases:
        if record.subject in places:
            where = environment(record) if record.device else places[record.subject]
            it = out.setdefault((record.subject, record.check, *where), Count())
            it.cases += 1
            it.claimed += record.status != Status.NOT_CLAIMED
            it.untold += record.status in _UNTOLD
    return out


def read(folder: Path) -> Claims:
    """The claims in `folder`, none where there is no file of them.  Raises BaselineError."""
    path = folder / FILE
    rows = read_rows(path, KEY, VALUES) if path.exists() else ()
    return Claims({key: values.get("claimed", 0) for key, values in rows})


def write(claims: Claims, folder: Path) -> list[Path]:
    """Write the file where its text changes; the paths touched."""
    path = folder / FILE
    rows = {key: {"claimed": claimed} for key, claimed in claims.rows.items()}
    return [path] if write_rows(path, KEY, VALUES, rows) else []


def _drift(key: Key, baseline: int, now: Count | None) -> Drift:
    """now: None for a check of which no case was collected."""
    it = now or Count()
    told = f"{it.claimed} of {it.cases} cases"
    return Drift(key[0], told, key[1], CLAIMS, baseline, it.claimed if now else None, now is None)
