"""Groups of failures: records of one subject and check that broke in the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from harness.results.record import rows

if TYPE_CHECKING:
    import pandas as pd

    from harness.results.record import Row

#: All records of a group agree in these columns.
KEY = ("subject", "check", "kind", "status")


class Group(NamedTuple):
    """Failures of one kind: the first record, and the number of records."""

    first: Row
    size: int


def groups(broken: pd.DataFrame) -> list[Group]:
    """Broken records grouped by subject, check, kind and status, in order of appearance."""
    firsts = broken.drop_duplicates(list(KEY))
    sizes = broken.groupby(list(KEY), sort=False).size()
    return [Group(*pair) for pair in zip(rows(firsts), sizes.tolist(), strict=True)]


def leaders_first(broken: pd.DataFrame) -> pd.DataFrame:
    """The first record of each group, then the rest, so that a cut list names every group."""
    return (
        broken.assign(_again=broken.duplicated(list(KEY)))
        .sort_values("_again", kind="stable")
        .drop(columns="_again")
    )
