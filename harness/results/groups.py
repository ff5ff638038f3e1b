"""Kinds of failure: records of one subject and check that broke in the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from harness.results.record import rows

if TYPE_CHECKING:
    import pandas as pd

    from harness.results.record import Row

#: Columns that are equal in all records of one kind of failure.
KIND = ("subject", "check", "kind", "status")


class Kind(NamedTuple):
    """One kind of failure: its first record, and how many records are of it."""

    first: Row
    size: int


def kinds(broken: pd.DataFrame) -> list[Kind]:
    """The kinds of failure among broken records, in the order in which they first appear."""
    firsts = broken.drop_duplicates(list(KIND))
    sizes = broken.groupby(list(KIND), sort=False).size()
    return [Kind(*pair) for pair in zip(rows(firsts), sizes.tolist(), strict=True)]


def leaders_first(broken: pd.DataFrame) -> pd.DataFrame:
    """The first record of each kind, then the rest: a list that is cut names every kind."""
    return (
        broken.assign(_again=broken.duplicated(list(KIND)))
        .sort_values("_again", kind="stable")
        .drop(columns="_again")
    )
