"""What the page says about earlier runs: what changed, and since when a check is broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.results.history import History, Slower
    from harness.results.record import Row

_SHOWN = 200


@dataclass(frozen=True)
class Change:
    """An integer or status that differs from the previous run; None if there is no value."""

    subject: str
    check: str
    case: str
    what: str
    before: str | None
    now: str | None


@dataclass(frozen=True)
class Past:
    """What the history says about the last run.

    previous: id of the run before it, "" if it is the first.  since: (subject, check, case) -> the
    first run of the current streak of failures.  left_out: how many changes are not listed.
    """

    runs: int
    previous: str
    changes: tuple[Change, ...]
    left_out: int
    since: dict[tuple[str, str, str], str]
    slower: tuple[Slower, ...]

    def of(self, record: Row) -> str:
        """The run since which a record has been broken; "" if that is not known."""
        return self.since.get((record.subject, record.check, record.case), "")


def past(history: History) -> Past:
    """What a history says about its last run.  Raises HistoryError."""
    runs = history.runs()
    rows = history.changes().to_dict("records")
    changes = [
        Change(
            str(row["subject"]),
            str(row["check"]),
            str(row["case"]),
            str(row["what"]),
            _text(row["before"]),
            _text(row["now"]),
        )
        for row in rows
    ]
    since = {
        (str(row["subject"]), str(row["check"]), str(row["case"])): str(row["since"])
        for row in history.broken_since().to_dict("records")
    }
    return Past(
        len(runs),
        runs[-2] if len(runs) > 1 else "",
        tuple(changes[:_SHOWN]),
        max(0, len(changes) - _SHOWN),
        since,
        tuple(history.steps()),
    )


def _text(value: object) -> str | None:
    """A cell of a frame as text; None for a missing value, which may be None, NaN or NA."""
    return None if value is None or str(value) in {"nan", "<NA>"} else str(value)
