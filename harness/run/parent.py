"""Runs a target's checks in a child process, so that whatever it does becomes a record.

A hang, a crash or a kill ends the child, not the command: the check that it was running is
recorded as broken, and a new child continues after it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from harness.results import ended
from harness.results.ended import End
from harness.results.record import Record
from harness.run import registry

#: After this many children have died or hung, the remaining checks are given up.
PATIENCE = 5
_START_S = 120.0  # to start Python and import torch on a busy machine


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


def run(target: str, selection: dict[str, str], timeout: float) -> Iterator[Progress]:
    """Run the selected checks of a target; yields after the plan and after every record.

    timeout: seconds for each check, and for loading the target.  selection: fields of
    `harness.run.plan.Selection`.  Raises RefusedError for a target that cannot be used.
    """
    progress = Progress()
    deaths, first = 0, 0
    while True:
        with tempfile.TemporaryFile() as output:
            child = _Child(target, selection, first, output)
            try:
                yield from _follow(child, progress, timeout)
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


def _follow(child: _Child, progress: Progress, timeout: float) -> Iterator[Progress]:
    """Read a child's messages until it ends; if it dies in a check, that check gets a record."""
    at: int | None = None
    limit = _START_S
    while True:
        try:
            message = child.next(limit)
        except TimeoutError:
            _broke(progress, at, ended.hung(limit), limit)
            break
        if message is None:
            _broke(progress, at, ended.died(child.how_it_ended()))
            break
        limit = timeout
        match message["kind"]:
            case "refused":
                raise RefusedError(message["message"])
            case "plan":
                _take_plan(progress, message)
            case "begin":
                at = message["number"]
                continue
            case "record":
                progress.records[message["number"]] = Record.from_json(message["record"])
                at = None
            case "end":
                return
            case _:
                continue
        yield progress
    yield progress


def _take_plan(progress: Progress, message: dict[str, Any]) -> None:
    if progress.planned:  # a second child: the plan is the same
        return
    progress.subject, progress.version = message["subject"], message["version"]
    progress.planned = [Record.from_json(line) for line in message["items"]]
    progress.records = [None] * len(progress.planned)


def _broke(progress: Progress, at: int | None, end: End, seconds: float | None = None) -> None:
    """Record the check that broke.  Raises RefusedError if the child broke while loading."""
    if at is None:
        if progress.done:
            return  # between two checks: the next child goes on
        raise RefusedError(f"loading the target: {end.message}")
    record = progress.planned[at]
    record.status, record.seconds = "error", seconds
    progress.records[at] = end.fill(record)


def _give_up(progress: Progress, left: list[int]) -> None:
    end = ended.not_run(PATIENCE)
    for number in left:
        record = progress.planned[number]
        record.status = "missing"
        progress.records[number] = end.fill(record)


def _environment() -> dict[str, str]:
    """The child's environment: one thread, and the path to this package if it is not installed.

    The child does not import from the working directory (`python -P`), where a folder `harness` or
    a file named like one of Python's modules would hide the real one.
    """
    out = {**os.environ, "OMP_NUM_THREADS": "1"}
    if not registry.installed():
        checkout = str(Path(__file__).parents[2])
        out["PYTHONPATH"] = os.pathsep.join(filter(None, (out.get("PYTHONPATH"), checkout)))
    return out


class _Child:
    """One `harness.run.child` process and the pipe that it speaks on."""

    def __init__(
        self, target: str, selection: dict[str, str], first: int, output: IO[bytes]
    ) -> None:
        self._pipe, theirs = os.pipe()
        self._output = output
        arguments = [str(theirs), target, json.dumps(selection), str(first)]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-u", "-m", "harness.run.child", *arguments],
            pass_fds=(theirs,),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,  # so that its own children end with it
        )
        os.close(theirs)
        self._buffer = b""

    def next(self, timeout: float) -> dict[str, Any] | None:
        """The next message; None once the child is gone.  Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._pipe], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            chunk = os.read(self._pipe, 1 << 16)
            if not chunk:
                return None
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def how_it_ended(self) -> str:
        """The signal or exit status, and the last line that the process wrote."""
        how = ended.exit_words(self._process.wait(timeout=10))
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").strip().splitlines()
        return f"{how}; its last words: {lines[-1][:200]!r}" if lines else how

    def end(self) -> None:
        """End the process and everything that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._pipe)
