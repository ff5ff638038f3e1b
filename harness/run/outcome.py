"""How a conformance item ends: its pytest outcome, or the reason why it was cut short."""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.results import ended
from harness.results.record import Record
from harness.run import stack
from harness.run.keeper import describe

#: A check that runs this many times its timeout is stuck where no signal reaches it.
STUCK_FACTOR = 1.25
#: Lowering a program may take this many times as long as a check.
LOWERING_FACTOR = 20.0

#: Outcomes counted separately from passes and skips: category, letter, word.
APART = {
    "known": ("known", "k", ("KNOWN", {"yellow": True})),
    "not-claimed": ("not claimed", "n", ("NOT CLAIMED", {"yellow": True})),
    "not-installed": ("not installed", "i", ("NOT INSTALLED", {"yellow": True})),
}


def conclude(record: Record) -> None:
    """Turn the status of a record into pytest's outcome."""
    if record.status in APART:
        pytest.skip(f"{record.status}: {record.known or record.message}")
    if record.status != "pass":
        pytest.fail(describe(record), pytrace=False)


def explains_itself(record: Record) -> bool:
    """True if the check returned and its record says why the item failed."""
    return record.seconds is not None and record.status in {"fail", "error", "fixed"}


def explain(
    record: Record, call: pytest.CallInfo[None], report: pytest.TestReport, limit: float
) -> None:
    """Write into the record of a check that was cut short why it was."""
    error = call.excinfo.value if call.excinfo else None
    record.status, record.seconds = "error", call.duration
    end = ended.failed(f"the {call.when} of the test", error)
    if "from pytest-timeout" in str(error):  # otherwise it is what pytest.fail raises
        files = [str(entry.path) for entry in call.excinfo.traceback] if call.excinfo else []
        end = ended.hung(limit, where=stack.hint(files))
        report.sections.clear()  # pytest-timeout prints the stacks of xdist's own threads
    end.fill(record)


@contextmanager
def ended_if_stuck(seconds: float) -> Iterator[None]:
    """End this worker after `seconds`, from a thread that needs no GIL.

    Native code that never returns cannot be interrupted in any other way.  The controller writes
    the record of the check, and a new worker takes over.
    """
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
