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


#: The bodies that a subject may have, as `harness.contract.kind_of` names them.
ATTENTION, CACHE, DECODER = "attention", "cache", "decoder"


@dataclass(frozen=True)
class CheckInfo:
    """What is declared of a check; its function has its name, in `harness.checks`.

    module: the file in `harness/checks/`.  holds: when the check holds, to be read after "holds
    when".  bodies: subjects for which it is planned.  integers: the exact byte counts that it
    records, each a field of `Record` and a column of the baselines.
    """

    name: str
    module: str
    holds: str
    bodies: tuple[str, ...] = (ATTENTION, CACHE, DECODER)
    integers: tuple[str, ...] = ()


#: Every check, in the order of the report.  A new check is a row here, a function in
#: `harness/checks/`, its rows in `harness.run.plan_table`, and a planted defect.  Plain data, so
#: that a command that runs no check does not wait for torch.
CHECK_INFO: tuple[CheckInfo, ...] = (
    CheckInfo(
        "visibility",
        "visibility",
        "the recovered visible set equals the law's, for every query and schedule",
    ),
    CheckInfo(
        "values",
        "values",
        "each row's error against the float64 oracle is within the bound",
    ),
    CheckInfo(
        "gradients",
        "gradients",
        "dq, dk and dv are within the bound as well",
        bodies=(ATTENTION,),
    ),
    CheckInfo(
        "cache_bytes",
        "bytes",
        "storage bytes are those of the profile and of the law, and `nbytes()` says what the "
        "storages and the allocator say",
        bodies=(CACHE, DECODER),
        integers=("cache_bytes", "retained_bytes"),
    ),
    CheckInfo(
        "peak_bytes",
        "peak",
        "peak and retained bytes of every step, from the allocator, equal the baseline, and decode "
        "steps are steady",
        integers=("peak_bytes", "retained_bytes"),
    ),
    CheckInfo(
        "reset",
        "state",
        "a cache that was used and reset answers as a fresh one does",
        bodies=(CACHE, DECODER),
    ),
    CheckInfo(
        "rewind",
        "state",
        "the answers right after a rewind are right, or the rewind raised",
        bodies=(CACHE, DECODER),
    ),
    CheckInfo(
        "refusal",
        "refusal",
        "bad input gets a clear error and leaves the state as it was",
    ),
    CheckInfo(
        "purity",
        "state",
        "inputs are not modified, equal runs give equal bits, and batch rows do not mix",
    ),
    CheckInfo(
        "export",
        "export",
        "`torch.export`, with static and dynamic lengths, gives the eager answers; live bytes of "
        "the graph, and planned bytes, mutable buffers and size of a lowered program equal the "
        "baseline",
        integers=("live_bytes", "planned_bytes", "mutable_bytes", "pte_bytes"),
    ),
)

#: The names of the checks.
NAMES: tuple[str, ...] = tuple(info.name for info in CHECK_INFO)

#: Every integer that a check records, in the order of the columns: one that several checks record
#: stands with the last of them.
INTEGERS: tuple[str, ...] = tuple(
    reversed(dict.fromkeys(n for info in reversed(CHECK_INFO) for n in reversed(info.integers)))
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
    bytes: exact integers by name, those of `INTEGERS`.
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
