"""A check is declared once; functions, columns, header and page follow."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from harness import checks
from harness.cases.case import parse
from harness.contract import Unsupported
from harness.defects.base import TrimmedSubject
from harness.gate import baselines
from harness.law import SCHEMES
from harness.results.finding import CHECK_INFO, INTEGERS, NAMES, CheckInfo, Finding, Status
from harness.results.record import Record

ROOT = Path(__file__).parents[3]

CASE = parse("mistral/chunk-4/float32/b1")


def test_functions_are_those_declared() -> None:
    assert tuple(checks.CHECKS) == NAMES
    for info in CHECK_INFO:
        function = checks.CHECKS[info.name]
        assert (function.__name__, function.__module__) == (
            info.name,
            f"harness.checks.{info.module}",
        )
        assert function.__doc__


def test_every_file_of_a_declared_check_is_declared() -> None:
    """A function that takes a subject and a case but is not declared would never be run."""
    declared = {(info.module, info.name) for info in CHECK_INFO}
    found = {
        (info.module, name)
        for info in CHECK_INFO
        for name, thing in vars(sys.modules[f"harness.checks.{info.module}"]).items()
        if getattr(thing, "__module__", "") == f"harness.checks.{info.module}"
        and getattr(thing, "__annotations__", {}).get("return") == "Finding"
        and not name.startswith("_")
    }
    assert found == declared


def test_what_is_declared_can_be_read() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for info in CHECK_INFO:
        assert info.holds
        assert not info.holds.endswith(".")
        assert set(info.bodies) <= {"attention", "cache", "decoder"}
        assert info.bodies


def test_integers_are_fields_of_a_record_and_columns_of_the_baselines() -> None:
    """The order matters: the files of the baselines are written in it."""
    assert INTEGERS == (
        "cache_bytes",
        "peak_bytes",
        "retained_bytes",
        "rewound",
        "live_bytes",
        "planned_bytes",
        "mutable_bytes",
        "pte_bytes",
    )
    assert {f.name for f in fields(Record)} >= set(INTEGERS)
    for scheme in sorted(SCHEMES):
        path = ROOT / "reports" / "baselines" / f"{scheme}.csv"
        header = path.read_text(encoding="utf-8").partition("\n")[0]
        assert header.split(",") == [*baselines.KEY, *INTEGERS]


def test_a_check_records_the_integers_that_it_declares() -> None:
    for name, case in (
        ("cache_bytes", "mistral/bytes-prefill-50w/float32/b1"),
        ("peak_bytes", "mistral/prefill-3w+5/float32/b1"),
    ):
        declared = next(info.integers for info in CHECK_INFO if info.name == name)
        finding = checks.run_check(TrimmedSubject, name, parse(case))
        assert set(finding.bytes) == set(declared)


def test_a_finding_has_the_name_of_its_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever name the function itself puts into the finding."""

    def misnamed(*_: object) -> Finding:
        return Finding("nobody")

    def refuses(*_: object) -> Finding:
        raise Unsupported("not today")

    monkeypatch.setitem(checks.CHECKS, "values", misnamed)
    monkeypatch.setitem(checks.CHECKS, "reset", refuses)
    assert checks.run_check(TrimmedSubject, "values", CASE).check == "values"
    refused = checks.run_check(TrimmedSubject, "reset", CASE)
    assert (refused.check, refused.status) == ("reset", Status.NOT_CLAIMED)


def test_an_unknown_check_is_told_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"unknown check 'value'; known: visibility, values"):
        checks.run_check(TrimmedSubject, "value", CASE)


def test_the_declaration_waits_for_no_framework() -> None:
    code = "import sys, harness.results.finding; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_declared_check_without_a_function_is_an_error_at_import() -> None:
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        checks._function(CheckInfo("nothing_of_that_name", "values", "never"))


def test_the_readme_has_a_row_for_every_check() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("| check | holds when | subjects |\n")[2].partition("<!-- end -->")[0]
    rows = [line.split("|")[1].strip(" `") for line in table.strip().splitlines()[1:]]
    assert tuple(rows) == NAMES
