"""Records and entries for the tests of the gate."""

from __future__ import annotations

from pathlib import Path

from harness.cases.case import parse
from harness.gate.known import KnownFailure, load_file
from harness.results import record as records
from harness.results.record import Origin, Record

CASE = "mistral/chunk-4/float32/b1"

ENTRY = """
[[failure]]
id = "B1"
cases = ["mistral/chunk-*/float32/b1"]
checks = ["values", "visibility"]
reason = "the mask is made before the update"
link = "https://example.org/issues/1"
versions = { torch = "==2.*" }
"""


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


def entries(folder: Path, text: str = ENTRY, subject: str = "ours") -> list[KnownFailure]:
    """The known failures of a file with this text."""
    path = folder / f"{subject}.toml"
    path.write_text(text, encoding="utf-8")
    return load_file(path)


def planned(item: str, subject: str = "ours", check: str = "values", case: str = "") -> Record:
    """The record of a check that is to run, as a collecting process writes it."""
    where = Origin(subject, subject)
    return records.planned(where, "r1", item, check, parse(case) if case else None)
