"""Computes the list of the short matrix from a run of the whole plan and the planted defects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.cover import kills, needs
from harness.cover.choice import Candidate, Need, choose, without_needless
from harness.gate.known import Cause, Place
from harness.gate.short import Short
from harness.results.finding import Status
from harness.results.record import rows
from harness.run import plan, registry
from harness.run.target import Target

if TYPE_CHECKING:
    import pandas as pd

    from harness.results.record import Row

#: Seconds that a program takes to be lowered, about: 23 took 190 s of CPU time (AMD EPYC).
_LOWERING = 8.0
#: Why a case is listed that shows nothing alone: it is listed for its body.
_CORE = "a planted defect of its body"


def compute(
    frame: pd.DataFrame, causes: Iterable[Cause], found: Sequence[kills.Shown], today: Short
) -> Short:
    """The cheapest list that meets every need.

    frame: the records of a whole run of the whole plan.  found: what shows each planted defect.
    today: the present list; subjects without a record keep their part of it.
    """
    bodies = {scope: _of_body(scope, found, today) for scope in kills.ANY.values()}
    records = {Place.of(row): row for row in rows(frame) if row.case}
    shown = needs.of_causes(causes)
    everything: list[Candidate] = []
    chosen: list[Candidate] = []
    fixed: list[Candidate] = []
    for target in targets({place.subject for place in records}):
        mine = list(_candidates(target, records, shown, today))
        core = _core(target, mine, bodies[kills.ANY[target.body]])
        own = {need for one in mine for need in one.needs if need[0] != needs.PAIR}
        chosen += choose(mine, own, fixed=core, lowering=_LOWERING)
        everything += mine
        fixed += core
    chosen = without_needless([*chosen, *_pairs(everything, chosen)], fixed)
    by_name = dict(bodies)
    for one in chosen:
        by_name.setdefault(one.subject, []).append(one)
    kept = {name: held for name, held in today.rows.items() if name not in by_name}
    return Short({**kept, **{name: told(held) for name, held in by_name.items() if held}})


def targets(names: Iterable[str]) -> Iterator[Target]:
    """The registered subjects of these names that are installed."""
    for name in sorted(set(names) & set(registry.names())):
        try:
            yield registry.load(name)
        except registry.NotInstalled:
            continue


def told(chosen: Sequence[Candidate]) -> dict[tuple[str, str], str]:
    """Each chosen case of one subject, and what it alone of them shows there."""
    times = Counter(need for one in chosen for need in one.needs)
    return {one.place: _words(one, times) for one in chosen}


def _words(one: Candidate, times: Mapping[Need, int]) -> str:
    if one.subject in kills.ANY.values():
        return kills.words(one.needs)
    alone = sorted(need for need in one.needs if times[need] == 1)
    said = [need for need in alone if need[0] != needs.PAIR] or alone
    return "; ".join(needs.words(need) for need in said) or _CORE


def _of_body(scope: str, found: Iterable[kills.Shown], today: Short) -> list[Candidate]:
    """The cases that show every planted defect of a body by every check that catches it."""
    held = kills.candidates((one for one in found if one.scope == scope), today)
    return choose(held, {need for one in held for need in one.needs})


def _candidates(
    target: Target,
    records: Mapping[Place, Row],
    shown: Mapping[Place, set[Need]],
    today: Short,
) -> Iterator[Candidate]:
    """The cases of a subject's plan that were run."""
    listed = today.rows.get(target.name, {})
    for check, case in plan.items(target):
        place = Place(target.name, check, case.id)
        if (record := records.get(place)) is None:
            continue
        yield Candidate(
            *place,
            record.seconds or 0.0,
            needs.of_plan(target, check, case) | shown.get(place, set()),
            program=case.model.name if "lowered" in target.offers else "",
            claimed=record.status != Status.NOT_CLAIMED,
            listed=(check, case.id) in listed,
        )


def _core(target: Target, mine: Iterable[Candidate], body: Iterable[Candidate]) -> list[Candidate]:
    """The cases of a subject that show the planted defects of its body.

    None for a subject that is lowered to programs: each program is dear.
    """
    if "lowered" in target.offers:
        return []
    core = {one.place for one in body}
    return [one for one in mine if one.claimed and one.place in core]


def _pairs(everything: Sequence[Candidate], chosen: Sequence[Candidate]) -> list[Candidate]:
    """The cases that show the pairs which the chosen leave out."""
    met = {need for one in chosen for need in one.needs}
    unmet = {need for one in everything for need in one.needs if need not in met}
    return choose(everything, unmet, lowering=_LOWERING)
