"""Which cases of the plan show each planted defect, found by running all of them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from harness.checks import run_check
from harness.cover.choice import Candidate, Need
from harness.cover.needs import KILL
from harness.defects import DEFECTS, Defect
from harness.gate.short import Short
from harness.results.finding import Status
from harness.run import plan
from harness.run.target import Target

#: Stands for every subject of a body in the list of the short matrix.
ANY = {body: f"any {body}" for body in ("attention", "cache", "decoder")}
_BROKEN = (Status.FAIL, Status.ERROR)


@dataclass(frozen=True)
class Shown:
    """A case under a check that shows a defect.  scope: one of `ANY`.  seconds: of CPU time."""

    defect: str
    scope: str
    check: str
    case: str
    seconds: float

    @property
    def need(self) -> Need:
        """What the short matrix must show for it."""
        return (KILL, self.defect, self.check)


def shown(workers: int = 2) -> Iterator[list[Shown]]:
    """Run every planted defect through its whole plan: what shows it, a defect at a time."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_shown, range(len(DEFECTS)))


def candidates(found: Iterable[Shown], today: Short) -> list[Candidate]:
    """A candidate for each scope, check and case that shows any defect.  today: the present list"""
    needs: dict[tuple[str, str, str], set[Need]] = {}
    seconds: dict[tuple[str, str, str], float] = {}
    for one in found:
        key = (one.scope, one.check, one.case)
        needs.setdefault(key, set()).add(one.need)
        seconds[key] = max(seconds.get(key, 0.0), one.seconds)
    return [
        Candidate(*key, seconds[key], frozenset(held), listed=key[1:] in today.rows.get(key[0], {}))
        for key, held in needs.items()
    ]


_KILLS = "kills "


def words(held: Iterable[Need]) -> str:
    """The defects that a case of a body shows, as the list names them."""
    return _KILLS + ", ".join(sorted(defect for _, defect, _ in held))


def listed(short: Short) -> set[tuple[str, str]]:
    """(defect, check) of all that the list says it shows: all that the whole plan shows."""
    return {
        (defect, check)
        for scope in ANY.values()
        for (check, _), shows in short.rows.get(scope, {}).items()
        for defect in shows.removeprefix(_KILLS).split(", ")
    }


def caught_by(defect: Defect, short: Short) -> set[str]:
    """The checks that catch a defect when only the short matrix of its body is run."""
    scope = ANY[Target.of(defect.subject).body]
    return {
        check
        for check, case in plan.items(defect.subject, models=defect.models)
        if (check, case.id) in short.rows.get(scope, {})
        and run_check(defect.subject, check, case).status in _BROKEN
    }


def _shown(index: int) -> list[Shown]:
    import torch

    torch.set_num_threads(1)
    defect = DEFECTS[index]
    scope, out = ANY[Target.of(defect.subject).body], []
    for check, case in plan.items(defect.subject, models=defect.models):
        began = time.process_time()
        broken = run_check(defect.subject, check, case).status in _BROKEN
        if broken:
            took = time.process_time() - began
            out.append(Shown(defect.name, scope, check, case.id, took))
    return out
