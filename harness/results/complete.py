"""Exactly one record per item of a run: its worst, or "missing" if it has none."""

from __future__ import annotations

from collections.abc import Iterable

from harness.results.finding import GRAVEST_FIRST, Status
from harness.results.folder import Folder
from harness.results.record import Record
from harness.results.recorder import died_in_flight


def complete(records: Iterable[Record], collected: Iterable[Record]) -> list[Record]:
    """One record per item: the worst that came, or else the collected one, which is "missing".

    In the order of collection, so that the order in which workers or shards finish does not matter.
    Records of items that were not collected come last.
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
    """One record for every item in a folder of results.  Raises RecordsError."""
    records = folder.read_records()
    return complete([*records, *died_in_flight(folder, records)], folder.read_collected())


def strays(folder: Folder) -> list[str]:
    """Reasons to think that records belong to another run than the folder's; none if all fit.

    Raises RecordsError.
    """
    records, run = folder.read_records(), folder.read_run().run
    records += died_in_flight(folder, records)
    items = {(item.item, item.subject, item.check) for item in folder.read_collected()}
    others = sum(record.run != run for record in records)
    uncalled = sum((r.item, r.subject, r.check) not in items for r in records)
    counted = (
        (others, "record is from another run", "records are from another run"),
        (uncalled, "record has no collected item", "records have no collected item"),
    )
    return [f"{n} {one if n == 1 else many}" for n, one, many in counted if n]


def _rank(record: Record) -> int:
    return GRAVEST_FIRST.index(Status(record.status))
