"""What a session runs: subjects by checks and cases, as jobs that pytest can parametrize with."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch

from harness.cases.case import Case
from harness.checks import run_check
from harness.gate import known as known_files
from harness.gate.known import KnownFailure
from harness.results import ended
from harness.results import record as records
from harness.results.finding import Finding, Kind, Status
from harness.results.record import Collected, Origin, Record
from harness.run import plan, registry

#: The check of a subject that cannot run: it has no other.
LOAD = "load"


@dataclass(frozen=True)
class Job:
    """One check of one case; or, without a case, a subject that cannot be run, and why.

    status, message: of the record of such a subject, known before anything runs.
    """

    origin: Origin
    check: str
    case: Case | None = None
    subject: type[Any] | None = None
    status: str = ""
    message: str = ""

    @property
    def id(self) -> str:
        """Of the pytest item, made so that -k finds subject, check, model and schedule."""
        parts = [self.origin.subject, self.check, self.case.id if self.case else ""]
        return "-".join(part for part in parts if part)

    def collected(self, item: str) -> Collected:
        """What the gate must know of this job if no record comes."""
        if self.case is None:
            return Collected(item, self.origin.subject, self.check)
        line = records.reproduce_line(self.origin.target, self.check, self.case)
        return Collected(
            item, self.origin.subject, self.check, self.case.scheme, self.case.id, line
        )

    def start(self, run: str, item: str) -> Record:
        """The record before the job has run."""
        if self.case is not None:
            return records.start(self.origin, run, item, self.check, self.case)
        return Record(
            run=run,
            item=item,
            subject=self.origin.subject,
            check=self.check,
            status=self.status,
            kind=str(Kind.NOT_LOADED) if self.status == Status.ERROR else "",
            message=self.message,
            reproduce=f"harness check {self.origin.target}",
        )

    def run(self, record: Record, known: Iterable[KnownFailure]) -> Record:
        """Run the check and judge its record by the known failures."""
        if self.case is None or self.subject is None:
            record.seconds = 0.0
            return record
        return known_files.judge(execute(self.subject, record, self.case), known)


class Matrix:
    """The jobs of some subjects.

    Raises TargetError for a target that cannot be used; not for one that is not installed, nor
    for a registered one that is broken or plans nothing: these become a job that says so.
    """

    def __init__(self, targets: Sequence[str] = (), known: Sequence[KnownFailure] = ()) -> None:
        self.known = list(known)
        self._loaded: list[tuple[Origin, type[Any]]] = []
        self._problems: list[Job] = []
        for target in targets or registry.names():
            self._load(target, asked_for=bool(targets))

    def jobs(self, schemes: Iterable[str] | None = None, suite: str = "") -> list[Job]:
        """Every check of every case of a suite, or of the subjects that have none, by schemes.

        suite: of the subjects that name it as theirs (`Subject.suite`).  The subjects that cannot
        run come with the first call: one record each is enough.
        """
        wanted = None if schemes is None else frozenset(schemes)
        out = [
            Job(where, check, case, subject)
            for where, subject in self._loaded
            if getattr(subject, "suite", "") == suite
            for check, case in plan.items(subject, wanted)
        ]
        problems, self._problems = self._problems, []
        return out + problems

    def _load(self, target: str, *, asked_for: bool) -> None:
        try:
            subject = registry.load(target)
        except registry.NotInstalled as absent:
            self._cannot_run(target, "not-installed", str(absent))
        except registry.TargetError as broken:
            if asked_for:
                raise
            self._cannot_run(target, "error", str(broken))
        else:
            self._plan(target, subject, asked_for=asked_for)

    def _plan(self, target: str, subject: type[Any], *, asked_for: bool) -> None:
        """Take up a subject that plans something: of any other nobody would miss the records."""
        try:
            planned = plan.items(subject)
            why = "plans nothing: covers() leaves out every check and case of its schemes"
        except Exception as error:  # covers() is the subject's
            planned, why = [], f"covers() raised {type(error).__name__}: {error}"
        if planned:
            self._loaded.append((origin(target, subject), subject))
        elif asked_for:
            raise registry.TargetError(f"{target} {why}")
        else:
            self._cannot_run(target, "error", why)

    def _cannot_run(self, target: str, status: str, message: str) -> None:
        self._problems.append(Job(Origin(target, target), LOAD, status=status, message=message))


def origin(target: str, subject: type[Any]) -> Origin:
    """What the records of a loaded target share: names, versions, device, threads."""
    versions = {"torch": str(torch.__version__)}
    package = getattr(subject, "package", None)
    if isinstance(package, str):
        versions[package] = metadata.version(package)
    return Origin(
        subject=registry.label(target, subject),
        target=target,
        subject_version=registry.version(subject),
        device=str(getattr(subject, "device", "cpu")).partition(":")[0],
        threads=torch.get_num_threads(),
        versions=versions,
    )


def execute(subject: type[Any], record: Record, case: Case) -> Record:
    """Run the check of a started record and fill it.

    What a subject raises is in the record, `sys.exit` included; only an interrupt passes through.
    """
    began = time.perf_counter()
    try:
        finding = run_check(subject, record.check, case)
    except (Exception, SystemExit) as error:  # run_check holds what a subject may raise
        name = type(error).__name__
        finding = Finding(
            record.check,
            Status.ERROR,
            kind=ended.kind_of(error),
            message=f"{name}: {error}",
            exception=name,
        )
    return records.finish(record, finding, time.perf_counter() - began)
