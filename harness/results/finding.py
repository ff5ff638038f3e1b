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


class Kind(StrEnum):
    """What went wrong, as a slug: the closed list of `Finding.kind` and `Record.kind`.

    Reports group by it, and known failures name it; `description` is a sentence for people.
    A finding that fails in several ways keeps the kind of the first.
    """

    description: str

    def __new__(cls, slug: str, description: str = "") -> Kind:
        member = str.__new__(cls, slug)
        member._value_ = slug
        member.description = description
        return member

    # Who sees whom.
    SEES_TOO_MANY = "sees-too-many", "Queries see earlier keys that the law hides from them."
    LOST_KEYS = "lost-keys", "Queries do not see keys that the law shows them."
    SEES_THE_FUTURE = "sees-the-future", "Queries see keys of later positions."
    WRONG_KEYS = (
        "wrong-keys",
        "Visible sets are wrong in several ways: keys are lost, too many or from the future.",
    )
    NOT_UNIFORM = (
        "not-uniform",
        "The right keys are visible, but with equal scores they do not get equal weights: one "
        "counts twice, or something is added to its score.",
    )

    # Values.
    WRONG_VALUES = "wrong-values", "Rows of the answer are off by more than the bound."
    NOT_A_NUMBER = "not-a-number", "The answer holds NaN or an infinity."
    BLIND = (
        "blind",
        "The bound would let a neighbouring law pass, so the case proves nothing.",
    )
    DENSE_WRONG = (
        "dense-wrong",
        "The subject's dense run, which the bound is derived from, is further from float64 than "
        "rounding explains.",
    )

    # Bytes.
    BYTES_CLAIMED_DIFFER = (
        "bytes-claimed-differ",
        "The bytes that a cache or decoder reports are not the bytes that it holds.",
    )
    BYTES_LEAKED = "bytes-leaked", "Memory stays allocated that is not within reach of the cache."
    BYTES_TOO_FEW = (
        "bytes-too-few",
        "A cache is too small for the keys and values that its next query needs.",
    )
    BYTES_TOO_MANY = (
        "bytes-too-many",
        "The cache of a bounded layer holds more than twice the window and the sink need.",
    )
    BYTES_GROW = "bytes-grow", "The cache of a bounded layer still grows while it decodes."
    BYTES_DIFFER = "bytes-differ", "The bytes held in the steady state are not the profile's."
    STORED_TOO_WIDE = (
        "stored-too-wide",
        "Keys or values are stored in a wider number format than the case's.",
    )
    NOT_STEADY = (
        "not-steady",
        "Past the wrap, decode steps peak at or hold other bytes than the steps before them.",
    )
    NOT_LINEAR = (
        "not-linear",
        "An operation claims memory linear in the length, and its peaks grow otherwise.",
    )

    # State and refusals.
    RESET_DIFFERS = "reset-differs", "After a reset the answers are not those of a fresh cache."
    STATE_CHANGED = "state-changed", "A call that was refused changed later answers."
    BAD_INPUT_ACCEPTED = "bad-input-accepted", "Bad input was accepted without an error."
    ACCEPTED_AND_WRONG = (
        "accepted-and-wrong",
        "Input beyond the announced limits was accepted, and its answers are wrong.",
    )
    ERROR_WITHOUT_MESSAGE = (
        "error-without-message",
        "Bad input was refused with an error that says nothing.",
    )

    # Purity.
    INPUT_CHANGED = "input-changed", "The caller's tensors were modified in place."
    INPUT_KEPT = (
        "input-kept",
        "The caller's tensors are kept without a copy: overwriting them changes later answers.",
    )
    NOT_REPEATABLE = "not-repeatable", "Two equal runs gave different bits."
    INSTANCES_MIX = (
        "instances-mix",
        "A second decoder, open at the same time, changed the answers of the first.",
    )
    ROWS_MIX = "rows-mix", "Input in one row of a batch changed the answers in other rows."

    # No answer, or none that can be judged.
    CONTRACT_BROKEN = (
        "contract-broken",
        "What the subject returned is not what the contract asks for: type, shape or dtype.",
    )
    RAISED = "raised", "The subject or the harness raised an exception."
    OUT_OF_MEMORY = "out-of-memory", "The machine ran out of memory."
    HUNG = "hung", "The check gave no answer within its time limit."
    DIED = "died", "The process died while the check ran, or before it began."
    NOT_LOADED = "not-loaded", "The subject cannot be loaded, or plans no check."
    MISSING = "missing", "The check was collected, but no record of it came back."


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

    kind: what went wrong, None where nothing is: reports group by it and known failures name it,
    so that messages are free to change.
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
    kind: Kind | None = None
    message: str = ""
    exception: str = ""  # type name of what was raised, for status ERROR
    bytes: dict[str, int] = field(default_factory=dict)
    rows: list[tuple[int, list[int], list[int]]] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    neighbours: dict[str, list[float]] = field(default_factory=dict)

    def fail(self, kind: Kind, message: str, first_bad: int | None = None) -> Finding:
        """Mark as failed (the first kind and message stay in front) and return self.

        Raises ValueError for a kind that is not one of `Kind`.
        """
        kind = Kind(kind)  # also for callers that no type checker has seen
        self.status = Status.FAIL
        self.kind = self.kind or kind
        self.message = f"{self.message}; {message}" if self.message else message
        if first_bad is not None and (self.first_bad is None or first_bad < self.first_bad):
            self.first_bad = first_bad
        return self

    def compare_sets(
        self, expected: Tensor, got: Tensor, where: str = "", *, finite: bool = True
    ) -> None:
        """Fail unless two bool (n, n) matrices of visible keys are equal; keep the first rows.

        where: what the matrices are of, for the message.  finite: False if `got` was recovered
        from answers with NaN or an infinity, which look like keys that are seen.
        """
        wrong = (expected != got).any(-1).nonzero().flatten().tolist()
        if not wrong:
            return
        kind = _kind_of_sets(expected, got) if finite else Kind.NOT_A_NUMBER
        rows = [(q, _keys(expected[q]), _keys(got[q])) for q in wrong[:_ROWS]]
        self.rows += rows[: _ROWS - len(self.rows)]
        parts = [] if finite else ["the answers hold NaN or an infinity"]
        text = "; ".join(parts + [_describe(*row) for row in rows[:2]])
        self.fail(kind, f"{where}: {text}" if where else text, wrong[0])


#: Rows of visible sets that a finding keeps.
_ROWS = 6


def _keys(visible: Tensor) -> list[int]:
    return [int(k) for k in visible.nonzero().flatten()]


def _kind_of_sets(expected: Tensor, got: Tensor) -> Kind:
    """How two different bool (n, n) matrices of visible keys differ, over all rows."""
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
