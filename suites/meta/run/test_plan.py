"""The plan follows the table; a subject's `checks` and `covers` leave out what they say."""

from __future__ import annotations

import pytest

from harness.cases.case import Case
from harness.cases.models import TINY, tiny
from harness.defects.base import DecoderSubjectOfTrimmed, DenseAttention, TrimmedSubject
from harness.results.finding import CHECK_INFO
from harness.run import plan
from harness.run.plan_table import TABLE, Row
from harness.run.target import Target
from harness.subjects.own.caches import Sink

BODIES = {"attention": DenseAttention, "cache": TrimmedSubject, "decoder": DecoderSubjectOfTrimmed}


def test_every_check_is_planned_for_its_bodies_and_for_no_other() -> None:
    for info in CHECK_INFO:
        bodies = {body for row in TABLE if row.check == info.name for body in row.bodies}
        assert bodies == set(info.bodies), info.name


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.check}-{'-'.join(row.bodies)}")
def test_every_row_says_why_and_plans_something(row: Row) -> None:
    assert row.why
    planned = [item for model in TINY.values() for item in plan._items(row, model)]
    assert planned
    assert {check for check, _ in planned} == {row.check}
    assert len(planned) == len({case.id for _, case in planned})


@pytest.mark.parametrize("body", BODIES)
def test_no_case_of_a_check_is_planned_twice(body: str) -> None:
    items = plan.items(BODIES[body])
    assert len(items) == len({(check, case.id) for check, case in items})
    assert {check for check, _ in items} == {
        info.name for info in CHECK_INFO if body in info.bodies and info.name != "export"
    }


def test_a_wide_window_is_run_for_its_values_alone() -> None:
    for subject in BODIES.values():
        wide = plan.items(subject, models=["mistral-w64"])
        assert {check for check, _ in wide} == {"values"}
        assert {case.dtype for _, case in wide} >= {"float32"}
        assert {case.schedule.name for _, case in wide} == {"prefill-3w+5", "chunk-w+1"}


def test_a_graph_is_exported_where_a_subject_offers_one() -> None:
    assert "export" in {check for check, _ in plan.items(Sink)}
    assert "export" not in {check for check, _ in plan.items(TrimmedSubject)}


def test_a_layer_without_a_border_is_probed_under_a_few_schedules_alone() -> None:
    items = plan.items(DecoderSubjectOfTrimmed, models=["gemma3"])
    seen = [c.model.name for check, c in items if check == "visibility"]
    assert 0 < seen.count("gemma3.full") < seen.count("gemma3.sliding")


class OfTwoChecks(TrimmedSubject):
    """Values and resets, of one model."""

    name = "two-checks"
    checks = frozenset({"values", "reset"})

    @staticmethod
    def covers(check: str, case: Case) -> bool:
        """One model; for reset, only its first schedule."""
        assert check in {"values", "reset"}  # the others are left out before this is asked
        right = case.schedule.name == "reset-then-chunks" or check == "values"
        return case.model.name == "mistral" and right


def test_checks_and_covers_both_leave_out() -> None:
    every = plan.items(TrimmedSubject, models=["mistral"])
    whole = [(check, case) for check, case in every if case.model.name == "mistral"]
    wanted = [
        (check, case.id)
        for check, case in whole
        if check == "values" or case.schedule.name == "reset-then-chunks"
    ]
    assert [(check, case.id) for check, case in plan.items(OfTwoChecks)] == wanted
    assert wanted


def test_a_target_is_planned_as_its_class_is() -> None:
    assert plan.items(Target.of(Sink)) == plan.items(Sink)


def test_a_turn_is_the_window_the_chunk_or_eight() -> None:
    assert [tiny(name).turn for name in ("mistral-w9", "llama4.chunked", "llama4.full")] == [
        9,
        tiny("llama4").chunk,
        8,
    ]


def test_several_models_are_selected_in_the_order_of_the_plan() -> None:
    both = plan.Selection(model="gemma3,mistral").items(TrimmedSubject)
    one = [plan.Selection(model=name).items(TrimmedSubject) for name in ("mistral", "gemma3")]
    assert len(both) == sum(map(len, one))
    order = plan.items(TrimmedSubject)
    assert [order.index(item) for item in both] == sorted(order.index(item) for item in both)


def test_one_unknown_model_of_several_is_named() -> None:
    with pytest.raises(plan.SelectionError, match="no checks of --model gema3"):
        plan.Selection(model="mistral,gema3").items(TrimmedSubject)
