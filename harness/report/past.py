"""What the page says about earlier runs: what changed, and since when a check is broken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.results import origin
from harness.results.finding import GRAVEST_FIRST, RED, Status
from harness.results.record import INTEGERS

if TYPE_CHECKING:
    import pandas as pd

    from harness.gate.drift import Drift
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
class Kind:
    """Cases of one subject and check that changed or broke alike, as the cells of a row.

    red: it is broken now.
    """

    cells: tuple[str, ...]
    red: bool


@dataclass(frozen=True)
class Past:
    """What the history says about the last run.

    last, previous: ids of this run and of the one before it, "" if it is the first.  since:
    (subject, check, case) -> since when it is broken.  drifted: (subject, check, case, integer) ->
    since when that has its value.  left_out: how many changes are not listed.
    """

    runs: int
    last: str
    previous: str
    changes: tuple[Change, ...]
    left_out: int
    since: dict[tuple[str, ...], str]
    slower: tuple[Slower, ...]
    drifted: dict[tuple[str, ...], str] = field(default_factory=dict)

    def of(self, record: Row) -> str:
        """Since when a record has been broken, "24 Nov (run 0004, 2 runs)"; "" if not known."""
        return self.since.get((record.subject, record.check, record.case), "")

    def of_drift(self, drift: Drift) -> str:
        """Since when an integer has had its value, in the same words; "" if not known."""
        return self.drifted.get((drift.subject, drift.check, drift.case, drift.integer), "")


def past(history: History, drift: Iterable[Drift] = ()) -> Past:
    """What a history says about its last run.  drift: that of the run.  Raises HistoryError."""
    runs = history.runs()
    last = runs[-1] if runs else ""
    changes = _changes(history.changes())
    since: dict[tuple[str, ...], str] = {
        (str(row["subject"]), str(row["check"]), str(row["case"])): origin.since(
            str(row["since"]), int(row["runs"]), last
        )
        for row in history.broken_since().to_dict("records")
    }
    wanted = [(d.subject, d.check, d.case, d.integer) for d in drift if d.integer in INTEGERS]
    drifted: dict[tuple[str, ...], str] = {
        key: origin.since(run, sum(run <= other for other in runs), last)
        for key, run in history.integer_since(wanted).items()
    }
    return Past(
        len(runs),
        last,
        runs[-2] if len(runs) > 1 else "",
        tuple(changes[:_SHOWN]),
        max(0, len(changes) - _SHOWN),
        since,
        tuple(history.steps()),
        drifted,
    )


def broken_kinds(rows: pd.DataFrame, last: str) -> list[Kind]:
    """Rows of `History.broken_since` by subject, check, status and run, in the order given."""
    found: dict[tuple[str, ...], list[str]] = {}
    for row in rows.to_dict("records"):
        since = origin.since(str(row["since"]), int(row["runs"]), last)
        key = (str(row["subject"]), str(row["check"]), str(row["status"]), since)
        found.setdefault(key, []).append(str(row["case"]))
    return [Kind((*key, str(len(cases)), cases[0]), red=True) for key, cases in found.items()]


def changed_kinds(rows: pd.DataFrame) -> list[Kind]:
    """Rows of `History.changes` by subject, check and what changed; what broke comes first.

    A status also sets kinds apart.  Of integers and positions, the figures are the first case's.
    """
    found: dict[tuple[str, ...], list[Change]] = {}
    for change in _changes(rows):
        apart = (change.before, change.now) if change.what == "status" else ()
        key = (change.subject, change.check, change.what, *map(str, apart))
        found.setdefault(key, []).append(change)
    return [_kind(held) for held in sorted(found.values(), key=lambda held: _rank(held[0]))]


def _kind(held: Sequence[Change]) -> Kind:
    first = held[0]
    nothing = "no record" if first.what == "status" else "none"
    before, now = (nothing if v is None else v for v in (first.before, first.now))
    cells = (first.subject, first.check, first.what, before, now, str(len(held)), first.case)
    return Kind(cells, red=_rank(first) < len(GRAVEST_FIRST))


def _rank(change: Change) -> int:
    """The place of a change: a record that is gone, then what broke, the worst first, the rest."""
    if change.what != "status":
        return len(GRAVEST_FIRST) + 1
    if change.now is None:
        return 0
    return GRAVEST_FIRST.index(Status(change.now)) if change.now in RED else len(GRAVEST_FIRST)


def _changes(rows: pd.DataFrame) -> list[Change]:
    return [
        Change(
            str(row["subject"]),
            str(row["check"]),
            str(row["case"]),
            str(row["what"]),
            _text(row["before"]),
            _text(row["now"]),
        )
        for row in rows.to_dict("records")
    ]


def _text(value: object) -> str | None:
    """A cell of a frame as text; None for a missing value, which may be None, NaN or NA."""
    return None if value is None or str(value) in {"nan", "<NA>"} else str(value)
