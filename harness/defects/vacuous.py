"""The table of blunt mistakes: which check stops which body, and why some do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from harness.checks import run_check
from harness.defects.blunt import BLUNTS, BODIES, MISTAKES, Blunt
from harness.results.finding import CHECK_INFO, Status
from harness.run import plan

#: Small, and with a window: every check of every body has cases of it.
MODEL = "mistral"

_FIGURES = (
    "bytes are judged, not answers: a gate compares them with the baseline, and without one steps "
    "must be steady"
)
_NO_GRAPH = "planned only for subjects that offer a graph, which these do not"

#: Why a check lets a blunt mistake pass, by (body, check, mistake).
REASONS: dict[tuple[str, str, str], str] = {
    **{
        (body, "peak_bytes", mistake): _FIGURES
        for body in BODIES
        for mistake in ("zeros", "nan", "echo", "forgets")
    },
    **{(body, "export", mistake): _NO_GRAPH for body in BODIES for mistake in MISTAKES},
}


@dataclass(frozen=True)
class Cell:
    """How one check took one body with one mistake.

    red, passed, not_claimed: cases; kinds: what the red ones say.
    """

    body: str
    check: str
    mistake: str
    red: int
    passed: int
    not_claimed: int
    kinds: tuple[str, ...]

    @property
    def reason(self) -> str:
        """Why nothing is red; "" where it need not be explained."""
        return REASONS.get((self.body, self.check, self.mistake), "")

    @property
    def is_vacuous(self) -> bool:
        """True if the check says nothing against the mistake, and no reason is given."""
        stopped = bool(self.red) or (self.not_claimed and not self.passed)
        return not stopped and not self.reason

    def __str__(self) -> str:
        if self.red:
            return f"{', '.join(self.kinds)} ({self.red} of {self.red + self.passed})"
        if self.passed:
            return f"passes: {self.reason or 'VACUOUS'}"
        if self.not_claimed:
            return "not claimed"
        return self.reason or "not planned"


def table() -> Iterator[Cell]:
    """Every cell, body by body and check by check."""
    return (cell for blunt in BLUNTS for cell in cells(blunt))


def cells(blunt: Blunt) -> Iterator[Cell]:
    """The cells of one body with one mistake."""
    counts: dict[str, Counter[Status]] = {}
    kinds: dict[str, dict[str, None]] = {}
    for check, case in plan.items(blunt.subject, models=(MODEL,)):
        finding = run_check(blunt.subject, check, case)
        counts.setdefault(check, Counter())[finding.status] += 1
        if finding.kind is not None:
            kinds.setdefault(check, {})[finding.kind] = None
    for info in CHECK_INFO:
        if blunt.body not in info.bodies:
            continue
        count = counts.get(info.name, Counter())
        yield Cell(
            blunt.body,
            info.name,
            blunt.mistake,
            count[Status.FAIL] + count[Status.ERROR],
            count[Status.PASS],
            count[Status.NOT_CLAIMED],
            tuple(kinds.get(info.name, ())),
        )
