"""Writes the records of a pytest session while it runs, in a process that survives crashes.

Under xdist that is the controller.  Workers send records with their reports, and note the check
that they are running in a file, so that a check whose worker is killed still gets its record.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from harness.results import ended, json_types, origin
from harness.results.files import write_atomically
from harness.results.finding import Status
from harness.results.folder import ALL, Folder, RunInfo
from harness.results.lock import Lock
from harness.results.record import Record


def new_run_id() -> str:
    """A run id that sorts by time and is unique even within one second."""
    return f"{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(2)}"


def announce(
    folder: Folder,
    run: str,
    items: Iterable[Record],
    *,
    whole: bool,
    matrix: str = ALL,
    shard: str = "",
    planned: Iterable[Record] = (),
) -> None:
    """Called by the collecting process: write the list of planned items for `Recorder.begin`.

    matrix: the short one, or all.  shard, planned: for a shard only, "2/4" and what all shards
    together are to run.
    """
    folder.inflight.mkdir(parents=True, exist_ok=True)
    word = {
        "whole": whole,
        "matrix": matrix,
        "items": [item.filled() for item in items],
        "shard": shard,
        "planned": [item.filled() for item in planned],
    }
    write_atomically(_word(folder, run), json.dumps(word))


def _word(folder: Folder, run: str) -> Path:
    return folder.inflight / f"{run}.collected"


class Recorder:
    """Appends records to a folder of results, and knows what was planned."""

    def __init__(self, folder: Folder, run: str, arguments: list[str]) -> None:
        self.folder = folder
        self.info = RunInfo(run, arguments=arguments)
        self.items: dict[str, Record] = {}
        self.count = 0
        self.opened = False
        self.lock = Lock(folder.path, "--harness-out")

    @property
    def active(self) -> bool:
        """True once conformance checks were collected."""
        return bool(self.items)

    def open(self) -> None:
        """Take the folder for this run: what an earlier run left no longer counts.

        The lock is held until `close`.  Raises BusyError if another run writes to the folder.
        """
        if not self.opened:
            self.lock.take()
            self.folder.start(self.info)
            self.opened = True

    def close(self) -> None:
        """Let other runs write to the folder."""
        self.lock.release()

    def begin(self) -> None:
        """Write the planned items into the folder of results; do nothing if there are none.

        Raises BusyError if another run writes to the folder.
        """
        word = _word(self.folder, self.info.run)
        if self.active or not word.exists():
            return
        said = json.loads(word.read_text(encoding="utf-8"))
        items = [json_types.made(Record, item) for item in said["items"]]
        if not items:
            return
        self.items = {item.item: item for item in items}
        origin.note(self.info)
        self.info.shard = said["shard"]
        self.info.whole = said["whole"] and not self.info.shard
        self.info.of_whole = said["whole"]
        self.info.matrix = said["matrix"]
        self.open()
        self.folder.write_collected(items)
        if self.info.shard:
            self.folder.write_planned(json_types.made(Record, item) for item in said["planned"])
        self.folder.write_run(self.info)

    def record(self, record: Record) -> None:
        """Write one record; it is on disk when this returns."""
        self.folder.append(record)
        self.count += 1

    def resident(self, nbytes: int) -> None:
        """Note the resident size of a process that runs checks; the largest is kept."""
        self.info.resident_peak_bytes = max(nbytes, self.info.resident_peak_bytes or 0)

    def outside(self, item: str) -> None:
        """Note that a test that is not a conformance check failed."""
        if item not in self.info.outside:
            self.info.outside.append(item)
        if self.opened:
            self.folder.write_run(self.info)

    def crashed(self, item: str, worker: str, limit: float, how: str = "") -> Record | None:
        """The record of the check in which a worker died; None if it was not a conformance check.

        limit: seconds after which a check counts as hung.  how: what is known about the death.
        """
        if item not in self.items:
            return None
        record = self.folder.in_flight(worker)
        if record is None or record.item != item:
            record = replace(self.items[item], status=Status.ERROR.value)
            return ended.died(how, when="before the check began").fill(record)
        age = self.folder.seconds_at(worker)
        hung = limit > 0 and age is not None and age >= limit
        record.seconds = age
        self.folder.landed(worker)
        end = ended.hung(limit, forced=True) if hung else ended.died(how, when="in mid-check")
        return end.fill(record)

    def end(self, exit_status: int) -> None:
        """Note that the session is over, and how it ended."""
        if not self.opened:
            return
        self.info.exit_status = exit_status
        self.folder.write_run(self.info)
        shutil.rmtree(self.folder.inflight, ignore_errors=True)


def died_in_flight(folder: Folder, records: Iterable[Record]) -> list[Record]:
    """Records of the checks that were running when the whole session died, unwritten until now."""
    there = {record.item for record in records}
    out = []
    for path in sorted(folder.inflight.glob("*.json")):
        record = folder.in_flight(path.stem)
        if record is not None and record.item not in there:
            out.append(ended.died(what="the session", when="in mid-check").fill(record))
    return out
