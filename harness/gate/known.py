"""Known failures: what released packages get wrong, and which records each cause explains.

A cause is written once, by a person, in ``suites/known_failures/<package>.toml``.  The cases that
show it are in the CSV file of the same name, which ``harness baseline update`` keeps up to date.
Both are strict: a filed case that passes is "fixed", one that fails in another way stays red, and a
cause or a case that matches nothing is stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from harness.results.ended import OUT_OF_MEMORY
from harness.results.finding import Kind, Status
from harness.results.record import rows

if TYPE_CHECKING:
    import pandas as pd

    from harness.results.record import Record, Row


class Place(NamedTuple):
    """The subject, check and case of a record."""

    subject: str
    check: str
    case: str

    @classmethod
    def of(cls, record: Record) -> Place:
        """The place of a record, or of a row of a frame."""
        return cls(record.subject, record.check, record.case)


class Symptom(NamedTuple):
    """How a case fails.  exception: "" if the check ran to its end and does not hold."""

    kind: str
    exception: str
    first_bad: int | None

    @classmethod
    def of(cls, record: Record) -> Symptom:
        """The symptom of a broken record, or of a row of a frame."""
        return cls(record.kind, record.exception, record.first_bad)

    def differs(self, record: Record) -> str:
        """How a broken record differs from this symptom, in words; "" if it does not."""
        now = Symptom.of(record)
        pairs = (
            ("kind", self.kind, now.kind),
            ("exception", self.exception, now.exception),
            ("first bad position", self.first_bad, now.first_bad),
        )
        parts = [
            f"with {_named(name, was)}, now {'none' if is_now in {None, ''} else is_now}"
            for name, was, is_now in pairs
            if was != is_now
        ]
        if record.status == Status.ERROR and not now.exception:
            parts = ["but the check did not come back"]  # a crash or hang is never a known failure
        return "; ".join(parts)


@dataclass(frozen=True)
class Cause:
    """One cause of known failures.

    package: the stem of its files.  subjects, checks: those that it may break.  what: what goes
    wrong.  why: the mechanism, with file and lines.  versions: PEP 440 specifiers by package; the
    cause does not apply to other versions.  severity: one of `known_files.SEVERITIES`.  match: a
    part of the exception's message, if cases end in an exception; its type alone would also cover
    other faults that raise it.  cases: the cases that show it, and how each fails.
    """

    package: str
    id: str
    subjects: tuple[str, ...]
    checks: tuple[str, ...]
    what: str
    why: str
    link: str
    versions: dict[str, str] = field(hash=False)
    severity: str
    match: str = ""
    cases: dict[Place, Symptom] = field(default_factory=dict, hash=False)

    @property
    def reason(self) -> str:
        """What goes wrong and why, as one text."""
        return f"{self.what} {self.why}"

    def speaks(self, record: Record) -> bool:
        """True if a record has no exception, or its message contains the cause's `match`."""
        return not record.exception or bool(self.match and self.match in record.message)

    def differs(self, record: Record) -> str:
        """How a broken record differs from its filed case, in words; "" if it does not."""
        difference = self.cases[Place.of(record)].differs(record)
        if not difference and not self.speaks(record):
            difference = f"with an exception that says {self.match!r}"
        return difference

    def applies(self, versions: Mapping[str, str]) -> bool:
        """True if `versions` has every package of the cause, at a version that the cause allows."""
        return all(
            name in versions and _holds(spec, versions[name])
            for name, spec in self.versions.items()
        )


@dataclass(frozen=True)
class Stale:
    """Cases of one subject that are filed under a cause but matched no record of a whole run.

    places: the cases; empty if the cause has no filed case of the subject.
    """

    cause: Cause
    subject: str
    places: tuple[Place, ...] = ()

    @property
    def id(self) -> str:
        """The id of the cause."""
        return self.cause.id

    def __str__(self) -> str:
        """One line: the file and the cause, and what is wrong."""
        where = f"{self.cause.package}.toml, {self.id}"
        if not self.places:
            return f"{where}: no case of {self.subject} is filed under it"
        more = f" and {len(self.places) - 1} more" if len(self.places) > 1 else ""
        return f"{where}: did not run: {' '.join(self.places[0])}{more}"


def judge(record: Record, causes: Iterable[Cause]) -> Record:
    """Set the status of a record from the known failures, and return the record.

    If its case is filed under a cause, a failure becomes "known" and a pass "fixed".  A failure
    of another kind than filed keeps its status, and its message says how it differs.
    """
    cause = filed_under(record, causes)
    if cause is None or not cause.applies(record.versions):
        return record
    if record.status == Status.PASS:
        record.status, record.known = Status.FIXED.value, cause.id
        record.message = f"known failure {cause.id} passes: `harness baseline update` removes it"
    elif record.status in {Status.FAIL, Status.ERROR} and not exhausted(record):
        difference = cause.differs(record)
        if difference:
            record.message += f" (filed under {cause.id} {difference})"
        else:
            record.status, record.known = Status.KNOWN.value, cause.id
    return record


def filed_under(record: Record, causes: Iterable[Cause]) -> Cause | None:
    """The cause under which a record's case is filed, whether or not its versions fit."""
    place = Place.of(record)
    return next((cause for cause in causes if place in cause.cases), None)


def exhausted(record: Record) -> bool:
    """True if the subject ran out of memory, which is never a known failure."""
    return record.kind == Kind.OUT_OF_MEMORY or record.exception in OUT_OF_MEMORY


def stale(causes: Iterable[Cause], frame: pd.DataFrame) -> list[Stale]:
    """Causes that match nothing: a case, subject or package is gone, or no case is filed.

    Not stale: causes of subjects that are not installed, or whose versions the cause excludes, and
    cases whose records are missing, since a lost shard says nothing about them.
    Only meaningful for a whole run: in a partial run most cases have no record.
    """
    by_subject: dict[str, list[Row]] = {}
    for row in rows(frame):
        by_subject.setdefault(row.subject, []).append(row)
    return [
        found
        for cause in causes
        for subject in cause.subjects
        if (found := _stale(cause, subject, by_subject.get(subject, [])))
    ]


def _stale(cause: Cause, subject: str, records: Sequence[Row]) -> Stale | None:
    if records and not any(r.case for r in records):
        return None  # not installed or not loadable: nothing could run
    came = [r for r in records if r.status != Status.MISSING]
    applied = [r for r in came if cause.applies(r.versions)]
    stated = any(set(cause.versions) <= set(r.versions) for r in came)
    if stated and not applied:
        return None
    lost = {Place.of(r) for r in records if r.status == Status.MISSING}
    ran = {Place.of(r) for r in applied if r.status != Status.NOT_CLAIMED}
    filed = [place for place in cause.cases if place.subject == subject]
    gone = tuple(place for place in filed if place not in ran | lost)
    silent = not filed and (came or not records)
    return Stale(cause, subject, gone) if gone or silent else None


@lru_cache(maxsize=4096)
def _holds(spec: str, version: str) -> bool:
    try:
        return SpecifierSet(spec).contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False


def _named(name: str, value: object) -> str:
    return f"no {name}" if value in {None, ""} else f"{name} {value}"
