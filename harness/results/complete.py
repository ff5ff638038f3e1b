"""One record for every item of a run: the worst that came, "missing" where none came."""

from __future__ import annotations

from collections.abc import Iterable

from harness.results.finding import GRAVEST_FIRST, Status
from harness.results.folder import Folder
from harness.results.record import Record
from harness.results.recorder import died_in_flight


def complete(records: Iterable[Record], collected: Iterable[Record]) -> list[Record]:
    """One record an item: the worst of those that came, where none came the one collected.

    In the order of collection, so that workers and shards that end in another order change nothing.
    """
    items = list(collected)
    worst: dict[str, Record] = {}
    for record in records:
        held = worst.get(record.item)
        if held is None or _rank(record) < _rank(held):
            worst[record.item] = record
    for item in items:
        worst.setdefault(item.item, item)
    wanted = dict.fromkeys(item.item for item in items)
    strays = [name for name in worst if name not in wanted]
    return [worst[name] for name in (*wanted, *strays)]


def completed(folder: Folder) -> list[Record]:
    """One record for every item of a folder of results.  Raises RecordsError."""
    records = folder.read_records()
    return complete([*records, *died_in_flight(folder, records)], folder.read_collected())


def strays(folder: Folder) -> list[str]:
    """What shows that records are not of the run that the folder says; none if all are.

    Raises RecordsError.
    """
    records, run = folder.read_records(), folder.read_run().run
    records += died_in_flight(folder, records)
    items = {(item.item, item.subject, item.check) for item in folder.read_collected()}
    others = sum(record.run != run for record in records)
    uncalled = sum((r.item, r.subject, r.check) not in items for r in records)
    counted = (
        (others, "record is of another run", "records are of another run"),
        (uncalled, "record is of no collected item", "records are of no collected item"),
    )
    return [f"{n} {one if n == 1 else many}" for n, one, many in counted if n]


def _rank(record: Record) -> int:
    return GRAVEST_FIRST.index(Status(record.status))
