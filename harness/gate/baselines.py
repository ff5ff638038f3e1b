"""Baselines: the exact integers of earlier runs, one CSV per scheme, compared byte for byte.

The key of a row is everything that its integers depend on: subject, case, check, device kind,
dtype, threads and versions.  A record without such a row (another machine, a newer torch) is not
compared.  Rows are one blank line apart, so that branches that change adjacent rows still merge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.gate import claims as claims_file
from harness.gate.claims import Claims
from harness.gate.drift import (
    BaselineError,
    Drift,
    Environment,
    Ran,
    read_rows,
    write_rows,
)
from harness.results.finding import Status
from harness.results.folder import ALL
from harness.results.record import INTEGERS, rows

if TYPE_CHECKING:
    import pandas as pd

    from harness.results.record import Record, Row

__all__ = [
    "BaselineError",
    "Baselines",
    "Comparison",
    "Drift",
    "Key",
    "Update",
    "integers_of",
    "key_of",
    "read",
    "write",
]

#: Integers of records with these statuses may be taken over as baselines.
_SOUND = frozenset({Status.PASS, Status.KNOWN, Status.NOT_CLAIMED})
#: Already red, and the check may have stopped before it measured everything.
_CUT_SHORT = frozenset({Status.FAIL, Status.FIXED})

Values = dict[str, int]


class Key(NamedTuple):
    """What the integers of a row belong to, and where they were measured."""

    subject: str
    case: str
    check: str
    device: str
    dtype: str
    threads: str
    versions: str

    @property
    def item(self) -> tuple[str, str, str]:
        """Subject, case and check, which do not depend on where it runs."""
        return (self.subject, self.case, self.check)

    @property
    def environment(self) -> Environment:
        """Where it was measured."""
        return Environment(self.device, self.threads, self.versions)


KEY = Key._fields


@dataclass
class Comparison:
    """drift: integers that differ, in either direction.  unknown: keys without a baseline row."""

    drift: list[Drift] = field(default_factory=list)
    unknown: list[Key] = field(default_factory=list)


@dataclass
class Update:
    """What an update did, in rows.

    claims: rows of the file of claims that changed.  refused: records whose integers are not
    taken over, since the check failed, broke or is missing.
    """

    added: int = 0
    changed: int = 0
    dropped: int = 0
    claims: int = 0
    refused: list[Row] = field(default_factory=list)


class Baselines:
    """The rows of every scheme, by scheme and key, and the counts of claims."""

    def __init__(
        self,
        schemes: Mapping[str, Mapping[Key, Values]] | None = None,
        claims: Claims | None = None,
    ) -> None:
        self.schemes = {name: dict(held) for name, held in (schemes or {}).items()}
        self.claims = claims or Claims()

    @property
    def empty(self) -> bool:
        """True if there is no row of integers at all."""
        return not any(self.schemes.values())

    def of(self, record: Record) -> Values | None:
        """The baseline integers of a record; None if it has no row."""
        return self.schemes.get(record.scheme, {}).get(key_of(record))

    def compare(self, frame: pd.DataFrame, *, whole: bool = False, matrix: str = ALL) -> Comparison:
        """Compare every record, except errors, with its row.

        whole: every case of the matrix was to run, so the counts of claims are compared too.  In
        the whole plan a row without a record has vanished, which is drift as well; a case that the
        short matrix has lost is an error before anything runs.
        """
        out = Comparison()
        for record in rows(frame):
            if record.status != Status.ERROR:
                self._compare(record, out)
        if whole and matrix == ALL:
            out.drift += self._vanished(frame)
        if whole:
            out.drift += self.claims.compare(frame, matrix)
        return out

    def _compare(self, record: Row, out: Comparison) -> None:
        before, now = self.of(record), integers_of(record)
        if before is None:
            if now and record.status in {Status.PASS, Status.KNOWN}:
                out.unknown.append(key_of(record))
            return
        if record.status in _CUT_SHORT:
            before = {name: value for name, value in before.items() if name in now}
        out.drift += _differences(record, before, now)

    def update(self, frame: pd.DataFrame, *, whole: bool = False, matrix: str = ALL) -> Update:
        """Take over integers that drifted or are new; every other row stays as it is.

        If a record failed, broke or is missing, it is refused and its row kept.  whole: the claims
        are taken over, and, if the matrix is the whole plan, rows of cases that are no longer
        collected are dropped.
        """
        out = Update()
        for record in rows(frame):
            if record.case:
                self._update(record, out)
        if whole and matrix == ALL:
            out.dropped += self._drop(frame)
        if whole:
            out.claims = self.claims.update(frame, matrix)
        return out

    def _update(self, record: Row, out: Update) -> None:
        key, before, now = key_of(record), self.of(record), integers_of(record)
        if record.status not in _SOUND:
            if before is not None or now or record.status == Status.MISSING:
                out.refused.append(record)
        elif now and before is None:
            self.schemes.setdefault(record.scheme, {})[key] = now
            out.added += 1
        elif now and before != now:
            self.schemes[record.scheme][key] = now
            out.changed += 1
        elif before and not now:
            del self.schemes[record.scheme][key]
            out.dropped += 1

    def _vanished(self, frame: pd.DataFrame) -> list[Drift]:
        """The drift of rows that must have a record but have none."""
        there, ran = _items(frame), Ran(rows(frame))
        out = []
        for held in self.schemes.values():
            for key, values in held.items():
                if key.item in there or not ran.expected(key.subject, key.environment):
                    continue
                out += [
                    Drift(*key.item, name, n, None, vanished=True) for name, n in values.items()
                ]
        return out

    def _drop(self, frame: pd.DataFrame) -> int:
        """Drop the rows of cases that are no longer collected.

        For a subject that ran on the row's kind of device: rows at any versions.  For any other
        subject: only the rows that count as vanished in this run.
        """
        there, ran = _items(frame), Ran(rows(frame))
        on = {(r.subject, r.device) for r in rows(frame) if r.case}
        dropped = 0
        for held in self.schemes.values():
            for key in [key for key in held if key.item not in there]:
                here = (key.subject, key.device) in on
                if here or ran.expected(key.subject, key.environment):
                    del held[key]
                    dropped += 1
        return dropped


def key_of(record: Record) -> Key:
    """The key of the baseline row for a record, or for a row of a frame."""
    where = Environment.of(record)
    return Key(
        record.subject,
        record.case,
        record.check,
        where.device,
        record.dtype,
        where.threads,
        where.versions,
    )


def integers_of(record: Record) -> Values:
    """The gated integers of a record that are not None."""
    held = {name: getattr(record, name) for name in INTEGERS}
    return {name: value for name, value in held.items() if value is not None}


def read(folder: Path) -> Baselines:
    """Every ``<scheme>.csv`` in `folder`, and the claims.  Raises BaselineError."""
    paths = [path for path in sorted(folder.glob("*.csv")) if path.name != claims_file.FILE]
    schemes = {
        path.stem: {Key(*key): values for key, values in read_rows(path, KEY, INTEGERS)}
        for path in paths
    }
    return Baselines(schemes, claims_file.read(folder))


def write(baselines: Baselines, folder: Path) -> list[Path]:
    """Write the files whose text changes, remove those without rows; return those paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {folder / f"{scheme}.csv": held for scheme, held in baselines.schemes.items()}
    touched = [path for path, held in paths.items() if write_rows(path, KEY, INTEGERS, held)]
    return touched + claims_file.write(baselines.claims, folder)


def _differences(record: Row, before: Values, now: Values) -> list[Drift]:
    return [
        Drift(record.subject, record.case, record.check, name, before.get(name), now.get(name))
        for name in INTEGERS
        if before.get(name) != now.get(name)
    ]


def _items(frame: pd.DataFrame) -> set[tuple[str, str, str]]:
    return set(zip(frame["subject"], frame["case"], frame["check"], strict=True))
