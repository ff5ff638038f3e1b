"""Chooses the cheapest set of candidates that meets every need: greedy weighted set cover.

Greedy is within a factor ln(n) of the best (V. Chvatal, "A greedy heuristic for the set-covering
problem", 1979).  Afterwards whatever the others have made needless is dropped again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

#: What must be shown, as words: ("kill", "defect.SinkDropped", "values").
Need = tuple[str, ...]


@dataclass(frozen=True)
class Candidate:
    """A case of a subject under a check, and what running it shows.

    seconds: of the check.  program: what must be lowered for it, "" for nothing; it is paid for
    once.  claimed: the subject claims the case.  listed: it is in the short matrix of today.
    """

    subject: str
    check: str
    case: str
    seconds: float
    needs: frozenset[Need]
    program: str = ""
    claimed: bool = True
    listed: bool = False

    @property
    def place(self) -> tuple[str, str]:
        """(check, case)."""
        return self.check, self.case


def choose(
    candidates: Sequence[Candidate],
    needs: Collection[Need],
    *,
    fixed: Iterable[Candidate] = (),
    lowering: float = 0.0,
) -> list[Candidate]:
    """Candidates that together meet every need that any of them meets.

    fixed: chosen in any case.  lowering: seconds for a program that no chosen candidate has yet.
    A case that the subject does not claim is taken only for a need that no claimed one meets.
    """
    chosen = list(dict.fromkeys(fixed))
    unmet = set(needs) - _met(chosen)
    for claimed in (True, False):
        left = [one for one in candidates if one.claimed is claimed]
        while left := [one for one in left if one.needs & unmet]:
            paid = {one.program for one in chosen} | {""}
            prices = {one: _price(one) + (0 if one.program in paid else lowering) for one in left}
            best = max(left, key=lambda one: (len(one.needs & unmet) / prices[one], one.place))
            chosen.append(best)
            unmet -= best.needs
    return without_needless(chosen, fixed)


#: Seconds that an item costs by itself: its test, its record and their way between processes.
_EACH = 0.006
#: What is listed is kept unless something else is far better: times differ from run to run.
_LISTED = 0.5


def _price(one: Candidate) -> float:
    return (one.seconds + _EACH) * (_LISTED if one.listed else 1)


def _met(chosen: Iterable[Candidate]) -> set[Need]:
    return {need for one in chosen for need in one.needs}


def without_needless(
    chosen: Sequence[Candidate], fixed: Iterable[Candidate] = ()
) -> list[Candidate]:
    """The chosen without those whose needs the rest meets, the dearest dropped first.

    fixed: those that stay in any case.
    """
    times = Counter(need for one in chosen for need in one.needs)
    stay, kept = set(fixed), dict.fromkeys(chosen)
    for one in sorted(kept, key=lambda one: (-one.seconds, one.subject, one.place)):
        if one not in stay and all(times[need] > 1 for need in one.needs):
            del kept[one]
            times.subtract(one.needs)
    return list(kept)
