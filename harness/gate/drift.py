"""Differences from ``reports/baselines``, and how those files are read and written."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from packaging.version import InvalidVersion, Version

from harness.results.files import write_atomically

if TYPE_CHECKING:
    from harness.results.record import Record, Row

#: `Drift.integer` for a count of the cases that a subject claims; see `harness.gate.claims`.
CLAIMS = "claims"
_DIGITS = 19  # a number with more digits is not a byte count; int() refuses thousands

_Key = TypeVar("_Key", bound=tuple[str, ...])


class Environment(NamedTuple):
    """What integers depend on besides case and check: device kind, threads and versions."""

    device: str
    threads: str
    versions: str

    @classmethod
    def of(cls, record: Record) -> Environment:
        """The environment of a record, or of a row of a frame."""
        versions = " ".join(f"{k}={_public(v)}" for k, v in sorted(record.versions.items()))
        return cls(record.device, str(record.threads), versions)

    @property
    def packages(self) -> list[tuple[str, str]]:
        """(package, version) pairs."""
        parts = (part.partition("=") for part in self.versions.split())
        return [(package, version) for package, _, version in parts]


class BaselineError(Exception):
    """A baseline file cannot be read; the message names file and, if known, line and column."""


@dataclass(frozen=True)
class Drift:
    """An integer that differs from its baseline.  baseline or now is None if there is none.

    vanished: there is no record any more that could have the integer.
    """

    subject: str
    case: str
    check: str
    integer: str
    baseline: int | None
    now: int | None
    vanished: bool = False

    def __str__(self) -> str:
        change = " (vanished)" if self.vanished else ""
        if self.baseline is not None and self.now is not None:
            change = f" ({self.now - self.baseline:+d})"
        was, now = ("none" if v is None else str(v) for v in (self.baseline, self.now))
        if self.integer == CLAIMS:
            return f"{self.subject} {self.check}: claims {self.case}, the baseline {was}{change}"
        return f"{self.subject} {self.check} {self.case}: {self.integer} {was} -> {now}{change}"


class Ran:
    """Which subjects a run had, and where: decides if a row without a record has vanished."""

    def __init__(self, records: Iterable[Row]) -> None:
        self._subjects: set[str] = set()
        self._here: set[tuple[str, Environment]] = set()
        for record in records:
            self._subjects.add(record.subject)
            if record.case and record.device:
                self._here.add((record.subject, Environment.of(record)))
        self._machines = {(where.device, where.threads) for _, where in self._here}
        self._versions: dict[str, set[str]] = {}
        for _, where in self._here:
            for package, version in where.packages:
                self._versions.setdefault(package, set()).add(version)

    def expected(self, subject: str, where: Environment) -> bool:
        """True if a whole run must have a record for a row of `subject` in environment `where`.

        If the subject has records: only in the environments where it ran.  If it has none (not
        even one that says "not installed"): on this kind of device with this number of threads,
        at versions that no other subject contradicts.
        """
        if subject in self._subjects:
            return (subject, where) in self._here
        return (where.device, where.threads) in self._machines and all(
            version in self._versions.get(package, {version}) for package, version in where.packages
        )


def read_rows(
    path: Path, key: Sequence[str], values: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], dict[str, int]]]:
    """The keys and integers of one file, without empty cells.  Raises BaselineError."""
    header = [*key, *values]
    seen: set[tuple[str, ...]] = set()
    for number, line in _lines(path):
        if number == 1 or not line:
            if number == 1 and line != header:
                raise BaselineError(f"{path.name}: the header must read {','.join(header)}")
            continue
        where = f"{path.name}, line {number}"
        if len(line) != len(header):
            raise BaselineError(f"{where}: {len(line)} columns, not {len(header)}")
        this = tuple(line[: len(key)])
        if this in seen:
            raise BaselineError(f"{where}: a second row for {' '.join(this[:3])}")
        seen.add(this)
        yield this, _integers(where, values, line[len(key) :])


def write_rows(
    path: Path,
    key: Sequence[str],
    values: Sequence[str],
    rows: Mapping[_Key, Mapping[str, int]],
) -> bool:
    """Write the rows one blank line apart; without rows, remove the file.  True if it changed."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    text = _to_text(key, values, rows) if rows else ""
    if text == before:
        return False
    if text:
        write_atomically(path, text)
    else:
        path.unlink()
    return True


def _to_text(
    key: Sequence[str], values: Sequence[str], rows: Mapping[_Key, Mapping[str, int]]
) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*key, *values])
    for this in sorted(rows):
        out.write("\n")
        writer.writerow([*this, *(rows[this].get(name, "") for name in values)])
    return out.getvalue()


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        lines = csv.reader(io.StringIO(path.read_text(encoding="utf-8")))
        yield from ((lines.line_num, line) for line in lines)
        if lines.line_num == 0:
            yield 1, []
    except OSError as error:
        raise BaselineError(f"{path.name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BaselineError(f"{path.name} is not UTF-8: {error.reason}") from error
    except csv.Error as error:
        raise BaselineError(f"{path.name}, line {lines.line_num}: {error}") from error


def _integers(where: str, names: Collection[str], cells: Sequence[str]) -> dict[str, int]:
    out = {}
    for name, cell in zip(names, cells, strict=True):
        if cell and not (cell.isascii() and cell.isdigit() and len(cell) <= _DIGITS):
            raise BaselineError(f"{where}: {name} must be an integer >= 0, got {cell[:40]!r}")
        if cell:
            out[name] = int(cell)
    return out


@lru_cache(maxsize=1024)
def _public(version: str) -> str:
    """A version without its local part, such as "+cpu": the device kind is a column of its own."""
    try:
        return Version(version).public
    except InvalidVersion:
        return version
