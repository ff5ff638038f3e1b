"""Reads and writes ``suites/known_failures``: causes written by people, cases by the machine.

``<package>.toml`` holds one table per cause, ``<package>.csv`` one row per case that shows it.
Everything is validated; the error for a mistake is one line that names file, entry and field.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from harness.gate.drift import BaselineError, read_rows, write_rows
from harness.gate.known import Cause, Place, Symptom
from harness.results.ended import OUT_OF_MEMORY
from harness.results.finding import NAMES

#: What a user sees, in this order: a wrong answer without an error; an exception; more bytes than
#: needed; bad input that is accepted, or that changes the state.
SEVERITIES = ("silent", "error", "bytes", "refusal")

FIELDS = ("subjects", "what", "why", "link", "versions", "severity", "checks")
#: Required if a case ends in an exception: a part of its message, in the package's own words.
MATCH = "match"
KEY = ("cause", "subject", "check", "case", "kind", "exception")
VALUES = ("first_bad",)


class KnownFailuresError(Exception):
    """A file of known failures is invalid; the message names file, entry and field."""


def load(*folders: Path) -> list[Cause]:
    """Every cause in the files of the folders; a folder that does not exist has none.

    Raises KnownFailuresError, also for an id that is used twice or a case under two causes.
    """
    tables = [path for folder in folders for path in sorted(folder.glob("*.toml"))]
    causes = [cause for path in tables for cause in _causes(path)]
    _refuse_second_ids(causes)
    by_id = {cause.id: cause for cause in causes}
    for folder in folders:
        for path in sorted(folder.glob("*.csv")):
            own = {name: cause for name, cause in by_id.items() if cause.package == path.stem}
            _file_cases(path, own)
    _refuse_second_places(causes)
    return causes


def write(causes: Iterable[Cause], folder: Path) -> list[Path]:
    """Write the CSV files whose text changes, remove those without rows; return those paths."""
    packages: dict[str, list[Cause]] = {}
    for cause in causes:
        packages.setdefault(cause.package, []).append(cause)
    return [
        path
        for package, held in packages.items()
        if write_rows(path := folder / f"{package}.csv", KEY, VALUES, _rows(held))
    ]


def _rows(causes: Iterable[Cause]) -> dict[tuple[str, ...], dict[str, int]]:
    return {
        (cause.id, *place, how.kind, how.exception): (
            {} if how.first_bad is None else {"first_bad": how.first_bad}
        )
        for cause in causes
        for place, how in cause.cases.items()
    }


def _file_cases(path: Path, causes: dict[str, Cause]) -> None:
    """Read one CSV file, and add its cases to the causes of its package."""
    try:
        held = list(read_rows(path, KEY, VALUES))
    except BaselineError as error:
        raise KnownFailuresError(str(error)) from error
    for (name, subject, check, case, kind, exception), values in held:
        where = f"{path.name}, {name} {subject} {check} {case}"
        if name not in causes:
            raise KnownFailuresError(
                f"{where}: cause: {path.stem}.toml has no {name!r}; "
                f"allowed: {', '.join(causes) or 'none'}"
            )
        cause, place = causes[name], Place(subject, check, case)
        _member(where, "subject", subject, cause.subjects)
        _member(where, "check", check, cause.checks)
        if exception in OUT_OF_MEMORY:
            raise KnownFailuresError(f"{where}: exception: {exception} is never a known failure")
        if exception and not cause.match:
            raise KnownFailuresError(
                f"{path.stem}.toml, {name}: {MATCH} is missing, a part of the exception's message: "
                f"{' '.join(place)} ends in {exception}"
            )
        if place in cause.cases:
            raise KnownFailuresError(f"{where}: case: a second row for {' '.join(place)}")
        cause.cases[place] = Symptom(kind, exception, values.get("first_bad"))


def _member(where: str, name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise KnownFailuresError(
            f"{where}: {name}: the cause does not list {value!r}; allowed: {', '.join(allowed)}"
        )


def _refuse_second_ids(causes: Iterable[Cause]) -> None:
    """Refuse an id used twice in all files: a record names its cause by the id alone."""
    seen: dict[str, Cause] = {}
    for cause in causes:
        if cause.id in seen:
            files = f"{seen[cause.id].package}.toml and {cause.package}.toml"
            raise KnownFailuresError(f"{files}: both have a cause {cause.id!r}")
        seen[cause.id] = cause


def _refuse_second_places(causes: Iterable[Cause]) -> None:
    seen: dict[Place, Cause] = {}
    for cause in causes:
        for place in cause.cases:
            if place in seen:
                other = seen[place]
                raise KnownFailuresError(
                    f"{cause.package}.csv: {' '.join(place)} is filed under two causes, "
                    f"{other.id} and {cause.id}"
                )
            seen[place] = cause


def _causes(path: Path) -> list[Cause]:
    """The causes in one TOML file, without their cases; the file's stem is the package."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise KnownFailuresError(f"{path.name} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise KnownFailuresError(f"{path.name}: {error}") from error
    return [_cause(path, name, raw) for name, raw in data.items()]


def _cause(path: Path, name: str, raw: Any) -> Cause:
    where = f"{path.name}, {name}"
    if not isinstance(raw, dict):
        raise KnownFailuresError(f"{where}: must be a table, one per cause, got {raw!r}")
    for key in raw:
        if key not in (*FIELDS, MATCH):
            raise KnownFailuresError(
                f"{where}: unknown field {key!r}; allowed: {', '.join((*FIELDS, MATCH))}"
            )
    for key in FIELDS:
        if key not in raw:
            raise KnownFailuresError(f"{where}: {key} is missing")
    return Cause(
        package=path.stem,
        id=name,
        subjects=_texts(where, "subjects", raw["subjects"]),
        checks=_checks(where, raw["checks"]),
        what=_text(where, "what", raw["what"]),
        why=_text(where, "why", raw["why"]),
        link=_link(where, raw["link"]),
        versions=_versions(where, raw["versions"]),
        severity=_severity(where, raw["severity"]),
        match=_text(where, MATCH, raw[MATCH]) if MATCH in raw else "",
    )


def _text(where: str, name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise KnownFailuresError(f"{where}: {name} must be a non-empty string, got {value!r}")
    return " ".join(value.split())


def _texts(where: str, name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise KnownFailuresError(f"{where}: {name} must be a list of strings, got {value!r}")
    return tuple(_text(where, name, item) for item in value)


def _checks(where: str, value: object) -> tuple[str, ...]:
    names = _texts(where, "checks", value)
    for name in names:
        if name not in NAMES:
            raise KnownFailuresError(
                f"{where}: checks: no check is named {name!r}; allowed: {', '.join(NAMES)}"
            )
    return names


def _severity(where: str, value: object) -> str:
    if value not in SEVERITIES:
        raise KnownFailuresError(
            f"{where}: severity must be one of {', '.join(SEVERITIES)}, got {value!r}"
        )
    return str(value)


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
