"""The verdict as JUnit XML, for the annotations of a CI service."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from harness.gate.verdict import Verdict
from harness.results.files import write_atomically
from harness.results.finding import Status
from harness.results.record import rows
from harness.results.text import escaped

if TYPE_CHECKING:
    import pandas as pd

    from harness.results.record import Row

_BROKEN = {Status.FAIL: Failure, Status.FIXED: Failure, Status.ERROR: Error, Status.MISSING: Error}
_SKIPPED = {Status.KNOWN, Status.NOT_CLAIMED, Status.NOT_INSTALLED}


def write(frame: pd.DataFrame, verdict: Verdict, path: Path) -> None:
    """Write what `to_xml` says to a file.  Raises OSError, which names it."""
    write_atomically(path, to_xml(frame, verdict))


def to_xml(frame: pd.DataFrame, verdict: Verdict) -> str:
    """One suite per subject with a test per record, and a suite "gate" for the verdict."""
    xml = JUnitXml("attention-harness")
    for subject, held in frame.groupby("subject"):
        suite = TestSuite(_clean(str(subject)))
        suite.add_testcases([_case(row) for row in rows(held)])
        xml.add_testsuite(suite)
    gate = TestSuite("gate")
    gate.add_testcases(_gate_cases(verdict))
    xml.add_testsuite(gate)
    out = BytesIO()
    xml.write(out, pretty=True)
    return out.getvalue().decode()


def _case(record: Row) -> TestCase:
    name = _clean(f"{record.check} {record.case}".strip())
    case = TestCase(name, _clean(record.subject), record.seconds)
    status, text = Status(record.status), _clean(record.message)
    if status in _BROKEN:
        outcome = _BROKEN[status](text, status.value)
        outcome.text = _clean(f"{record.message}\n{record.reproduce}".strip())
        case.result = [outcome]
    elif status in _SKIPPED:
        case.result = [Skipped(f"{status.value}: {_clean(record.known) or text}")]
    return case


def _gate_cases(verdict: Verdict) -> list[TestCase]:
    """The verdict, with drift, stale known failures and other failed tests."""
    case = TestCase("verdict", "gate")
    case.system_out = _clean(verdict.of)
    stale = (f"stale known failure {e.subject} {e.id}" for e in verdict.stale)
    details = [*map(str, verdict.drift), *stale, *verdict.outside]
    if verdict.red:
        failure = Failure(_clean(verdict.headline), "red")
        failure.text = _clean("\n".join([*verdict.reasons, *details]))
        case.result = [failure]
    return [case]


def _clean(text: str) -> str:
    """The text without characters that XML cannot hold, not even escaped."""
    return escaped(text, keep="\n\t")
