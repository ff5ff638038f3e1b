"""Merges runs: the shards of one matrix, and runs of suites in other environments.

Every shard knows what all shards together were to run (``planned.json``).  So a shard that never
came back leaves missing records, not a smaller run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.results.complete import strays
from harness.results.files import write_atomically
from harness.results.finding import Status
from harness.results.folder import ALL, SHORT, Folder, RunInfo
from harness.results.record import Record
from harness.results.recorder import died_in_flight, new_run_id


class MergeError(Exception):
    """These folders cannot be merged; the message names them and says why."""


@dataclass(frozen=True)
class _Part:
    path: Path
    info: RunInfo
    collected: list[Record]
    records: list[Record]

    @property
    def group(self) -> int:
        return int(self.info.shard.partition("/")[0])

    @property
    def of(self) -> int:
        return int(self.info.shard.partition("/")[2])


@dataclass(frozen=True)
class Merged:
    """info: of the merged run.  absent: shards that are missing, as "3/4"."""

    info: RunInfo
    absent: list[str]


def merge(folders: Sequence[Path], out: Path) -> Merged:
    """Merge these folders into one run, written to `out`.

    Items of missing shards get the status "missing".  Runs that are not shards are added.  The
    merged run is whole if any part was whole or is a shard of a whole run.  Raises MergeError, or
    RecordsError for a folder that cannot be read.
    """
    if len({path.resolve() for path in folders}) < len(folders):
        raise MergeError("one folder is named twice")
    if out.resolve() in {path.resolve() for path in folders}:
        raise MergeError(f"{out} is one of the parts")
    parts = [_read(path) for path in folders]
    shards = [part for part in parts if part.info.shard]
    absent = _check_shards(shards)
    planned = Folder(shards[0].path).read_planned() if shards else []
    run = new_run_id()
    info = RunInfo(
        run,
        whole=any(part.info.whole or part.info.of_whole for part in parts),
        exit_status=_exit_status(parts),
        outside=list(dict.fromkeys(item for part in parts for item in part.info.outside)),
        arguments=[str(path) for path in folders],
        absent=absent,
        resident_peak_bytes=max(
            (n for part in parts if (n := part.info.resident_peak_bytes) is not None), default=None
        ),
        began=min((part.info.began for part in parts if part.info.began), default=""),
        commit=_joined(part.info.commit for part in parts),
        branch=_joined(part.info.branch for part in parts),
        changed=any(part.info.changed for part in parts),
        matrix=_matrix(parts),
    )
    _write(Folder(out), info, _items(planned, parts), parts)
    return Merged(info, absent)


def _read(path: Path) -> _Part:
    folder = Folder(path)
    if found := strays(folder):
        raise MergeError(f"{path} holds records from another run: {'; '.join(found)}")
    records = folder.read_records()
    records += died_in_flight(folder, records)
    return _Part(path, folder.read_run(), folder.read_collected(), records)


def _check_shards(shards: Sequence[_Part]) -> list[str]:
    """The missing shards.  Raises MergeError if the others do not belong to one run."""
    if not shards:
        return []
    first = shards[0]
    planned = {item.item for item in Folder(first.path).read_planned()}
    taken: dict[int, Path] = {}
    for part in shards:
        if part.of != first.of:
            raise MergeError(
                f"{part.path} is one of {part.of} shards, {first.path} one of {first.of}"
            )
        if part.group in taken:
            raise MergeError(f"{taken[part.group]} and {part.path} are both shard {part.group}")
        taken[part.group] = part.path
        other = {item.item for item in Folder(part.path).read_planned()}
        if other != planned:
            raise MergeError(
                f"{part.path} and {first.path} are shards of different matrices: "
                f"{len(other ^ planned)} items are in only one of them"
            )
    return [f"{n}/{first.of}" for n in range(1, first.of + 1) if n not in taken]


def _items(planned: Iterable[Record], parts: Sequence[_Part]) -> list[Record]:
    """Each planned item once; a subject that ran in any part is not also "not installed"."""
    ran = {r.subject for part in parts for r in part.records if r.case}
    items = {item.item: item for item in planned}
    for part in parts:
        items |= {item.item: item for item in part.collected}
    return [item for item in items.values() if item.case or item.subject not in ran]


def _write(folder: Folder, info: RunInfo, items: Sequence[Record], parts: Sequence[_Part]) -> None:
    wanted = {item.item for item in items}
    folder.clear()
    folder.write_collected(replace(item, run=info.run) for item in items)
    kept = (
        replace(record, run=info.run).to_json() + "\n"
        for record in (r for part in parts for r in part.records)
        if record.item in wanted or record.status != Status.NOT_INSTALLED
    )
    write_atomically(folder.records, "".join(kept))
    folder.write_run(info)  # last: without it the folder is no run


def _joined(names: Iterable[str]) -> str:
    """The distinct names; parts of one run have one in common."""
    return ", ".join(dict.fromkeys(name for name in names if name))


def _matrix(parts: Sequence[_Part]) -> str:
    """The matrix of the parts that make the run whole; a part by itself may be of any."""
    whole = [part.info for part in parts if part.info.whole or part.info.of_whole]
    return SHORT if any(info.matrix == SHORT for info in whole) else ALL


def _exit_status(parts: Sequence[_Part]) -> int | None:
    """The worst exit status; None if any part did not end."""
    statuses = [part.info.exit_status for part in parts]
    ended = [status for status in statuses if status is not None]
    return max(ended) if len(ended) == len(statuses) else None
