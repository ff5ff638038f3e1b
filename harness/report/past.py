"""What the page says of earlier runs: what changed with this one, and since when it is broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.results.history import History, Slower
    from harness.results.record import Row

_SHOWN = 200


@dataclass(frozen=True)
class Change:
    """One integer or status that differs from the run before; None where there was no record."""

    subject: str
    check: str
    case: str
    what: str
    before: str | None
    now: str | None


@dataclass(frozen=True)
class Past:
    """previous: id of the run before, "" if this is the first.  since: item key -> first run of
    the current streak of failures.  left_out: changes that are not listed."""

    runs: int
    previous: str
    changes: tuple[Change, ...]
    left_out: int
    since: dict[tuple[str, str, str], str]
    slower: tuple[Slower, ...]

    def of(self, record: Row) -> str:
        """The run since which a record is broken, "" where nothing is known of it."""
        return self.since.get((record.subject, record.check, record.case), "")


def past(history: History) -> Past:
    """What a history says of its last run.  Raises HistoryError."""
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
    """A cell of a frame as text; what is missing comes as None, or as NaN, which reads "nan"."""
    return None if value is None or str(value) in {"nan", "<NA>"} else str(value)
