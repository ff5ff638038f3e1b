"""The short matrix: the part of the plan that is run by default, listed in ``suites/short.csv``.

`harness short` chooses it (see `harness.cover`); ``--all`` runs the whole plan instead.  A subject
without a row is run in full: nobody has yet measured which of its cases are needed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.results.check_info import NAMES
from harness.results.files import write_atomically

FILE = "short.csv"
HEADER = ("subject", "check", "case", "shows")

#: (check, id of the case).
Place = tuple[str, str]


class ShortError(Exception):
    """The list of the short matrix cannot be read; the message names file, line and field."""


@dataclass(frozen=True)
class Short:
    """The listed cases by subject: {(check, case): what it shows there that no other does}."""

    rows: Mapping[str, Mapping[Place, str]] = field(default_factory=dict)

    def takes(self, subject: str, check: str, case: str) -> bool:
        """True if the case is in the short matrix; every case of a subject without a row is."""
        return subject not in self.rows or (check, case) in self.rows[subject]

    def lost(self, subject: str, planned: Iterable[Place]) -> list[Place]:
        """The listed cases of a subject that its plan does not hold any more."""
        there = set(planned)
        return [place for place in self.rows.get(subject, ()) if place not in there]


def read(*folders: Path) -> Short:
    """The lists in folders of suites; a folder without one adds nothing.  Raises ShortError."""
    rows: dict[str, dict[Place, str]] = {}
    for path in (folder / FILE for folder in folders):
        if not path.exists():
            continue
        for number, line in _lines(path):
            if len(line) != len(HEADER):
                raise ShortError(f"{path.name}, line {number}: {len(line)} columns, not 4")
            subject, check, case, shows = line
            if check not in NAMES:
                raise ShortError(
                    f"{path.name}, line {number}: no check is named {check!r}; "
                    f"allowed: {', '.join(NAMES)}"
                )
            rows.setdefault(subject, {})[check, case] = shows
    return Short(rows)


def write(short: Short, folder: Path) -> Path:
    """Write the list into a folder of suites, sorted; returns its path."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    for subject, held in sorted(short.rows.items()):
        writer.writerows((subject, *place, held[place]) for place in sorted(held))
    path = folder / FILE
    write_atomically(path, out.getvalue())
    return path


def _lines(path: Path) -> Iterable[tuple[int, list[str]]]:
    """The numbered rows below the header."""
    try:
        lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ShortError(f"{path.name} cannot be read: {error}") from error
    if not lines or tuple(lines[0]) != HEADER:
        raise ShortError(f"{path.name}: the header must read {','.join(HEADER)}")
    return ((number, line) for number, line in enumerate(lines[1:], 2) if line)
