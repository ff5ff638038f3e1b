"""Baselines: the exact integers of earlier runs, one CSV per scheme, compared to the byte.

A row is keyed by everything that its integers depend on: subject, case, check, device kind,
dtype, threads and versions.  Where no row fits (another machine, a newer torch) there is nothing
to compare.  Rows stand one blank line apart, so that branches that change neighbouring rows merge.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.version import InvalidVersion, Version

from harness.gate.records import INTEGERS, Record, write_atomically

KEY = ("subject", "case", "check", "device", "dtype", "threads", "versions")
#: first_bad is gated for known failures alone: of any other record it is no integer to keep.
VALUES = (*INTEGERS, "first_bad")

Key = tuple[str, ...]
Values = dict[str, int]


class BaselineError(Exception):
    """A baseline file cannot be read; the message names file, line and column."""


@dataclass(frozen=True)
class Drift:
    """An integer that is not what the baseline says.  None: there is no such integer."""

    subject: str
    case: str
    check: str
    integer: str
    baseline: int | None
    now: int | None

    def __str__(self) -> str:
        change = ""
        if self.baseline is not None and self.now is not None:
            change = f" ({self.now - self.baseline:+d})"
        was, now = ("none" if v is None else str(v) for v in (self.baseline, self.now))
        return f"{self.subject} {self.check} {self.case}: {self.integer} {was} -> {now}{change}"


@dataclass
class Comparison:
    """drift: integers that differ, either way.  unknown: records whose integers no row fits."""

    drift: list[Drift] = field(default_factory=list)
    unknown: list[Record] = field(default_factory=list)


@dataclass
class Update:
    """What an update did, in rows; refused: records whose run does not vouch for its integers."""

    added: int = 0
    changed: int = 0
    dropped: int = 0
    refused: list[Record] = field(default_factory=list)


class Baselines:
    """The rows of every scheme, by scheme and key."""

    def __init__(self, schemes: Mapping[str, Mapping[Key, Values]] | None = None) -> None:
        self.schemes = {name: dict(rows) for name, rows in (schemes or {}).items()}

    def of(self, record: Record) -> Values | None:
        """The integers that the baselines hold for a record; None where no row fits."""
        return self.schemes.get(record.scheme, {}).get(key_of(record))

    def compare(self, records: Iterable[Record], *, whole: bool = False) -> Comparison:
        """Compare every record that ran with its row.

        whole: every case was to run, so that a row without a record has vanished, and drifts too.
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
        return out

    def update(self, records: Iterable[Record], *, whole: bool = False) -> Update:
        """Take over what drifted or is new; every other row stays as it is.

        A row whose record failed or broke is kept and the record refused.  whole: rows of cases
        that are no longer collected are dropped.
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
        return out

    def _vanished(self, records: list[Record]) -> list[Drift]:
        """Rows of this machine and these versions, of subjects that ran, without a record."""
        there = {key_of(r)[:3] for r in records}
        here = {(r.subject, _environment(key_of(r))) for r in records if r.case}
        return [
            Drift(key[0], key[1], key[2], name, value, None)
            for rows in self.schemes.values()
            for key, row in rows.items()
            if (key[0], _environment(key)) in here and key[:3] not in there
            for name, value in row.items()
        ]

    def _drop(self, records: list[Record]) -> int:
        """Drop the rows, of any versions, of cases that this kind of device no longer collects."""
        there = {key_of(r)[:3] for r in records}
        ran = {(r.subject, r.device) for r in records if r.case}
        dropped = 0
        for rows in self.schemes.values():
            for key in [k for k in rows if (k[0], k[3]) in ran and k[:3] not in there]:
                del rows[key]
                dropped += 1
        return dropped


def key_of(record: Record) -> Key:
    """The key of a record's row."""
    versions = " ".join(f"{k}={_public(v)}" for k, v in sorted(record.versions.items()))
    return (
        record.subject,
        record.case,
        record.check,
        record.device,
        record.dtype,
        str(record.threads),
        versions,
    )


def integers_of(record: Record) -> Values:
    """The integers of a record that are gated."""
    names = VALUES if record.status == "known" else INTEGERS
    return {name: v for name in names if (v := getattr(record, name)) is not None}


def read(folder: Path) -> Baselines:
    """The baselines of every ``<scheme>.csv`` in `folder`.  Raises BaselineError."""
    return Baselines({path.stem: _read_file(path) for path in sorted(folder.glob("*.csv"))})


def write(baselines: Baselines, folder: Path) -> list[Path]:
    """Write the schemes whose text changes, remove those without rows; the paths touched."""
    folder.mkdir(parents=True, exist_ok=True)
    touched = []
    for scheme, rows in baselines.schemes.items():
        path = folder / f"{scheme}.csv"
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        text = _to_text(rows) if rows else ""
        if text == before:
            continue
        touched.append(path)
        if text:
            write_atomically(path, text)
        else:
            path.unlink()
    return touched


def _differences(record: Record, row: Values, now: Values) -> list[Drift]:
    names = [name for name in VALUES if row.get(name) != now.get(name)]
    return [
        Drift(record.subject, record.case, record.check, name, row.get(name), now.get(name))
        for name in names
    ]


def _environment(key: Key) -> Key:
    """Device kind, threads and versions of a key."""
    return (key[3], *key[5:])


def _public(version: str) -> str:
    """A version without its local part: 2.13.0+cpu and 2.13.0 are one, device kind is a column."""
    try:
        return Version(version).public
    except InvalidVersion:
        return version


def _to_text(rows: Mapping[Key, Values]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(KEY + VALUES)
    for key in sorted(rows):
        out.write("\n")
        writer.writerow([*key, *(rows[key].get(name, "") for name in VALUES)])
    return out.getvalue()


def _read_file(path: Path) -> dict[Key, Values]:
    lines = csv.reader(io.StringIO(path.read_text(encoding="utf-8")))
    if tuple(next(lines, ())) != KEY + VALUES:
        raise BaselineError(f"{path.name}: the header must read {','.join(KEY + VALUES)}")
    rows: dict[Key, Values] = {}
    for line in lines:
        if not line:
            continue
        where = f"{path.name}, line {lines.line_num}"
        if len(line) != len(KEY) + len(VALUES):
            raise BaselineError(f"{where}: {len(line)} columns, not {len(KEY) + len(VALUES)}")
        key = tuple(line[: len(KEY)])
        if key in rows:
            raise BaselineError(f"{where}: a second row of {' '.join(key[:3])}")
        rows[key] = _values(where, line[len(KEY) :])
    return rows


def _values(where: str, cells: list[str]) -> Values:
    out = {}
    for name, cell in zip(VALUES, cells, strict=True):
        if cell and not cell.isdecimal():
            raise BaselineError(f"{where}: {name} must be an integer >= 0, got {cell!r}")
        if cell:
            out[name] = int(cell)
    return out
