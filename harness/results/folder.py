"""A folder of results (``reports/latest``): records as they come, and what was to come.

- ``records.jsonl``: one record a line, flushed at once, so that a crash loses none;
- ``collected.json``: what was to run, so that a record that never came reads "missing";
- ``run.json``: what kind of run it was and how it ended;
- ``planned.json``: of one shard of a run, what all shards together were to run;
- ``inflight/``: what each worker is at, from which a crash is given its record.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.results import json_types
from harness.results.record import Record, write_atomically

#: Where a run leaves its results unless told otherwise, and where runs are kept.
LATEST = Path("reports/latest")
HISTORY = "reports/history"

#: What is of one run alone: a pull request must never be told an earlier run's verdict.
_OF_A_RUN = (
    "records.jsonl",
    "collected.json",
    "planned.json",
    "run.json",
    "verdict.json",
    "summary.md",
    "comment.md",
    "junit.xml",
)


class RecordsError(Exception):
    """A folder of results cannot be read; the message names the file and what is wrong."""


@dataclass
class RunInfo:
    """What kind of run it was.

    whole: every suite and subject was collected, without -k, --subject or the like.  outside:
    failures of tests that are no conformance checks.  exit_status: pytest's, None until it ended.
    shard: "2/4" for the second of four; of_whole: all shards together were to be whole; absent:
    of a merged run, the shards that were not there.  resident_peak_bytes: the largest resident size
    of a process that ran checks, indicative and never gated.
    """

    run: str
    whole: bool = False
    exit_status: int | None = None
    outside: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    shard: str = ""
    of_whole: bool = False
    absent: list[str] = field(default_factory=list)
    resident_peak_bytes: int | None = None


class Folder:
    """A folder of results."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = path / "records.jsonl"
        self.collected = path / "collected.json"
        self.run = path / "run.json"
        self.planned = path / "planned.json"
        self.inflight = path / "inflight"

    def clear(self) -> None:
        """Remove what an earlier run left, so that nothing of it is mistaken for this one's."""
        self.path.mkdir(parents=True, exist_ok=True)
        for name in _OF_A_RUN:
            (self.path / name).unlink(missing_ok=True)
        for left in self.inflight.glob("*.json"):
            left.unlink(missing_ok=True)

    def append(self, record: Record) -> None:
        """Add one line and flush it: what is written survives the death of this process."""
        with self.records.open("a", encoding="utf-8") as out:
            out.write(record.to_json() + "\n")

    def write_collected(self, items: Iterable[Record]) -> None:
        """Say what is to run, by the records that stand if no others come."""
        write_atomically(self.collected, json.dumps([item.filled() for item in items]))

    def write_planned(self, items: Iterable[Record]) -> None:
        """Say what all shards together are to run."""
        write_atomically(self.planned, json.dumps([item.filled() for item in items]))

    def write_run(self, info: RunInfo) -> None:
        """Say what kind of run it is."""
        write_atomically(self.run, json.dumps(asdict(info)))

    def read_collected(self) -> list[Record]:
        """What was to run; raises RecordsError where that cannot be read."""
        return self._items(self.collected)

    def read_planned(self) -> list[Record]:
        """What all shards together were to run; raises RecordsError where that cannot be read."""
        return self._items(self.planned)

    def read_run(self) -> RunInfo:
        """What kind of run it was; raises RecordsError where that cannot be read."""
        data = self._json(self.run)
        try:
            return json_types.made(RunInfo, data)
        except ValueError as error:
            raise RecordsError(f"{self.run}: {error}") from error

    def read_records(self) -> list[Record]:
        """Every record, in the order of arrival.  A torn last line is the crash's, and dropped.

        Raises RecordsError naming the line for one that is not a record.
        """
        if not self.records.exists():
            raise RecordsError(f"no records at {self.records}; `harness run` makes them")
        lines = self._text(self.records).split("\n")
        out = []
        for number, line in enumerate(lines, start=1):
            if not line:
                continue
            try:
                out.append(Record.from_json(line))
            except ValueError as error:
                if number == len(lines):  # no newline behind it: the write was cut short
                    break
                raise RecordsError(f"{self.records}, line {number}: {error}") from error
        return out

    def checkpoint(self, worker: str, record: Record) -> None:
        """Say what `worker` is at."""
        self.inflight.mkdir(parents=True, exist_ok=True)
        write_atomically(self.inflight / f"{worker}.json", record.to_json())

    def in_flight(self, worker: str) -> Record | None:
        """What `worker` was at when it died; None if it never got to a check."""
        try:
            return Record.from_json((self.inflight / f"{worker}.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # the worker itself may unlink it at any time
            return None

    def seconds_at(self, worker: str) -> float | None:
        """How long `worker` has been at what it is at."""
        try:
            return time.time() - (self.inflight / f"{worker}.json").stat().st_mtime
        except FileNotFoundError:
            return None

    def landed(self, worker: str) -> None:
        """`worker` is between two checks."""
        (self.inflight / f"{worker}.json").unlink(missing_ok=True)

    def _items(self, path: Path) -> list[Record]:
        items = self._json(path)
        if not isinstance(items, list):
            raise RecordsError(f"{path}: must be a list of records")
        try:
            return [json_types.made(Record, item) for item in items]
        except ValueError as error:
            raise RecordsError(f"{path}: {error}") from error

    def _json(self, path: Path) -> Any:
        if not path.exists():
            raise RecordsError(f"no {path.name} in {self.path}; `harness run` makes it")
        try:
            return json.loads(self._text(path))
        except (ValueError, RecursionError) as error:
            raise RecordsError(f"{path} is not JSON: {error}") from error

    def _text(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            raise RecordsError(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise RecordsError(f"{path} is not UTF-8: {error.reason}") from error
