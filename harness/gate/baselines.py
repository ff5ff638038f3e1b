"""Baselines: the exact integers of earlier runs, one CSV per scheme, compared to the byte.

A row is keyed by everything that its integers depend on: subject, case, check, device kind,
dtype, threads and versions.  Where no row fits (another machine, a newer torch) there is nothing
to compare.  Rows stand one blank line apart, so that branches that change neighbouring rows merge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.gate import claims as claims_file
from harness.gate.claims import Claims
from harness.gate.drift import (
    BaselineError,
    Drift,
    Key,
    Ran,
    environment,
    read_rows,
    write_rows,
)
from harness.results.record import INTEGERS, Record

__all__ = [
    "BaselineError",
    "Baselines",
    "Comparison",
    "Drift",
    "Update",
    "integers_of",
    "key_of",
    "read",
    "write",
]

KEY = ("subject", "case", "check", "device", "dtype", "threads", "versions")
#: first_bad is gated for known failures alone: of any other record it is no integer to keep.
VALUES = (*INTEGERS, "first_bad")

Values = dict[str, int]


@dataclass
class Comparison:
    """drift: integers that differ, either way.  unknown: records whose integers no row fits."""

    drift: list[Drift] = field(default_factory=list)
    unknown: list[Record] = field(default_factory=list)


@dataclass
class Update:
    """What an update did, in rows.

    claims: rows of the file of claims that changed.  refused: records whose run does not vouch
    for its integers.
    """

    added: int = 0
    changed: int = 0
    dropped: int = 0
    claims: int = 0
    refused: list[Record] = field(default_factory=list)


class Baselines:
    """The rows of every scheme, by scheme and key, and what was claimed."""

    def __init__(
        self,
        schemes: Mapping[str, Mapping[Key, Values]] | None = None,
        claims: Claims | None = None,
    ) -> None:
        self.schemes = {name: dict(rows) for name, rows in (schemes or {}).items()}
        self.claims = claims or Claims()

    def of(self, record: Record) -> Values | None:
        """The integers that the baselines hold for a record; None where no row fits."""
        return self.schemes.get(record.scheme, {}).get(key_of(record))

    def compare(self, records: Iterable[Record], *, whole: bool = False) -> Comparison:
        """Compare every record that ran with its row.

        whole: every case was to run, so that a row without a record has vanished, and drifts too,
        and so does a count of claims.
        """
        records = list(records)
        out = Comparison()
        for record in records:
            row, now = self.of(record), integers_of(record)
            if record.status == "error" or (not now and row is None):
                continue
            if row is None:
                out.unknown += [record] * (record.status in {"pass", "known"})
            elif record.status in {"fail", "fixed"}:  # red by itself, and may have stopped half-way
                out.drift += _differences(record, {k: row[k] for k in row if k in now}, now)
            else:
                out.drift += _differences(record, row, now)
        if whole:
            out.drift += self._vanished(records)
            out.drift += self.claims.compare(records)
        return out

    def update(self, records: Iterable[Record], *, whole: bool = False) -> Update:
        """Take over what drifted or is new; every other row stays as it is.

        A row whose record failed or broke is kept and the record refused.  whole: rows of cases
        that are no longer collected are dropped, and the claims taken over.
        """
        records = list(records)
        out = Update()
        for record in records:
            if not record.case:
                continue
            row, now = self.of(record), integers_of(record)
            if record.status not in {"pass", "known", "not-claimed"}:
                if row is not None or now or record.status == "missing":
                    out.refused.append(record)
            elif now and row != now:
                self.schemes.setdefault(record.scheme, {})[key_of(record)] = now
                out.changed, out.added = out.changed + bool(row), out.added + (row is None)
            elif row and not now:
                del self.schemes[record.scheme][key_of(record)]
                out.dropped += 1
        if whole:
            out.dropped += self._drop(records)
            out.claims = self.claims.update(records)
        return out

    def _vanished(self, records: list[Record]) -> list[Drift]:
        """Rows that must have a record, and have none."""
        there = {key_of(r)[:3] for r in records}
        ran = Ran(records)
        return [
            Drift(key[0], key[1], key[2], name, value, None, vanished=True)
            for rows in self.schemes.values()
            for key, row in rows.items()
            if key[:3] not in there and ran.expected(key[0], _environment(key))
            for name, value in row.items()
        ]

    def _drop(self, records: list[Record]) -> int:
        """Drop the rows of cases that are no longer collected.

        Of a subject that ran on this kind of device those of any versions; of one that is gone
        those that count as vanished here.
        """
        there = {key_of(r)[:3] for r in records}
        on = {(r.subject, r.device) for r in records if r.case}
        ran = Ran(records)
        dropped = 0
        for rows in self.schemes.values():
            for key in [k for k in rows if k[:3] not in there]:
                if (key[0], key[3]) in on or ran.expected(key[0], _environment(key)):
                    del rows[key]
                    dropped += 1
        return dropped


def key_of(record: Record) -> Key:
    """The key of a record's row."""
    device, threads, versions = environment(record)
    what = (record.subject, record.case, record.check)
    return (*what, device, record.dtype, threads, versions)


def integers_of(record: Record) -> Values:
    """The integers of a record that are gated."""
    names = VALUES if record.status == "known" else INTEGERS
    return {name: v for name in names if (v := getattr(record, name)) is not None}


def read(folder: Path) -> Baselines:
    """Every ``<scheme>.csv`` in `folder`, and the claims.  Raises BaselineError."""
    paths = [path for path in sorted(folder.glob("*.csv")) if path.name != claims_file.FILE]
    schemes = {path.stem: dict(read_rows(path, KEY, VALUES)) for path in paths}
    return Baselines(schemes, claims_file.read(folder))


def write(baselines: Baselines, folder: Path) -> list[Path]:
    """Write the files whose text changes, remove those without rows; the paths touched."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {folder / f"{scheme}.csv": rows for scheme, rows in baselines.schemes.items()}
    touched = [path for path, rows in paths.items() if write_rows(path, KEY, VALUES, rows)]
    return touched + claims_file.write(baselines.claims, folder)


def _differences(record: Record, row: Values, now: Values) -> list[Drift]:
    names = [name for name in VALUES if row.get(name) != now.get(name)]
    return [
        Drift(record.subject, record.case, record.check, name, row.get(name), now.get(name))
        for name in names
    ]


def _environment(key: Key) -> Key:
    """Device kind, threads and versions of a row's key, as `environment` has them of a record."""
    return (key[3], *key[5:])
