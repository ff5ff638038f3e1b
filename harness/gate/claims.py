"""Claims: how many cases of each check a subject claims to support.

``reports/baselines/claims.csv`` keeps the counts of whole runs, one of the whole plan and one of
the short matrix, so that a subject that claims fewer cases than before is noticed, even in checks
that have no integers to compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.gate.drift import CLAIMS, Drift, Environment, Ran, read_rows, write_rows
from harness.results.finding import Status
from harness.results.folder import ALL, SHORT
from harness.results.record import rows

if TYPE_CHECKING:
    import pandas as pd

FILE = "claims.csv"
#: The column of each matrix.
COLUMNS = {ALL: "claimed", SHORT: "claimed_short"}
VALUES = tuple(COLUMNS.values())

#: Statuses that do not show whether the subject claims the case.
_UNDECIDED = frozenset({Status.ERROR, Status.MISSING})


class Key(NamedTuple):
    """What is counted: a subject and check, in one environment."""

    subject: str
    check: str
    device: str
    threads: str
    versions: str

    @property
    def environment(self) -> Environment:
        """Where it was counted."""
        return Environment(self.device, self.threads, self.versions)


KEY = Key._fields


@dataclass
class Count:
    """Numbers of cases of one subject and check.

    cases: all of them.  claimed: those without the status "not-claimed".  undecided: those counted
    as claimed whose record is an error or missing, so that the subject may not claim them.
    """

    cases: int = 0
    claimed: int = 0
    undecided: int = 0

    def may_be(self, claimed: int) -> bool:
        """True if `claimed` can be the true count, with any number of undecided cases claimed."""
        return self.claimed - self.undecided <= claimed <= self.claimed


class Claims:
    """Claimed cases by subject, check and environment.  Only whole runs have counts to compare.

    counts: of each matrix, by its name.
    """

    def __init__(self, counts: Mapping[str, Mapping[Key, int]] | None = None) -> None:
        self.counts = {matrix: dict((counts or {}).get(matrix, {})) for matrix in COLUMNS}

    def compare(self, frame: pd.DataFrame, matrix: str = ALL) -> list[Drift]:
        """Counts of a whole run of a matrix that differ from its baseline, in either direction.

        A check that is new to a subject had a count of 0 before.  A subject without any count in
        this environment is not compared.  A case that is missing or ended in an error may or may
        not be claimed, so it causes no drift.
        """
        now, ran, counts = count(frame), Ran(rows(frame)), self.counts[matrix]
        counted = _counted(counts)
        out = []
        for key, found in now.items():
            before = counts.get(key, 0)
            if (key.subject, key.environment) in counted and not found.may_be(before):
                out.append(_drift(key, before, found))
        for key, before in counts.items():
            if key not in now and ran.expected(key.subject, key.environment):
                out.append(_vanished(key, before))
        return out

    def unknown(self, frame: pd.DataFrame, matrix: str = ALL) -> list[str]:
        """Subjects of a whole run for which there is no count in their environment."""
        counted = _counted(self.counts[matrix])
        return sorted(
            {key.subject for key in count(frame) if (key.subject, key.environment) not in counted}
        )

    def update(self, frame: pd.DataFrame, matrix: str = ALL) -> int:
        """Take over the counts of a whole run of a matrix; return how many of them changed.

        A count with undecided cases is left as it was.  A row is removed if the run should have
        cases for it and has none.
        """
        now, ran, counts = count(frame), Ran(rows(frame)), self.counts[matrix]
        before = dict(counts)
        for key, found in now.items():
            if not found.undecided:
                counts[key] = found.claimed
        for key in before:
            if key not in now and ran.expected(key.subject, key.environment):
                del counts[key]
        keys = before.keys() | counts.keys()
        return sum(before.get(key) != counts.get(key) for key in keys)


def _counted(counts: Iterable[Key]) -> set[tuple[str, Environment]]:
    """The (subject, environment) pairs that have counts."""
    return {(key.subject, key.environment) for key in counts}


def count(frame: pd.DataFrame) -> dict[Key, Count]:
    """The counts of a run.  A missing record counts in the environment where its subject ran."""
    of_cases = [r for r in rows(frame) if r.case and r.status != Status.NOT_INSTALLED]
    places = {r.subject: Environment.of(r) for r in of_cases if r.device}
    out: dict[Key, Count] = {}
    for record in of_cases:
        if record.subject not in places:
            continue
        where = Environment.of(record) if record.device else places[record.subject]
        found = out.setdefault(Key(record.subject, record.check, *where), Count())
        found.cases += 1
        if record.status != Status.NOT_CLAIMED:
            found.claimed += 1
        if record.status in _UNDECIDED:
            found.undecided += 1
    return out


def read(folder: Path) -> Claims:
    """The claims in `folder`; none if it has no file of claims.  Raises BaselineError."""
    path = folder / FILE
    held: Iterable[tuple[tuple[str, ...], dict[str, int]]] = ()
    if path.exists():
        held = read_rows(path, KEY, VALUES)
    read = [(Key(*key), values) for key, values in held]
    return Claims(
        {
            matrix: {key: values[column] for key, values in read if column in values}
            for matrix, column in COLUMNS.items()
        }
    )


def write(claims: Claims, folder: Path) -> list[Path]:
    """Write the file if its text changes; return the paths written."""
    path = folder / FILE
    held: dict[Key, dict[str, int]] = {}
    for matrix, column in COLUMNS.items():
        for key, claimed in claims.counts[matrix].items():
            held.setdefault(key, {})[column] = claimed
    return [path] if write_rows(path, KEY, VALUES, held) else []


def _drift(key: Key, before: int, now: Count) -> Drift:
    words = f"{now.claimed} of {now.cases} cases"
    return Drift(key.subject, words, key.check, CLAIMS, before, now.claimed)


def _vanished(key: Key, before: int) -> Drift:
    """The drift for a check without any collected case."""
    return Drift(key.subject, "0 of 0 cases", key.check, CLAIMS, before, None, vanished=True)
