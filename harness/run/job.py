"""What a session runs: a job for each subject, check and case, as a parameter for pytest."""

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
from harness.gate.short import FILE, Short
from harness.results import ended
from harness.results import record as records
from harness.results.finding import Finding, Kind, Status
from harness.results.record import Origin, Record
from harness.results.text import shortened
from harness.run import lowerer, plan, registry
from harness.run.plan import Item
from harness.run.target import Target

#: The longest message of a record, in characters; the rest is cut.
MAX_MESSAGE = 20_000
#: Stands for the check in the record of a subject that cannot run.
LOAD = "load"


@dataclass(frozen=True)
class Job:
    """One check of one case; or, without a case, a subject that cannot be run, and why.

    status, message: for the record of such a subject; they are known before anything runs.
    """

    origin: Origin
    check: str
    case: Case | None = None
    target: Target | None = None
    status: str = ""
    message: str = ""

    @property
    def id(self) -> str:
        """The id of the pytest item: -k finds subject, check, model and schedule in it."""
        parts = [self.origin.subject, self.check, self.case.id if self.case else ""]
        return "-".join(part for part in parts if part)

    def planned(self, run: str, item: str) -> Record:
        """The record that is kept if no other arrives: its status is missing."""
        return records.planned(self.origin, run, item, self.check, self.case)

    def start(self, run: str, item: str) -> Record:
        """The record before the job has run."""
        if self.case is not None:
            return records.start(self.origin, run, item, self.check, self.case)
        kind = str(Kind.NOT_LOADED) if self.status == Status.ERROR else ""
        made = self.planned(run, item)
        return replace(made, status=self.status, kind=kind, message=self.message)

    def prepare(self) -> None:
        """Lower the program of a subject that has one, unless it is in the cache.

        What fails here fails again in the check, where it is judged.
        """
        if self.case is not None and self.target is not None:
            lowerer.prepare(self.target, self.case)

    def run(self, record: Record, known: Iterable[Cause]) -> Record:
        """Run the check, and compare its record with the known failures."""
        if self.case is None or self.target is None:
            record.seconds = 0.0
            return record
        return known_failures.judge(execute(self.target, record, self.case), known)


class Matrix:
    """The jobs of some subjects: all that are planned for them, or the part that is listed.

    short: the short matrix; None for all of the plan.  Raises TargetError for a target that was
    asked for and cannot be used.  A target that is not installed, or a registered one that is
    broken or plans nothing, becomes one of the `problems`; so does one whose plan has lost a listed
    case.
    """

    def __init__(
        self,
        targets: Sequence[str] = (),
        known: Sequence[Cause] = (),
        short: Short | None = None,
    ) -> None:
        self.known = list(known)
        self.short = Short() if short is None else short
        self._planned: list[tuple[Target, Origin, list[Item]]] = []
        self._problems: list[Job] = []
        for target in targets or registry.names():
            self._load(target, asked_for=bool(targets))

    def jobs(self, schemes: Iterable[str] | None = None, suite: str = "") -> list[Job]:
        """A job for each planned check and case.

        schemes: only cases of these; None for all.  suite: only subjects that name this suite as
        their own (`OPTIONAL_MEMBERS`); "" for those that name none.
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
        """Add a subject.  One that plans nothing is a problem: no one would miss its records."""
        try:
            items = plan.items(target)
            why = "plans nothing: checks and covers() leave out every case of its schemes"
        except Exception as error:  # covers() is the subject's code
            items, why = [], f"covers() raised {type(error).__name__}: {error}"
        if items:
            self._planned.append((target, origin(target), self._listed(target, items)))
        elif asked_for:
            raise registry.TargetError(f"{target.target} {why}")
        else:
            self._cannot_run(target.target, "error", why)

    def _listed(self, target: Target, items: list[Item]) -> list[Item]:
        """The items that are run.  A listed one that is not planned would be missed by no one."""
        lost = self.short.lost(target.name, [(check, case.id) for check, case in items])
        if lost:
            words = f"{FILE} lists what is not planned: {' '.join(lost[0])}"
            more = f", and {len(lost) - 1} more" if len(lost) > 1 else ""
            self._cannot_run(target.target, "error", f"{words}{more}; `harness short` renews it")
        return [
            (check, case) for check, case in items if self.short.takes(target.name, check, case.id)
        ]

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

    Whatever a subject raises ends up in the record, `sys.exit` included; interrupts pass through.
    """
    began = time.perf_counter()
    try:
        finding = run_check(target.subject, record.check, case)
    except (Exception, SystemExit) as error:  # run_check lets SystemExit through
        name = type(error).__name__
        finding = Finding(
            record.check,
            Status.ERROR,
            kind=ended.kind_of(error),
            message=f"{name}: {error}",
            exception=name,
        )
    finding.message = shortened(finding.message, MAX_MESSAGE)
    return records.finish(record, finding, time.perf_counter() - began)
