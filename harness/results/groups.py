"""Groups of failures: records of one subject and check that broke in the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from harness.results.record import rows

if TYPE_CHECKING:
    import pandas as pd

    from harness.results.record import Row

#: Columns that are equal in all records of a group.
KEY = ("subject", "check", "kind", "status")


class Group(NamedTuple):
    """Failures of one kind: the first record, and how many there are."""

    first: Row
    size: int


def groups(broken: pd.DataFrame) -> list[Group]:
    """Broken records by subject, check, kind and status, in the order in which each appears."""
    firsts = broken.drop_duplicates(list(KEY))
    sizes = broken.groupby(list(KEY), sort=False).size()
    return [Group(*pair) for pair in zip(rows(firsts), sizes.tolist(), strict=True)]


def leaders_first(broken: pd.DataFrame) -> pd.DataFrame:
    """The first record of each group, then the rest: a list that is cut names every group."""
    return (
        broken.assign(_again=broken.duplicated(list(KEY)))
        .sort_values("_again", kind="stable")
        .drop(columns="_again")
    )
