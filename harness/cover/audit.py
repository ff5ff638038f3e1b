"""What a list of the short matrix leaves unmet, and what it lists in vain; nothing is run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.cover import kills, needs
from harness.cover.choice import Need
from harness.defects import DEFECTS
from harness.gate.known import Cause, Place
from harness.gate.short import Short
from harness.run import plan
from harness.run.target import Target


def unmet(targets: Iterable[Target], causes: Iterable[Cause], short: Short) -> list[Need]:
    """The needs of these subjects, and of the planted defects, that no listed case meets.

    A subject without a row is run in full, and has none.
    """
    shown = needs.of_causes(causes)
    asked: set[Need] = {
        (needs.KILL, defect.name, check) for defect in DEFECTS for check in defect.caught_by
    }
    met: set[Need] = {(needs.KILL, *pair) for pair in kills.listed(short)}
    for target in targets:
        for check, case in plan.items(target):
            held = needs.of_plan(target, check, case)
            held |= shown.get(Place(target.name, check, case.id), set())
            asked |= held
            if short.takes(target.name, check, case.id):
                met |= held
    return sorted(asked - met)


def lost(targets: Iterable[Target], short: Short) -> Iterator[Place]:
    """Listed cases of these subjects that are planned no more."""
    for target in targets:
        planned = [(check, case.id) for check, case in plan.items(target)]
        for place in short.lost(target.name, planned):
            yield Place(target.name, *place)
