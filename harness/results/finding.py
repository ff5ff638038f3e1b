"""What a check found: one flat result per check and case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.results.check_info import (
    ATTENTION,
    CACHE,
    CHECK_INFO,
    DECODER,
    INTEGERS,
    NAMES,
    CheckInfo,
)
from harness.results.kinds import Kind

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "ATTENTION",
    "CACHE",
    "CHECK_INFO",
    "DECODER",
    "GRAVEST_FIRST",
    "INTEGERS",
    "NAMES",
    "NOT_RUN",
    "RED",
    "SHOWN_FIRST",
    "CheckInfo",
    "Finding",
    "Kind",
    "Status",
]


class Status(StrEnum):
    """How a check ended, or how the gate classified that."""

    PASS = "pass"
    FAIL = "fail"  # the check ran and does not hold
    ERROR = "error"  # the subject or the harness raised, hung or died
    NOT_CLAIMED = "not-claimed"  # the subject raised Unsupported
    NOT_INSTALLED = "not-installed"  # the package of the subject is absent
    KNOWN = "known"  # a failure that suites/known_failures describes
    FIXED = "fixed"  # a known failure that passed: its case must go
    MISSING = "missing"  # collected, but no record came back


#: Statuses that turn the gate red.
RED = frozenset({Status.FAIL, Status.ERROR, Status.FIXED, Status.MISSING})

#: Statuses of checks that did not run although nothing is wrong.
NOT_RUN = frozenset({Status.NOT_INSTALLED, Status.NOT_CLAIMED})

#: Statuses by severity, the worst first.  The worse of two records of one item counts, so that a
#: rerun that passes hides nothing.
GRAVEST_FIRST = (
    Status.MISSING,
    Status.ERROR,
    Status.FAIL,
    Status.FIXED,
    Status.KNOWN,
    Status.NOT_INSTALLED,
    Status.NOT_CLAIMED,
    Status.PASS,
)
#: The order in which statuses are shown.  Those of checks that did not run come last, so that they
#: never come before a pass.
SHOWN_FIRST = tuple(sorted(GRAVEST_FIRST, key=NOT_RUN.__contains__))


@dataclass
class Finding:
    """The outcome of one check of one case.

    kind: what went wrong, None where nothing did.  Reports group by it and known failures name it,
    so that messages are free to change.
    figure: the worst measured value.  bound: the largest value allowed.  margin: how many bounds
    away the nearest wrong law is (the blindness guard).  first_bad: the first wrong position.
    bytes: exact integers by name, out of `INTEGERS`.
    rows: (position, expected visible keys, recovered visible keys) of wrong positions, which the
    report draws.  errors: the error at each position over its bound.  neighbours: for failures
    only, the same errors under each neighbouring law, keyed by how it differs.
    """

    check: str
    status: Status = Status.PASS
    figure: float | None = None
    bound: float | None = None
    margin: float | None = None
    first_bad: int | None = None
    kind: Kind | None = None
    message: str = ""
    exception: str = ""  # type name of what was raised, for status ERROR
    bytes: dict[str, int] = field(default_factory=dict)
    rows: list[tuple[int, list[int], list[int]]] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    neighbours: dict[str, list[float]] = field(default_factory=dict)

    def fail(self, kind: Kind, message: str, first_bad: int | None = None) -> Finding:
        """Mark as failed and return self.  The first kind stays; messages are joined in order.

        Raises ValueError for a kind that is not one of `Kind`.
        """
        kind = Kind(kind)  # checked here, for callers without a type checker
        self.status = Status.FAIL
        self.kind = self.kind or kind
        self.message = f"{self.message}; {message}" if self.message else message
        if first_bad is not None and (self.first_bad is None or first_bad < self.first_bad):
            self.first_bad = first_bad
        return self

    def compare_sets(
        self, expected: Tensor, got: Tensor, where: str = "", *, nan: Tensor | None = None
    ) -> None:
        """Fail unless two bool (n, n) matrices of visible keys are equal; keep the first rows.

        where: what the matrices belong to, for the message.  nan: bool (n,), the queries whose
        answers hold NaN or an infinity, from which no set can be recovered.
        """
        unknown = expected.new_zeros(len(expected)) if nan is None else nan
        wrong = ((expected != got).any(-1) | unknown).nonzero().flatten().tolist()
        if not wrong:
            return
        kind = Kind.NOT_A_NUMBER if unknown.any() else _kind_of_sets(expected, got)
        got = got & ~unknown[:, None]
        rows = [(q, _keys(expected[q]), _keys(got[q])) for q in wrong[:_ROWS]]
        self.rows += rows[: _ROWS - len(self.rows)]
        parts = [_describe(*row) for row in rows if not unknown[row[0]]][:2]
        if unknown.any():
            parts.insert(0, f"the answer is NaN or infinite at {_queries(unknown)}")
        text = "; ".join(parts)
        self.fail(kind, f"{where}: {text}" if where else text, wrong[0])


#: The most rows of visible sets that a finding keeps.
_ROWS = 6


def _keys(visible: Tensor) -> list[int]:
    return [int(k) for k in visible.nonzero().flatten()]


def _queries(chosen: Tensor) -> str:
    """ "query 3", or "5 queries, the first 3"."""
    at = _keys(chosen)
    return f"query {at[0]}" if len(at) == 1 else f"{len(at)} queries, the first {at[0]}"


def _kind_of_sets(expected: Tensor, got: Tensor) -> Kind:
    """How two bool (n, n) matrices of visible keys differ, over all rows."""
    extra, lost = got & ~expected, expected & ~got
    future = extra.triu(1)
    ways = (
        (Kind.SEES_THE_FUTURE, future),
        (Kind.SEES_TOO_MANY, extra & ~future),
        (Kind.LOST_KEYS, lost),
    )
    found = [kind for kind, keys in ways if keys.any()]
    return found[0] if len(found) == 1 else Kind.WRONG_KEYS


def _describe(q: int, want: Sequence[int], have: Sequence[int]) -> str:
    extra, lost = sorted(set(have) - set(want)), sorted(set(want) - set(have))
    future = [k for k in extra if k > q]
    past = [k for k in extra if k <= q]
    parts = []
    if future:
        parts.append(f"sees the future {future}")
    if past:
        parts.append(f"sees {past} too many")
    if lost:
        parts.append(f"lost {lost}")
    return f"query {q} {', '.join(parts)}"
