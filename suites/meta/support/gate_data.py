"""Records and known failures for the tests of the gate."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from harness.cases.case import parse
from harness.gate.known import Cause
from harness.gate.known_files import KEY, VALUES, load
from harness.results import record as records
from harness.results.folder import Folder, RunInfo
from harness.results.record import Origin, Record

CASE = "mistral/chunk-4/float32/b1"

ENTRY = """
[B1]
subjects = ["ours"]
what = "queries see too much"
why = "the mask is made before the update"
link = "https://example.org/issues/1"
versions = { torch = "==2.*" }
severity = "silent"
checks = ["values", "visibility"]
"""
#: The same, of cases that end in an exception.
RAISES = ENTRY + 'match = "no such slot"\n'
SAYS = "RuntimeError: no such slot: 9"


def record(**changes: object) -> Record:
    """A passed record of one check, with changes."""
    fields: dict[str, object] = {
        "run": "r1",
        "item": f"values::{changes.get('case', CASE)}",
        "subject": "ours",
        "check": "values",
        "status": "pass",
        "scheme": "uniform",
        "model": "mistral",
        "schedule": "chunk-4",
        "dtype": "float32",
        "batch": 1,
        "case": CASE,
        "device": "cpu",
        "threads": 1,
        "versions": {"torch": "2.13.0+cpu"},
        "seconds": 0.1,
        "reproduce": f"harness check ours --case {CASE} --check values",
    }
    return Record(**(fields | changes))


def row(
    cause: str = "B1",
    subject: str = "ours",
    check: str = "values",
    case: str = CASE,
    kind: str = "",
    exception: str = "",
    first_bad: int | str | None = None,
) -> str:
    """A line of a file of cases."""
    position = "" if first_bad is None else first_bad
    return f"{cause},{subject},{check},{case},{kind},{exception},{position}"


def write_known(
    folder: Path, text: str = ENTRY, *, rows: Iterable[str] | None = None, package: str = "ours"
) -> None:
    """The two files of a package; by default CASE is filed under every cause of the text."""
    lines = map(row, re.findall(r"^\[(.+)]$", text, re.MULTILINE)) if rows is None else rows
    (folder / f"{package}.toml").write_text(text, encoding="utf-8")
    cases = "\n".join([",".join([*KEY, *VALUES]), *lines, ""])
    (folder / f"{package}.csv").write_text(cases, encoding="utf-8")


def entries(
    folder: Path, text: str = ENTRY, *, rows: Iterable[str] | None = None, package: str = "ours"
) -> list[Cause]:
    """The known failures of a folder with these two files."""
    write_known(folder, text, rows=rows, package=package)
    return load(folder)


def planned(item: str, subject: str = "ours", check: str = "values", case: str = "") -> Record:
    """The record of a check that is to run, as a collecting process writes it."""
    where = Origin(subject, subject)
    return records.planned(where, "r1", item, check, parse(case) if case else None)


def results(place: Path, *made: Record, run: RunInfo | None = None) -> Path:
    """A folder of results as a run leaves it, in a checkout at `place`."""
    checkout(place)
    folder = Folder(place / "reports" / "latest")
    folder.clear()
    for one in made:
        folder.append(one)
    folder.write_collected([planned(r.item, r.subject, r.check) for r in made])
    folder.write_run(run or RunInfo("r1", exit_status=0))
    return folder.path


def checkout(place: Path) -> None:
    """The folders that every checkout has."""
    (place / "reports" / "baselines").mkdir(parents=True, exist_ok=True)
    (place / "suites" / "known_failures").mkdir(parents=True, exist_ok=True)
