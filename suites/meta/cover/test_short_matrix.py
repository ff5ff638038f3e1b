"""The short matrix shows every planted defect and every known failure that the whole plan shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.cover import audit, kills, needs, short_list
from harness.defects import DEFECTS, Defect
from harness.gate import known_files
from harness.gate.known import Cause, Place, Symptom
from harness.gate.short import Short, read
from harness.results.finding import NAMES
from harness.results.record import Record, to_frame
from harness.run import plan, registry
from harness.run.target import Target
from harness.subjects.own.caches import Sink

SUITES = Path(__file__).parents[2]
SHORT = read(SUITES)
CAUSES = known_files.load(SUITES / "known_failures")
TARGETS = list(short_list.targets(SHORT.rows))


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda d: d.name)
def test_a_defect_is_caught_by_every_check_that_catches_it_in_the_whole_plan(
    defect: Defect,
) -> None:
    in_full = {check for name, check in kills.listed(SHORT) if name == defect.name}
    assert in_full >= set(defect.caught_by), "`harness run --all`, then `harness short`"
    assert kills.caught_by(defect, SHORT) == in_full


def test_every_need_of_every_subject_is_met() -> None:
    assert TARGETS
    unmet = [" ".join(need) for need in audit.unmet(TARGETS, CAUSES, SHORT)]
    assert unmet == [], "`harness run --all`, then `harness short`"


def test_every_listed_case_is_planned() -> None:
    assert list(audit.lost(TARGETS, SHORT)) == []


def test_every_known_failure_is_shown_by_each_subject_and_check_that_shows_it() -> None:
    """Told by itself, without what chooses: the files of known failures and the list alone."""
    for cause in CAUSES:
        of_listed = [p for p in cause.cases if p.subject in SHORT.rows]
        shown = {(p.subject, p.check) for p in of_listed if SHORT.takes(*p)}
        assert shown == {(p.subject, p.check) for p in of_listed}, cause.id


def test_every_registered_subject_that_is_run_by_default_has_rows() -> None:
    heavy = {name for name in registry.names() if name.startswith(("llama.cpp", "mlx", "flash"))}
    assert set(registry.names()) - heavy == set(SHORT.rows) - set(kills.ANY.values())


def test_the_short_matrix_is_short() -> None:
    planned = sum(len(plan.items(target)) for target in TARGETS)
    listed = sum(len(SHORT.rows[target.name]) for target in TARGETS)
    assert listed < planned / 5


# --- what is left out is told


def _without(subject: str, place: tuple[str, str]) -> Short:
    held = {p: why for p, why in SHORT.rows[subject].items() if p != place}
    return Short({**SHORT.rows, subject: held})


def test_each_row_of_a_cache_is_missed_where_it_is_left_out() -> None:
    """Unless it is there for the planted defects of caches, which are caught for its body."""
    target = registry.load("harness.sink")
    core = SHORT.rows[kills.ANY["cache"]]
    alone = [place for place in SHORT.rows[target.name] if place not in core]
    assert alone
    for place in alone:
        assert audit.unmet(TARGETS, CAUSES, _without(target.name, place)), place


def test_each_row_of_a_body_is_missed_where_it_is_left_out() -> None:
    for scope in kills.ANY.values():
        for place in SHORT.rows[scope]:
            fewer = kills.listed(_without(scope, place))
            assert fewer <= kills.listed(SHORT)


def test_a_new_defect_a_new_cause_and_a_new_model_are_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new = replace(DEFECTS[0], name="defect.New")
    with monkeypatch.context() as patched:
        patched.setattr(audit, "DEFECTS", (*DEFECTS, new))
        assert ("kill", "defect.New", "values") in audit.unmet(TARGETS, CAUSES, SHORT)
    target = registry.load("harness.sink")
    unlisted = next(
        Place(target.name, check, case.id)
        for check, case in plan.items(target)
        if not SHORT.takes(target.name, check, case.id)
    )
    cause = replace(CAUSES[0], id="new", cases={unlisted: Symptom("differs", "", 3)})
    assert audit.unmet(TARGETS, [*CAUSES, cause], SHORT) == [
        ("cause", "new", unlisted.subject, unlisted.check)
    ]
    rows = dict(SHORT.rows[target.name])
    model = {p: why for p, why in rows.items() if not p[1].startswith("mistral-w1/")}
    assert ("of", target.name, "model", "mistral-w1") in audit.unmet(
        TARGETS, CAUSES, Short({**SHORT.rows, target.name: model})
    )


def test_a_listed_case_that_is_no_longer_planned_is_told() -> None:
    more = Short({"harness.sink": {("values", "no-such/case/float32/b1"): ""}})
    target = registry.load("harness.sink")
    assert list(audit.lost([target], more)) == [
        Place("harness.sink", "values", "no-such/case/float32/b1")
    ]


# --- how it is computed


def _frame(target: Target) -> list[Record]:
    """A record of every case of a plan, as a run of all of them leaves it."""
    return [
        Record(
            run="r",
            item=f"{check} {case.id}",
            subject=target.name,
            check=check,
            status="pass",
            case=case.id,
            seconds=0.01 * case.max_context,
        )
        for check, case in plan.items(target)
    ]


def test_a_list_is_computed_that_leaves_no_need_unmet() -> None:
    target = Target.of(Sink)
    found = [
        kills.Shown("defect.Mine", kills.ANY["cache"], "values", "mistral/turns/float32/b3", 1)
    ]
    made = short_list.compute(to_frame(_frame(target)), [], found, Short({"absent": {}}))
    assert set(made.rows) == {"absent", kills.ANY["cache"], target.name}
    assert made.takes(target.name, "values", "mistral/turns/float32/b3")
    assert kills.listed(made) == {("defect.Mine", "values")}
    left = audit.unmet([target], [], made)
    assert {need[0] for need in left} <= {needs.KILL}
    assert len(made.rows[target.name]) < len(plan.items(target)) / 4


def test_a_known_failure_is_listed_at_its_first_bad_position() -> None:
    target = Target.of(Sink)
    places = [Place(target.name, "values", case.id) for check, case in plan.items(target)][:3]
    cases = {p: Symptom("differs", "", at) for p, at in zip(places, (9, 3, 7), strict=True)}
    cause = Cause("p", "late", (target.name,), ("values",), "", "", "", {}, "silent", cases=cases)
    assert needs.of_causes([cause]) == {places[1]: {("cause", "late", target.name, "values")}}
    made = short_list.compute(to_frame(_frame(target)), [cause], [], Short())
    assert made.takes(*places[1])


def test_checks_are_named_as_the_contract_names_them() -> None:
    assert {check for held in SHORT.rows.values() for check, _ in held} <= set(NAMES)
