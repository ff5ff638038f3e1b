"""What a check found: one flat result per check and case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Status(StrEnum):
    """How a check ended, or what the gate made of that."""

    PASS = "pass"
    FAIL = "fail"  # the check ran and does not hold
    ERROR = "error"  # the subject or the harness raised, hung or died
    NOT_CLAIMED = "not-claimed"  # the subject raised Unsupported
    NOT_INSTALLED = "not-installed"  # the package of the subject is absent
    KNOWN = "known"  # a failure that suites/known_failures describes
    FIXED = "fixed"  # a known failure that passed: its entry must go
    MISSING = "missing"  # collected, but no record came back


#: The names of the checks, for what must not wait for torch; `harness.checks` holds the checks.
NAMES = (
    "visibility",
    "values",
    "gradients",
    "cache_bytes",
    "peak_bytes",
    "reset",
    "rewind",
    "refusal",
    "purity",
    "export",
)

#: Statuses that turn the gate red.
RED = frozenset({Status.FAIL, Status.ERROR, Status.FIXED, Status.MISSING})

#: Statuses of what did not run, though nothing is wrong.
NOT_RUN = frozenset({Status.NOT_INSTALLED, Status.NOT_CLAIMED})

#: The one order of statuses.  Of two records of one item the graver counts, so that a rerun that
#: passes hides nothing.
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
#: The order in which statuses are shown: what did not run comes last, for it must not stand in
#: front of a pass.
SHOWN_FIRST = tuple(sorted(GRAVEST_FIRST, key=NOT_RUN.__contains__))


@dataclass
class Finding:
    """The outcome of one check of one case.

    kind: what went wrong, as a slug ("sees-too-many", "bytes-differ"): reports group by it and
    known failures name it, so that messages are free to change; "" where nothing is wrong.
    figure: the worst measured value; bound: what it may be; margin: how many bounds the nearest
    wrong law is away (the blindness guard).  first_bad: the first wrong position.
    bytes: exact integers by name, those of `harness.results.record.INTEGERS`.
    rows: for failed positions (position, expected visible keys, recovered visible keys), from
    which the report draws.  errors: the error of each position over its bound; neighbours: the
    same under the nearest wrong laws, by what they say otherwise, of what failed.
    """

    check: str
    status: Status = Status.PASS
    figure: float | None = None
    bound: float | None = None
    margin: float | None = None
    first_bad: int | None = None
    kind: str = ""
    message: str = ""
    exception: str = ""  # type name of what was raised, for status ERROR
    bytes: dict[str, int] = field(default_factory=dict)
    rows: list[tuple[int, list[int], list[int]]] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    neighbours: dict[str, list[float]] = field(default_factory=dict)

    def fail(self, message: str, first_bad: int | None = None, *, kind: str = "") -> Finding:
        """Mark as failed (the first message and kind stay in front) and return self."""
        self.status = Status.FAIL
        self.kind = self.kind or kind
        self.message = f"{self.message}; {message}" if self.message else message
        if first_bad is not None and (self.first_bad is None or first_bad < self.first_bad):
            self.first_bad = first_bad
        return self

    def compare_sets(self, expected: Tensor, got: Tensor, limit: int = 6) -> None:
        """Fail unless two bool (n, n) matrices of visible keys are equal; keep the worst rows."""
        for q in (expected != got).any(-1).nonzero().flatten().tolist():
            want = expected[q].nonzero().flatten().tolist()
            have = got[q].nonzero().flatten().tolist()
            if len(self.rows) < limit:
                self.rows.append((q, want, have))
            if self.first_bad is None or q < self.first_bad:
                self.first_bad = q
        if self.rows:
            self.fail("; ".join(_describe(q, want, have) for q, want, have in self.rows[:2]))


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
