"""Every way to write one attention, sliced by ours and by the shipped pass, against float64.

By default the run is short and always the same.  SLICED_Q_EXAMPLES=2000 makes it long, and
HYPOTHESIS_PROFILE=nightly random.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, find, given, settings
from hypothesis.errors import NoSuchExample
from sliced_q_forms import dividers, forms

from harness.subjects.coreml.sliced_q_judge import problem
from harness.subjects.coreml.sliced_q_programs import Form, own, shipped, sliced

EXAMPLES = int(os.environ.get("SLICED_Q_EXAMPLES", "40"))
RANDOM = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"

run = settings(
    max_examples=EXAMPLES,
    derandomize=not RANDOM,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)


@run
@given(forms(), dividers)
def test_ours_slices_every_form_and_answers_rightly(form: Form, divider: int) -> None:
    wrong = problem(form, sliced(form, own(1, divider)))  # raises if it did not fire
    assert not wrong, f"{form}, divider {divider}: {wrong}"


@settings(run, max_examples=max(EXAMPLES // 10, 10))
@given(forms(), dividers)
def test_ours_answers_rightly_with_the_thresholds_that_it_has_by_default(
    form: Form, divider: int
) -> None:
    rows = form.query[-2]
    assume(rows >= 64 or "length" in form.dynamic)
    assert not problem(form, sliced(form, own(None, divider)))


#: Defects of the shipped pass: what a form must have to show one, and how the form then fails.
SHOWN = {
    "D1 mask of rank 3 or more": r"TypeError: .*size of 'begin', 2, is not equal to the rank",
    "D2 mask of rank 1": r"IndexError: tuple index out of range",
    "D3 mask of another type": r"ValueError: .*must have the same data type",
    "D4 dynamic length": r"TypeError: cannot determine truth value of Relational",
    "D5 dynamic batch or keys": r"ValueError: Cannot add const \[",
    "D6 dynamic keys, bool mask": r"TypeError: 'Symbol' object cannot be interpreted",
    "D9 in a branch": r"DidNotFireError: .*the fused op is still there",
}


#: Too rare to be searched for by chance: the one row of a dynamic mask is cut as if it had more.
ONE_ROW = Form(
    (1, 2, 1), (1, 1, 1), (1, 1, 1), mask=(1, 1), mask_dtype="float32", dynamic=frozenset({"mask"})
)
ONE_ROW_SHOWN = r"DeclaredError: slice_by_index .* declares shape \(1, 1\), computed \(0, 1\)"


def outcome(form: Form, divider: int, make: Callable[[int, int], Any] = shipped) -> str:
    """ "" if a pass is right about a form; else how it fails."""
    try:
        return problem(form, sliced(form, make(1, divider)))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def smallest(condition: Callable[[Form], bool], examples: int) -> Form:
    """The smallest form that meets a condition.  Raises NoSuchExample."""
    return find(
        forms(),
        condition,
        settings=settings(run, max_examples=examples, derandomize=False, phases=list(Phase)),
        random=None if RANDOM else random.Random(0),
    )


@pytest.mark.parametrize("defect", SHOWN)
def test_the_same_forms_find_what_the_shipped_pass_gets_wrong(defect: str) -> None:
    """Prints the smallest form that shows the defect."""
    pattern = re.compile(SHOWN[defect], re.DOTALL)
    form = smallest(lambda form: pattern.search(outcome(form, 2)) is not None, max(EXAMPLES, 400))
    print(f"{defect}: {form}: {outcome(form, 2).splitlines()[0]}")
    assert outcome(form, 2, own) == ""


def test_the_shipped_pass_cuts_the_one_row_of_a_dynamic_mask() -> None:
    assert re.match(ONE_ROW_SHOWN, outcome(ONE_ROW, 2))
    assert outcome(ONE_ROW, 2, own) == ""


def test_the_same_forms_find_nothing_else_wrong_with_the_shipped_pass() -> None:
    """Where it neither raises nor leaves the op alone, its answers are right."""
    known = re.compile("|".join((*SHOWN.values(), ONE_ROW_SHOWN)), re.DOTALL)

    def is_new(form: Form) -> bool:
        found = outcome(form, 2)
        return bool(found) and known.search(found) is None

    try:
        form = smallest(is_new, max(EXAMPLES // 2, 100))
    except NoSuchExample:
        return
    pytest.fail(f"{form}: {outcome(form, 2)}")
