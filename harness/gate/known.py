"""Known failures: what shipped releases get wrong, with cause, link and versions.

``suites/known_failures/<subject>.toml`` holds ``[[failure]]`` entries.  They are strict: a known
failure that passes is "fixed" and one that matches nothing is stale, and both turn the gate red.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from harness.results.ended import OUT_OF_MEMORY
from harness.results.finding import NAMES, Kind
from harness.results.record import Record


class KnownFailuresError(Exception):
    """A file of known failures is wrong; the message names file, entry and field."""


@dataclass(frozen=True)
class KnownFailure:
    """One entry.

    cases, checks: globs over Case.id, and names of checks.  first_bad, raises, match: what the
    failure must look like to be this one; `raises` makes the entry one of status "error".
    versions: PEP 440 specifiers by package, outside of which the entry does not apply.
    """

    subject: str
    id: str
    cases: tuple[str, ...]
    checks: tuple[str, ...]
    reason: str
    link: str
    versions: dict[str, str] = field(hash=False)
    first_bad: int | None = None
    raises: str | None = None
    match: str | None = None

    def applies(self, versions: Mapping[str, str]) -> bool:
        """True if every package of the entry is in `versions` at a version it names."""
        try:
            return all(
                name in versions
                and SpecifierSet(spec).contains(Version(versions[name]), prereleases=True)
                for name, spec in self.versions.items()
            )
        except InvalidVersion:
            return False

    def covers(self, record: Record) -> bool:
        """True if the record is of a case and check that the entry speaks of."""
        return self.speaks_of(record) and self.applies(record.versions)

    def speaks_of(self, record: Record) -> bool:
        """The same at any version: one that is missing states none."""
        return (
            record.subject == self.subject
            and record.check in self.checks
            and any(fnmatchcase(record.case, pattern) for pattern in self.cases)
        )

    def differs(self, record: Record) -> str:
        """How a broken record differs from this failure; "" if it is this one."""
        if record.status == "error" and self.raises is None:
            return "expects a failed check, not an error"
        if record.status == "fail" and self.raises is not None:
            return f"expects {self.raises}, not a failed check"
        if self.raises is not None and record.exception != self.raises:
            return f"expects {self.raises}, got {record.exception or 'no exception'}"
        if self.first_bad is not None and record.first_bad != self.first_bad:
            return f"expects first bad position {self.first_bad}, got {record.first_bad}"
        if self.match is not None and self.match not in record.message:
            return f"expects {self.match!r} in the message"
        return ""


def judge(record: Record, entries: Iterable[KnownFailure]) -> Record:
    """Give the record the status that known failures make of it, and return it.

    A failure that an entry describes becomes "known"; a pass of one that it covers, "fixed".  A
    failure that is not the described one stays what it is, and its message says how it differs.
    """
    covering = [entry for entry in entries if entry.covers(record)]
    if record.status == "pass" and covering:
        record.status, record.known = "fixed", covering[0].id
        record.message = f"known failure {covering[0].id} passes: remove its entry"
    if record.status not in {"fail", "error"} or not covering:
        return record
    if exhausted(record):
        return record
    differences = [entry.differs(record) for entry in covering]
    if "" in differences:
        record.status, record.known = "known", covering[differences.index("")].id
    else:
        record.message += f" (not the known failure {covering[0].id}: it {differences[0]})"
    return record


def exhausted(record: Record) -> bool:
    """True if the subject ran out of memory: never a known failure, whatever an entry says."""
    return record.kind == Kind.OUT_OF_MEMORY


def stale(entries: Iterable[KnownFailure], records: Iterable[Record]) -> list[KnownFailure]:
    """Entries that can match nothing: their case is gone, or their subject, or a package.

    Left alone: entries of subjects that are not installed, or whose versions do not apply here,
    and those whose records are missing: a lost shard says nothing of them.
    Only meaningful for a whole run: under a selection most entries cover nothing.
    """
    by_subject: dict[str, list[Record]] = {}
    for record in records:
        by_subject.setdefault(record.subject, []).append(record)
    return [entry for entry in entries if _is_stale(entry, by_subject.get(entry.subject, []))]


def _is_stale(entry: KnownFailure, records: list[Record]) -> bool:
    if records and not any(r.case for r in records):
        return False  # not installed, or not to be loaded: nothing could run
    if any(r.status == "missing" and entry.speaks_of(r) for r in records):
        return False
    if not any(set(entry.versions) <= set(r.versions) for r in records):
        return True  # a subject that is gone, or a package that its records do not state
    ran = [r for r in records if r.status != "not-claimed"]
    return any(entry.applies(r.versions) for r in records) and not any(map(entry.covers, ran))


def load(folder: Path) -> list[KnownFailure]:
    """Every entry of every file in `folder`; none where there is no folder.

    Raises KnownFailuresError.
    """
    return [entry for path in sorted(folder.glob("*.toml")) for entry in load_file(path)]


def load_file(path: Path) -> list[KnownFailure]:
    """The entries of one file, whose stem is the subject.  Raises KnownFailuresError."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise KnownFailuresError(f"{path.name} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise KnownFailuresError(f"{path.name}: {error}") from error
    if set(data) - {"failure"} or not isinstance(data.get("failure", []), list):
        raise KnownFailuresError(f"{path.name}: only [[failure]] entries are allowed")
    entries = [
        _entry(path, number, raw) for number, raw in enumerate(data.get("failure", ()), start=1)
    ]
    ids = [entry.id for entry in entries]
    for twice in {i for i in ids if ids.count(i) > 1}:
        raise KnownFailuresError(f"{path.name}: id {twice!r} is used more than once")
    return entries


_FIELDS = {f.name for f in fields(KnownFailure)} - {"subject"}
_REQUIRED = ("id", "cases", "checks", "reason", "link", "versions")


def _entry(path: Path, number: int, raw: Any) -> KnownFailure:
    where = f"{path.name}, failure {number}"
    if not isinstance(raw, dict):
        raise KnownFailuresError(f"{where}: must be a table")
    if isinstance(raw.get("id"), str):
        where += f" ({raw['id']})"
    for name in raw:
        if name not in _FIELDS:
            raise KnownFailuresError(
                f"{where}: unknown field {name!r}; allowed: {', '.join(sorted(_FIELDS))}"
            )
    for name in _REQUIRED:
        if name not in raw:
            raise KnownFailuresError(f"{where}: {name} is missing")
    return KnownFailure(
        subject=path.stem,
        id=_text(where, "id", raw["id"]),
        cases=_texts(where, "cases", raw["cases"]),
        checks=_checks(where, raw["checks"]),
        reason=_text(where, "reason", raw["reason"]),
        link=_link(where, raw["link"]),
        versions=_versions(where, raw["versions"]),
        first_bad=_position(where, raw.get("first_bad")),
        raises=_raises(where, raw.get("raises")),
        match=None if "match" not in raw else _text(where, "match", raw["match"]),
    )


def _text(where: str, name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise KnownFailuresError(f"{where}: {name} must be a text that is not empty, got {value!r}")
    return value


def _texts(where: str, name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise KnownFailuresError(f"{where}: {name} must be a list of texts, got {value!r}")
    return tuple(_text(where, name, item) for item in value)


def _checks(where: str, value: object) -> tuple[str, ...]:
    names = _texts(where, "checks", value)
    for name in names:
        if name not in NAMES:
            raise KnownFailuresError(
                f"{where}: checks: no check is named {name!r}; allowed: {', '.join(NAMES)}"
            )
    return names


def _link(where: str, value: object) -> str:
    link = _text(where, "link", value)
    if not link.startswith(("https://", "http://")):
        raise KnownFailuresError(f"{where}: link must be a URL, got {link!r}")
    return link


def _versions(where: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not value:
        raise KnownFailuresError(
            f'{where}: versions must be a table such as {{ torch = "==2.13.0" }}, got {value!r}'
        )
    for package, spec in value.items():
        try:
            SpecifierSet(_text(where, f"versions.{package}", spec))
        except InvalidSpecifier as error:
            raise KnownFailuresError(
                f"{where}: versions.{package} must be a PEP 440 specifier, got {spec!r}"
            ) from error
    return dict(value)


def _position(where: str, value: object) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise KnownFailuresError(f"{where}: first_bad must be an integer >= 0, got {value!r}")
    return value


def _raises(where: str, value: object) -> str | None:
    if value is None:
        return None
    name = _text(where, "raises", value)
    if name in OUT_OF_MEMORY:
        raise KnownFailuresError(f"{where}: raises: {name} is never a known failure")
    return name
