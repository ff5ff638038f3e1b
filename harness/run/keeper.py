"""pytest hooks of the process that survives a crash: they write records and how the run ended."""

from __future__ import annotations

from typing import Any

import pytest

from harness.results.ended import exit_words
from harness.results.lock import BusyError
from harness.results.record import Record
from harness.results.recorder import Recorder
from harness.results.text import escaped, number
from harness.run.options import takes_all
from harness.run.progress import Progress

#: What is said where -k leaves out everything.
NOTHING_SELECTED = (
    "-k {!r} matches no check: it selects by parts of an id, which reads "
    "subject-check-model/schedule/dtype/bN, joined by and, or, not; `harness list` names the parts"
)
OF_THE_SHORT_MATRIX = "; this was the short matrix, and --harness-all takes the whole plan"
#: The properties under which a report carries its record, the record's status, and the peak
#: resident size of the process that ran the check.
RECORD, STATUS, RESIDENT = "harness", "harness-status", "harness-resident"


def attach(report: pytest.TestReport, record: Record, resident: int | None = None) -> None:
    """Send a record along with a report: properties travel from a worker to the controller."""
    report.user_properties.append((RECORD, record.to_json()))
    report.user_properties.append((STATUS, record.status))
    if resident is not None:
        report.user_properties.append((RESIDENT, resident))


def describe(record: Record) -> str:
    """What broke, by how much, from which position on, and how to reproduce it."""
    figures = [
        f"{name} {number(value)}"
        for name, value in (
            ("first bad position", record.first_bad),
            ("figure", record.figure),
            ("bound", record.bound),
        )
        if value is not None
    ]
    lines = [f"{record.subject} {record.check} {record.status}: {record.message}"]
    lines += [", ".join(figures)] if figures else []
    return escaped("\n".join([*lines, f"reproduce: {record.reproduce}"]), keep="\n")


def begin(recorder: Recorder) -> None:
    """Write the planned items; end the session if another run writes to the folder."""
    try:
        recorder.begin()
    except BusyError as busy:
        pytest.exit(str(busy), returncode=pytest.ExitCode.USAGE_ERROR)


class Keeper:
    """Writes each record as soon as it arrives, and says how far the run is."""

    def __init__(self, recorder: Recorder, limit: float, progress: Progress) -> None:
        self.recorder = recorder
        self.limit = limit
        self.progress = progress

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write the record of a report; note a failure that has none."""
        carried = dict(report.user_properties)
        if (resident := carried.get(RESIDENT)) is not None:
            self.recorder.resident(int(str(resident)))
        if (line := carried.get(RECORD)) is not None:
            record = Record.from_json(str(line))
            self.recorder.record(record)
            self.progress.begin(self.recorder.items)
            self.progress.saw(record)
        elif report.failed:
            self.recorder.outside(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that could not be collected."""
        if report.failed:
            self.recorder.outside(report.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self) -> None:
        """Start the results: a worker has written the list of planned items."""
        begin(self.recorder)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: Any) -> None:
        """Make a record for the check in which a worker died; the log hook writes it."""
        gateway = report.node.gateway  # crash reports have no worker_id
        record = self.recorder.crashed(crashitem, gateway.id, self.limit, _how(gateway))
        if record is not None:
            report.longrepr = describe(record)
            report.location = (*report.location[:2], crashitem.partition("::")[2])
            attach(report, record)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Record how the run ended."""
        self.recorder.end(int(exitstatus))
        self.progress.end()

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
    ) -> None:
        """Print where the records are, or that -k selected none."""
        chosen = config.option.keyword if self.recorder.opened else ""
        if chosen and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            listed = "" if takes_all(config) else OF_THE_SHORT_MATRIX
            terminalreporter.write_line(NOTHING_SELECTED.format(chosen) + listed)
        if self.recorder.active:
            terminalreporter.write_line(
                f"{self.recorder.count} records in {self.recorder.folder.path}; "
                "`harness gate` gives the verdict"
            )


def _how(gateway: Any) -> str:
    """How a worker's process ended; "" where execnet gives no access to the process."""
    process = getattr(getattr(gateway, "_io", None), "popen", None)
    if process is None:
        return ""
    return exit_words(process.wait(timeout=5))
