"""A folder of results (``reports/latest``): the records so far, and what is planned.

- ``records.jsonl``: one record per line, flushed at once, so that a crash loses none;
- ``collected.json``: what was to run, so that a record that never came reads "missing";
- ``run.json``: what kind of run it was and how it ended;
- ``planned.json``: for a shard only, what all shards together were to run;
- ``inflight/``: the check that each worker is running, from which a crash gets its record;
- ``.lock``: who writes to the folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.results import json_types
from harness.results.files import write_atomically
from harness.results.record import Record

#: Default folders: the results of the last run, and the history of runs.
LATEST = Path("reports/latest")
HISTORY = "reports/history"

#: Which matrix a run collects: the short one of ``suites/short.csv``, or the whole plan.
SHORT, ALL = "short", "all"

#: Files of a single run, deleted before the next: a pull request must never show an old verdict.
_OF_A_RUN = (
    "records.jsonl",
    "collected.json",
    "planned.json",
    "run.json",
    "verdict.json",
    "summary.md",
    "comment.md",
    "junit.xml",
    "index.html",
)


class RecordsError(Exception):
    """A folder of results cannot be read; the message names the file and what is wrong."""


@dataclass
class RunInfo:
    """What kind of run it was.

    whole: every suite and subject was collected, without -k, --subject or the like.  outside:
    failures of tests that are not conformance checks.  exit_status: pytest's; None until it ended.
    shard: "2/4" for the second of four.  of_whole: all shards together make a whole run.  absent:
    for a merged run, the missing shards.  resident_peak_bytes: the largest resident size of a
    process that ran checks, indicative and never gated.  began: ISO 8601.  commit, branch: of the
    working directory, "" where git knows none; the commits of merged runs that differ are joined by
    ", ".  changed: files were changed and not committed.  matrix: which matrix was collected,
    "short" or "all".
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
    began: str = ""
    commit: str = ""
    branch: str = ""
    changed: bool = False
    matrix: str = ALL


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
        """Remove what an earlier run left, so that none of it is mistaken for this run's."""
        self.path.mkdir(parents=True, exist_ok=True)
        for name in _OF_A_RUN:
            (self.path / name).unlink(missing_ok=True)
        for left in self.inflight.glob("*.json"):
            left.unlink(missing_ok=True)

    def start(self, info: RunInfo) -> None:
        """Begin a run, before it is known what will run: the last one no longer counts.

        From here on until the run ends by itself, the gate is red.
        """
        self.clear()
        self.records.touch()  # a session that dies in its first check writes none
        self.write_collected([])
        self.write_run(info)

    def append(self, record: Record) -> None:
        """Add one line and flush it, so that it survives the death of this process."""
        with self.records.open("a", encoding="utf-8") as out:
            out.write(record.to_json() + "\n")

    def write_collected(self, items: Iterable[Record]) -> None:
        """Write what is to run: the records that count if no others come."""
        write_atomically(self.collected, json.dumps([item.filled() for item in items]))

    def write_planned(self, items: Iterable[Record]) -> None:
        """Write what all shards together are to run."""
        write_atomically(self.planned, json.dumps([item.filled() for item in items]))

    def write_run(self, info: RunInfo) -> None:
        """Write what kind of run it is."""
        write_atomically(self.run, json.dumps(asdict(info)))

    def read_collected(self) -> list[Record]:
        """What was to run.  Raises RecordsError if it cannot be read."""
        return self._items(self.collected)

    def read_planned(self) -> list[Record]:
        """What all shards together were to run.  Raises RecordsError if it cannot be read."""
        return self._items(self.planned)

    def read_run(self) -> RunInfo:
        """What kind of run it was.  Raises RecordsError if it cannot be read."""
        data = self._json(self.run)
        try:
            return json_types.made(RunInfo, data)
        except ValueError as error:
            raise RecordsError(f"{self.run}: {error}") from error

    def read_records(self) -> list[Record]:
        """Every record, in order of arrival.  A last line cut short by a crash is dropped.

        Raises RecordsError naming any other line that is not a record.
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
                if number == len(lines):  # no newline after it: the write was cut short
                    break
                raise RecordsError(f"{self.records}, line {number}: {error}") from error
        return out

    def checkpoint(self, worker: str, record: Record) -> None:
        """Write the record of the check that `worker` is starting."""
        self.inflight.mkdir(parents=True, exist_ok=True)
        write_atomically(self.inflight / f"{worker}.json", record.to_json())

    def in_flight(self, worker: str) -> Record | None:
        """The check that `worker` is running, or died in; None if there is none."""
        try:
            return Record.from_json((self.inflight / f"{worker}.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # the worker may delete the file at any time
            return None

    def seconds_at(self, worker: str) -> float | None:
        """For how many seconds `worker` has been running its check; None if it runs none."""
        try:
            return time.time() - (self.inflight / f"{worker}.json").stat().st_mtime
        except FileNotFoundError:
            return None

    def landed(self, worker: str) -> None:
        """`worker` has finished its check."""
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
