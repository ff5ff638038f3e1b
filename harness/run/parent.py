"""Runs a target's checks in a child process, so that whatever it does becomes a record.

A hang, a crash or a kill ends the child, not the command: the check that it was running is
recorded as broken, and a new child continues after it.  The plan is taken once, from the first
child, before a check of the subject runs.  From then on each record is taken once, in order, for
the check that was begun.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from harness.results import ended
from harness.results.ended import End
from harness.results.finding import Status
from harness.results.record import Record
from harness.results.text import shortened
from harness.run import stack
from harness.run.process import Child, GarbledError

#: After this many children have died or hung, the remaining checks are given up.
PATIENCE = 5
_START_S = 120.0  # to start Python and import torch on a busy machine
_MAX_PLAN = 100_000  # checks: a hundred times the longest plan
_MAX_REFUSAL = 2_000  # characters
#: What a check may end with.
_ANSWERS = frozenset({Status.PASS, Status.FAIL, Status.ERROR, Status.NOT_CLAIMED})


class RefusedError(Exception):
    """The target cannot be loaded or used; the message is one line."""


@dataclass
class Progress:
    """The state of a run: the record of every planned check, None until there is one."""

    subject: str = ""
    version: str = ""
    planned: list[Record] = field(default_factory=list)
    records: list[Record | None] = field(default_factory=list)

    @property
    def done(self) -> list[Record]:
        """The records so far."""
        return [record for record in self.records if record is not None]


def run(target: str, selection: dict[str, str], timeout: float) -> Generator[Progress]:
    """Run the selected checks of a target; yields after the plan and after every record.

    timeout: seconds for each check, and for loading the target.  selection: fields of
    `harness.run.plan.Selection`.  Raises RefusedError for a target that cannot be used.
    """
    progress = Progress()
    deaths, first = 0, 0
    while True:
        with tempfile.TemporaryFile() as output:
            child = Child(target, selection, first, output)
            try:
                yield from _follow(child, _Turn(progress, first), timeout)
            finally:
                child.end()
        left = [i for i, record in enumerate(progress.records) if record is None]
        if not left:
            return
        deaths, first = deaths + 1, left[0]
        if deaths >= PATIENCE:
            _give_up(progress, left)
            yield progress
            return


def _follow(child: Child, turn: _Turn, timeout: float) -> Iterator[Progress]:
    """Read a child's messages until it ends; if it dies in a check, that check gets a record."""
    limit = _START_S
    while not turn.over:
        try:
            message = child.next(limit)
            if message is None:
                turn.broke(ended.died(child.how_it_ended()))
            elif not turn.take(message):
                limit = timeout
                continue
        except TimeoutError:
            turn.broke(ended.hung(limit, where=stack.explain(child.stack())), limit)
        except GarbledError as garbled:
            turn.garbled(ended.garbled(str(garbled)))
        limit = timeout
        yield turn.progress


class _Turn:
    """What one child has said so far, and what is due.

    The subject shares the child's process and can write to its pipe.  So nothing is taken that is
    not due: no check that was not begun, no second answer, no answer to another check.
    """

    def __init__(self, progress: Progress, first: int) -> None:
        self.progress = progress
        self.over = False
        self._ready = False
        self._count = len(progress.planned)
        self._first = self._next = first
        self._begun = False

    def take(self, message: dict[str, Any]) -> bool:
        """Take one message: True if there is something to show.

        Raises GarbledError for a message that is not due, RefusedError for a target that the child
        cannot use.
        """
        planned, records = self.progress.planned, self.progress.records
        match message:
            case {"kind": "ready"} if not self._ready:
                self._ready = True
            case {"kind": "refused", "message": str(why)} if self._idle and not any(records):
                raise RefusedError(shortened(why, _MAX_REFUSAL))
            case {"kind": "plan", "subject": str(subject), "version": str(version), "count": count}:
                self._take_plan(subject, version, count)
            case {"kind": "item", "record": str(line)} if len(planned) < self._count:
                planned.append(_record(line))
                records.append(None)
                return len(planned) == self._count
            case {"kind": "begin", "number": self._next} if self._idle and self._left:
                self._begun = True
            case {"kind": "record", "number": self._next, "record": str(line)} if self._begun:
                records[self._next] = _answer(planned[self._next], line)
                self._begun = False
                self._next += 1
                return True
            case {"kind": "end"} if self._idle and self._count and not self._left:
                self.over = True
            case _:
                raise GarbledError(f"{str(message)[:60]!r}, which is not due")
        return False

    @property
    def _idle(self) -> bool:
        """True between two checks."""
        return self._ready and not self._begun

    @property
    def _left(self) -> bool:
        """True if the plan is complete and holds checks that have not begun."""
        return self._count == len(self.progress.planned) > self._next

    def _take_plan(self, subject: str, version: str, count: object) -> None:
        if not self._idle or self._count or not isinstance(count, int):
            raise GarbledError("a second plan, or one without a number")
        if not 0 < count <= _MAX_PLAN:
            raise GarbledError(f"a plan of {count} checks")
        self.progress.subject, self.progress.version = subject, version
        self._count = count

    def broke(self, end: End, seconds: float | None = None) -> None:
        """The child died or hung: record the check in which it did.

        Raises RefusedError if it was loading the target.
        """
        self.over = True
        if self._begun:
            self._fill(self._next, end, seconds)
        elif not self.progress.done:
            raise RefusedError(f"loading the target: {end.message}")
        # Otherwise it was between two checks: the next child goes on.

    def garbled(self, end: End) -> None:
        """The child wrote what is not due: the check that it was in, or the last, is broken.

        A second answer shows that the first may have been forged.
        """
        if not self._begun and self._next > self._first:
            self._fill(self._next - 1, end, None)
        self.broke(end)

    def _fill(self, number: int, end: End, seconds: float | None) -> None:
        record = self.progress.planned[number]
        record.status, record.seconds = str(Status.ERROR), seconds
        self.progress.records[number] = end.fill(record)


def _record(line: str) -> Record:
    try:
        return Record.from_json(line)
    except ValueError as error:
        raise GarbledError(f"a record that is none: {shortened(str(error), 100)}") from error


def _answer(planned: Record, line: str) -> Record:
    """The record in a line.  Raises GarbledError unless it answers the planned check."""
    record = _record(line)
    for name in ("item", "subject", "check", "case", "reproduce"):
        if getattr(record, name) != getattr(planned, name):
            raise GarbledError(f"the record of another check, by its {name}")
    if record.status not in _ANSWERS:
        raise GarbledError(f"a record with the status {record.status}")
    return record


def _give_up(progress: Progress, left: list[int]) -> None:
    end = ended.not_run(PATIENCE)
    for number in left:
        record = progress.planned[number]
        record.status = str(Status.MISSING)
        progress.records[number] = end.fill(record)
