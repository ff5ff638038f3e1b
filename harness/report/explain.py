"""What `harness check` explains: broken checks that say the same once, and refusals apart.

An error of the contract is the same in every check of a subject.  An exception that reads like a
limit of the subject may be meant: then the subject should raise Unsupported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.results.finding import Kind
from harness.results.groups import groups
from harness.results.record import rows
from harness.results.text import plural

if TYPE_CHECKING:
    import pandas as pd

    from harness.results.record import Row

#: The kinds that one fault of the subject causes in every check, whatever the check looks at.
_SAME_EVERYWHERE = (Kind.CONTRACT_BROKEN, Kind.RAISED)
#: How a limit is put into words.
_LIMIT = re.compile(
    r"longer than|exceed|at most|not supported|unsupported|not implemented|only supports?\b"
    r"|must not be (?:larger|longer|greater)|too (?:long|large|many)|maximum|NotImplementedError",
    re.IGNORECASE,
)
#: What differs between cases of one fault: numbers, and lists or shapes of them.
_NUMBERS = re.compile(r"-?\d[\d.,_]*(?:e[-+]?\d+)?(?:, -?\d[\d.,_]*(?:e[-+]?\d+)?)*")

HINT = (
    "this reads like a limit, not a crash: where a case is beyond what the subject does, "
    "raise harness.contract.Unsupported, and it counts as not claimed"
)


@dataclass(frozen=True)
class Explained:
    """Broken checks that are explained by the first of them.

    checks: their names, without repetition.  same: True if all say the same but for numbers.
    """

    first: Row
    size: int
    checks: tuple[str, ...]
    same: bool
    limit: bool

    def others(self) -> str:
        """What is said of the rest; "" if there is none."""
        if self.size == 1:
            return ""
        of = ", ".join(self.checks)
        if self.same:
            return f"and {self.size - 1} more that say the same, in {of}"
        return f"and {plural(self.size - 1, 'more case', 'more cases')} of {of}"


def explained(bad: pd.DataFrame) -> list[Explained]:
    """The broken records of one subject in groups, in order of appearance."""
    said = [_say(row) if row.kind in _SAME_EVERYWHERE else "" for row in rows(bad)]
    frame = bad.assign(_said=said, _at=range(len(bad)))
    told: list[tuple[int, Explained]] = []
    for text, part in frame[frame["_said"] != ""].groupby("_said", sort=False):
        first = next(rows(part.drop(columns=["_said", "_at"])))
        checks = tuple(dict.fromkeys(part["check"]))
        limit = first.kind == Kind.RAISED and bool(_LIMIT.search(str(text)))
        made = Explained(first, len(part), checks, same=True, limit=limit)
        told.append((int(part["_at"].iloc[0]), made))
    rest = frame[frame["_said"] == ""]
    starts = rest.drop_duplicates(["subject", "check", "kind", "status"])["_at"].tolist()
    for start, group in zip(starts, groups(rest.drop(columns=["_said", "_at"])), strict=True):
        one = Explained(group.first, group.size, (group.first.check,), same=False, limit=False)
        told.append((int(start), one))
    return [made for _, made in sorted(told, key=lambda pair: pair[0])]


def reads_like_a_limit(row: Row) -> bool:
    """True for an exception that says what the subject does not do."""
    return row.kind == Kind.RAISED and bool(_LIMIT.search(row.message))


def _say(row: Row) -> str:
    """What a record says, without the numbers that differ from case to case."""
    return f"{row.kind} {_NUMBERS.sub('#', row.message)}"
