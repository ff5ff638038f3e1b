"""Updates the cases of known failures: filed ones follow a run, a person files new ones."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from harness.gate import known
from harness.gate.known import Cause, Place, Symptom
from harness.results.finding import Status
from harness.results.record import rows
from harness.results.text import cut

if TYPE_CHECKING:
    import pandas as pd

    from harness.results.record import Row

_CLIPPED = 200  # characters of a message
_BROKEN = (Status.FAIL.value, Status.ERROR.value)


class CannotFile(Exception):
    """The records cannot be filed as asked; the message is one line."""


@dataclass
class Refiled:
    """What an update did.

    moved: cases that now fail in another way under the same cause.  dropped: cases that pass or
    are gone.  frame: the records with their status after the update.
    """

    frame: pd.DataFrame
    moved: int = 0
    dropped: int = 0


@dataclass
class Filed:
    """added: cases filed under a cause.  refused: crashes, hangs and exhausted memory."""

    added: list[Place] = field(default_factory=list)
    refused: list[Place] = field(default_factory=list)


def update(causes: Sequence[Cause], frame: pd.DataFrame, *, whole: bool = False) -> Refiled:
    """Adapt the filed cases to the records of a run; no new case is filed.

    A case that fails in another way keeps its cause, unless it ends in an exception without the
    text that the cause gives as `match`.  A case that passes is dropped.  whole: every case was to
    run, so a case that did not run is dropped as well.
    """
    out = Refiled(frame.copy())
    dropped, moved = [], []
    for index, row in _indexed(frame, (*_BROKEN, Status.FIXED.value)):
        cause = known.filed_under(row, causes)
        if cause is None or not cause.applies(row.versions):
            continue
        if row.status == Status.FIXED:
            del cause.cases[Place.of(row)]
            dropped.append(index)
        elif _may_be_known(row) and cause.speaks(row):
            cause.cases[Place.of(row)] = Symptom.of(row)
            moved.append((index, cause.id))
    gone = known.stale(causes, frame) if whole else []
    for found in gone:
        for place in found.places:
            del found.cause.cases[place]
    out.moved = len(moved)
    out.dropped = len(dropped) + sum(len(found.places) for found in gone)
    out.frame.loc[dropped, ["status", "known"]] = (Status.PASS.value, "")
    for index, name in moved:
        out.frame.loc[index, ["status", "known"]] = (Status.KNOWN.value, name)
    return out


def file_under(
    name: str,
    causes: Sequence[Cause],
    frame: pd.DataFrame,
    *,
    subjects: Collection[str] = (),
    checks: Collection[str] = (),
    cases: Sequence[str] = (),
) -> Filed:
    """File the broken records of a run under the cause `name`, which a person has written.

    subjects, checks: which records to file; by default all that the cause lists.  cases: globs;
    by default every case.  A record already filed under another cause moves to this one.
    Raises CannotFile.
    """
    cause = _named(name, causes)
    _listed(cause, "subject", subjects, cause.subjects)
    _listed(cause, "check", checks, cause.checks)
    chosen = [
        row
        for _, row in _indexed(frame, _BROKEN)
        if row.subject in (subjects or cause.subjects)
        and row.check in (checks or cause.checks)
        and (not cases or any(fnmatchcase(row.case, pattern) for pattern in cases))
    ]
    if not chosen:
        raise CannotFile(f"--cause {name}: the last run has no broken record to file")
    out = Filed()
    for row in chosen:
        if not cause.applies(row.versions):
            raise CannotFile(
                f"--cause {name}: applies to {_words(cause.versions)}, "
                f"but the records are from {_words(row.versions)}"
            )
        place = Place.of(row)
        if not _may_be_known(row):
            out.refused.append(place)
            continue
        if not cause.speaks(row):
            expected = f"has match {cause.match!r}" if cause.match else "has no match"
            said = cut(row.message, _CLIPPED)
            raise CannotFile(f"--cause {name}: {expected}, but {' '.join(place)} says {said!r}")
        for other in causes:
            other.cases.pop(place, None)
        cause.cases[place] = Symptom.of(row)
        out.added.append(place)
    return out


def _indexed(frame: pd.DataFrame, statuses: Collection[str]) -> Iterator[tuple[int, Row]]:
    held = frame[frame["status"].isin(list(statuses))]
    return zip(held.index.tolist(), rows(held), strict=True)


def _may_be_known(row: Row) -> bool:
    """False for what is never a known failure: a crash, a hang, a machine out of memory."""
    came_back = row.status == Status.FAIL or bool(row.exception)
    return came_back and not known.exhausted(row)


def _named(name: str, causes: Sequence[Cause]) -> Cause:
    by_id = {cause.id: cause for cause in causes}
    if name not in by_id:
        near = difflib.get_close_matches(name, by_id, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"causes: {', '.join(by_id) or 'none'}"
        raise CannotFile(f"--cause: no cause is named {name!r}; {hint}")
    return by_id[name]


def _listed(cause: Cause, option: str, given: Collection[str], allowed: Sequence[str]) -> None:
    for value in given:
        if value not in allowed:
            raise CannotFile(
                f"--{option}: {cause.id} does not list {value!r}; allowed: {', '.join(allowed)}"
            )


def _words(versions: dict[str, str]) -> str:
    return ", ".join(f"{package} {version}" for package, version in versions.items())
