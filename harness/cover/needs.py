"""What the short matrix must still show, and which of it a case shows.

- ("kill", defect, check): a planted defect, by each check that catches it in the whole plan;
- ("cause", id, subject, check): a known failure, at its first bad position;
- ("pair", body, ...): each pair of schedule, kind of model and check that the plan runs on a body;
- ("of", subject, ...): for each subject, every check, model, schedule, dtype and batch size of its
  plan, and each check under each scheme.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations

from harness.cases.case import Case
from harness.cases.models import Model
from harness.cover.choice import Need
from harness.gate.known import Cause, Place
from harness.run.target import Target

#: The first words of needs.
KILL, CAUSE, PAIR, OF = "kill", "cause", "pair", "of"


def words(need: Need) -> str:
    """A need of a subject for people: "cause short-cache", "scheme sink values"."""
    first, *rest = need
    return " ".join({CAUSE: [first, rest[0]], OF: rest[1:]}.get(first, [first, *rest]))


def kind_of_model(model: Model) -> str:
    """The scheme, and whether it is a layer alone, shares caches, or is wide: "sink.layer"."""
    marks = (
        ("layer", model.part_of is not None),
        ("shared", bool(model.n_shared)),
        ("wide", (model.window or 0) > _TINY),
    )
    return ".".join([model.scheme, *(name for name, holds in marks if holds)])


_TINY = 9  # the widest window of a tiny model that is not there for its width


def of_plan(target: Target, check: str, case: Case) -> frozenset[Need]:
    """What a case of the plan shows whatever its outcome is."""
    factors = (
        ("schedule", case.schedule.name),
        ("kind", kind_of_model(case.model)),
        ("check", check),
    )
    pairs: set[Need] = {(PAIR, target.body, *a, *b) for a, b in combinations(factors, 2)}
    return frozenset(pairs | set(_of_subject(target, check, case)))


def _of_subject(target: Target, check: str, case: Case) -> Iterator[Need]:
    """Programs are dear to lower: for a subject that lowers them, schemes stand for models."""
    mine = (OF, target.name)
    lowered = "lowered" in target.offers
    yield (*mine, "scheme", case.scheme, check)
    yield (*mine, "dtype", case.dtype)
    yield (*mine, "batch", str(case.batch))
    if not lowered:
        yield (*mine, "model", case.model.name)
        yield (*mine, "schedule", case.schedule.name)


def of_causes(causes: Iterable[Cause]) -> dict[Place, set[Need]]:
    """Filed cases, and the known failure that each shows at its first bad position."""
    out: dict[Place, set[Need]] = {}
    for cause in causes:
        groups: dict[tuple[str, str], list[Place]] = {}
        for place in cause.cases:
            groups.setdefault((place.subject, place.check), []).append(place)
        for (subject, check), places in groups.items():
            first = min(_position(cause, place) for place in places)
            for place in places:
                if _position(cause, place) == first:
                    out.setdefault(place, set()).add((CAUSE, cause.id, subject, check))
    return out


def _position(cause: Cause, place: Place) -> int:
    """The first bad position; a fault that has none is before all that have."""
    first_bad = cause.cases[place].first_bad
    return -1 if first_bad is None else first_bad
