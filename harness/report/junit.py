"""The verdict as JUnit XML, for the annotations of a CI service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from harness.gate.verdict import Verdict
from harness.results.finding import Status
from harness.results.record import rows

if TYPE_CHECKING:
    import pandas as pd

    from harness.results.record import Row

_BROKEN = {Status.FAIL: Failure, Status.FIXED: Failure, Status.ERROR: Error, Status.MISSING: Error}
_SKIPPED = {Status.KNOWN, Status.NOT_CLAIMED, Status.NOT_INSTALLED}

#: Characters that XML 1.0 cannot hold, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(frame: pd.DataFrame, verdict: Verdict, path: Path) -> None:
    """Write one suite per subject with a test per record, and a suite "gate" for the verdict."""
    xml = JUnitXml("attention-harness")
    for subject, held in frame.groupby("subject"):
        suite = TestSuite(str(subject))
        suite.add_testcases([_case(row) for row in rows(held)])
        xml.add_testsuite(suite)
    gate = TestSuite("gate")
    gate.add_testcases(_gate_cases(verdict))
    xml.add_testsuite(gate)
    xml.write(str(path), pretty=True)


def _case(record: Row) -> TestCase:
    case = TestCase(f"{record.check} {record.case}".strip(), record.subject, record.seconds)
    status, text = Status(record.status), _clean(record.message)
    if status in _BROKEN:
        outcome = _BROKEN[status](text, status.value)
        outcome.text = _clean(f"{record.message}\n{record.reproduce}".strip())
        case.result = [outcome]
    elif status in _SKIPPED:
        case.result = [Skipped(f"{status.value}: {record.known or text}")]
    return case


def _gate_cases(verdict: Verdict) -> list[TestCase]:
    """The verdict, with drift, stale known failures and other failed tests."""
    case = TestCase("verdict", "gate")
    stale = (f"stale known failure {e.subject} {e.id}" for e in verdict.stale)
    details = [*map(str, verdict.drift), *stale, *verdict.outside]
    if verdict.red:
        failure = Failure(_clean(verdict.headline), "red")
        failure.text = _clean("\n".join([*verdict.reasons, *details]))
        case.result = [failure]
    return [case]


def _clean(text: str) -> str:
    return _NOT_XML.sub("?", text)
