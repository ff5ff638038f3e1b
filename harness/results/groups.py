"""Groups of failures: records of one subject that broke in the same way.

Every report groups by this one rule, so that page, comment and terminal count alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.results.finding import Status
from harness.results.record import rows

if TYPE_CHECKING:
    import pandas as pd

    from harness.results.record import Row

#: All records of a group agree in these columns; those of failed checks in `check` too.
KEY = ("subject", "kind", "status", "exception")


@dataclass(frozen=True)
class Group:
    """Failures of one kind, in the order given.

    dtypes: those of its records, if failures of the same subject and checks that have another kind
    are of other dtypes; otherwise empty.
    """

    records: tuple[Row, ...]
    dtypes: tuple[str, ...] = ()

    @property
    def first(self) -> Row:
        """The record that represents the group."""
        return self.records[0]

    @property
    def size(self) -> int:
        """The number of records."""
        return len(self.records)

    @property
    def checks(self) -> str:
        """The checks that broke in this way, as text."""
        return ", ".join(dict.fromkeys(record.check for record in self.records))

    @property
    def where(self) -> str:
        """ " in float16" where other dtypes break in another way; otherwise ""."""
        return f" in {' and '.join(self.dtypes)}" if self.dtypes else ""


def groups(broken: pd.DataFrame) -> list[Group]:
    """Broken records grouped by subject, status, kind and exception, in order of appearance.

    Failed checks are also kept apart by check.  An exception or a lost record is one group over all
    checks.  Messages are for people and do not affect the groups.
    """
    found: dict[tuple[str, ...], list[Row]] = {}
    for key, row in zip(_keys(broken), rows(broken), strict=True):
        found.setdefault(key, []).append(row)
    return [
        Group(tuple(held), _dtypes(key, found) if _splits(key, found) else ())
        for key, held in found.items()
    ]


def leaders_first(broken: pd.DataFrame) -> pd.DataFrame:
    """The first record of each group, then the rest, so that a cut list names every group."""
    seen: set[tuple[str, ...]] = set()
    again = []
    for key in _keys(broken):
        again.append(key in seen)
        seen.add(key)
    return broken.assign(_again=again).sort_values("_again", kind="stable").drop(columns="_again")


def _keys(broken: pd.DataFrame) -> list[tuple[str, ...]]:
    failed = broken["status"] == Status.FAIL
    checks = broken["check"].where(failed, "")
    return list(zip(*(broken[name] for name in KEY), checks, strict=True))


def _dtypes(key: tuple[str, ...], found: dict[tuple[str, ...], list[Row]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.dtype for row in found[key] if row.dtype))


def _splits(key: tuple[str, ...], found: dict[tuple[str, ...], list[Row]]) -> bool:
    """True if another kind of failure of the same subject and check has dtypes of its own alone."""
    mine = set(_dtypes(key, found))
    others = (
        other for other in found if other != key and (other[0], other[-1]) == (key[0], key[-1])
    )
    return any(mine and (dtypes := set(_dtypes(o, found))) and not mine & dtypes for o in others)
