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

from harness.results.record import write_atomically

if TYPE_CHECKING:
    from harness.results.record import Record, Row

#: The integer of a drift that counts the cases which a subject claims; see `harness.gate.claims`.
CLAIMS = "claims"
_DIGITS = 19  # more than these are no count of bytes, and int() refuses thousands of them

_Key = TypeVar("_Key", bound=tuple[str, ...])


class Environment(NamedTuple):
    """What integers depend on beside case and check: device kind, threads and versions."""

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
        """(package, version) of each."""
        parts = (part.partition("=") for part in self.versions.split())
        return [(package, version) for package, _, version in parts]


class BaselineError(Exception):
    """A baseline file cannot be read; the message names file, line and column."""


@dataclass(frozen=True)
class Drift:
    """An integer that is not what the baseline says.  None: there is no such integer.

    vanished: nothing ran that could have had it.
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
    """Which subjects a run had, and where: decides which rows without a record have vanished."""

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
        """True if a row of `subject` in the environment `where` must have a record in a whole run.

        Of a subject that ran: in its own environment.  Of one without any record (not even that
        it is not installed): on this machine, at versions that no other subject contradicts.
        """
        if subject in self._subjects:
            return (subject, where) in self._here
        return (where.device, where.threads) in self._machines and all(
            version in self._versions.get(package, {version}) for package, version in where.packages
        )


def read_rows(
    path: Path, key: Sequence[str], values: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], dict[str, int]]]:
    """The keys and integers of one file, empty cells left out.  Raises BaselineError."""
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
            raise BaselineError(f"{where}: a second row of {' '.join(this[:3])}")
        seen.add(this)
        yield this, _integers(where, values, line[len(key) :])


def write_rows(
    path: Path,
    key: Sequence[str],
    values: Sequence[str],
    rows: Mapping[_Key, Mapping[str, int]],
) -> bool:
    """Write the rows a blank line apart, or remove the file of none; True if that changed it."""
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
    """A version without its local part: 2.13.0+cpu and 2.13.0 are one, device kind is a column."""
    try:
        return Version(version).public
    except InvalidVersion:
        return version
