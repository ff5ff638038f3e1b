"""What a session runs: subjects by checks and cases, as jobs that pytest can parametrize with."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata

import torch

from harness.cases.case import Case
from harness.checks import run_check
from harness.gate import known as known_failures
from harness.gate.known import Cause
from harness.results import ended
from harness.results import record as records
from harness.results.finding import Finding, Kind, Status
from harness.results.record import Origin, Record
from harness.run import plan, registry
from harness.run.plan import Item
from harness.run.target import Target

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
    target: Target | None = None
    status: str = ""
    message: str = ""

    @property
    def id(self) -> str:
        """Of the pytest item, made so that -k finds subject, check, model and schedule."""
        parts = [self.origin.subject, self.check, self.case.id if self.case else ""]
        return "-".join(part for part in parts if part)

    def planned(self, run: str, item: str) -> Record:
        """The record that stands if no other comes: missing."""
        return records.planned(self.origin, run, item, self.check, self.case)

    def start(self, run: str, item: str) -> Record:
        """The record before the job has run."""
        if self.case is not None:
            return records.start(self.origin, run, item, self.check, self.case)
        kind = str(Kind.NOT_LOADED) if self.status == Status.ERROR else ""
        made = self.planned(run, item)
        return replace(made, status=self.status, kind=kind, message=self.message)

    def run(self, record: Record, known: Iterable[Cause]) -> Record:
        """Run the check and judge its record by the known failures."""
        if self.case is None or self.target is None:
            record.seconds = 0.0
            return record
        return known_failures.judge(execute(self.target, record, self.case), known)


class Matrix:
    """The jobs of some subjects.

    Raises TargetError for a target that cannot be used; not for one that is not installed, nor
    for a registered one that is broken or plans nothing: these become `problems`.
    """

    def __init__(self, targets: Sequence[str] = (), known: Sequence[Cause] = ()) -> None:
        self.known = list(known)
        self._planned: list[tuple[Target, Origin, list[Item]]] = []
        self._problems: list[Job] = []
        for target in targets or registry.names():
            self._load(target, asked_for=bool(targets))

    def jobs(self, schemes: Iterable[str] | None = None, suite: str = "") -> list[Job]:
        """Every check of every case of a suite, or of the subjects that have none, by schemes.

        suite: of the subjects that name it as theirs (`OPTIONAL_MEMBERS`).
        """
        wanted = None if schemes is None else frozenset(schemes)
        return [
            Job(where, check, case, target)
            for target, where, items in self._planned
            if target.suite == suite
            for check, case in items
            if wanted is None or case.scheme in wanted
        ]

    def problems(self) -> list[Job]:
        """A job for each subject that cannot run; its record says why."""
        return list(self._problems)

    def _load(self, name: str, *, asked_for: bool) -> None:
        try:
            target = registry.load(name)
        except registry.NotInstalled as absent:
            self._cannot_run(name, "not-installed", str(absent))
        except registry.TargetError as broken:
            if asked_for:
                raise
            self._cannot_run(name, "error", str(broken))
        else:
            self._plan(target, asked_for=asked_for)

    def _plan(self, target: Target, *, asked_for: bool) -> None:
        """Take up a subject that plans something; otherwise no one would miss its records."""
        try:
            items = plan.items(target)
            why = "plans nothing: checks and covers() leave out every case of its schemes"
        except Exception as error:  # covers() is the subject's
            items, why = [], f"covers() raised {type(error).__name__}: {error}"
        if items:
            self._planned.append((target, origin(target), items))
        elif asked_for:
            raise registry.TargetError(f"{target.target} {why}")
        else:
            self._cannot_run(target.target, "error", why)

    def _cannot_run(self, target: str, status: str, message: str) -> None:
        self._problems.append(Job(Origin(target, target), LOAD, status=status, message=message))


def origin(target: Target) -> Origin:
    """What the records of a loaded target share: names, versions, device, threads."""
    versions = {"torch": str(torch.__version__)}
    if target.package is not None:
        versions[target.package] = metadata.version(target.package)
    return Origin(
        subject=target.name,
        target=target.target,
        subject_version=target.version,
        device=target.device.partition(":")[0],
        threads=torch.get_num_threads(),
        versions=versions,
    )


def execute(target: Target, record: Record, case: Case) -> Record:
    """Run the check of a started record and fill it.

    What a subject raises is in the record, `sys.exit` included; only an interrupt passes through.
    """
    began = time.perf_counter()
    try:
        finding = run_check(target.subject, record.check, case)
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
