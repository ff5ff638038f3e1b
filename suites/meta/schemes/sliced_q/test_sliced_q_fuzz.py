"""Every way to write one attention, sliced by ours and by the shipped pass, against float64.

A short and always equal run by default; SLICED_Q_EXAMPLES=2000 makes a long one, at random.
"""

from __future__ import annotations

import os
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
LONG = EXAMPLES > 40

run = settings(
    max_examples=EXAMPLES,
    derandomize=not LONG,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)


@run
@given(forms(), dividers)
def test_ours_slices_every_form_and_answers_rightly(form: Form, divider: int) -> None:
    wrong = problem(form, sliced(form, own(1, divider)))  # raises where it did not fire
    assert not wrong, f"{form}, divider {divider}: {wrong}"


@settings(run, max_examples=max(EXAMPLES // 10, 10))
@given(forms(), dividers)
def test_ours_answers_rightly_with_the_thresholds_that_it_has_by_default(
    form: Form, divider: int
) -> None:
    rows = form.query[-2]
    assume(rows >= 64 or "length" in form.dynamic)
    assert not problem(form, sliced(form, own(None, divider)))


#: Defects of the shipped pass by how a form fails, and what a form must have to show it alone.
SHOWN = {
    "D1 mask of rank 3 or more": r"TypeError: .*size of 'begin', 2, is not equal to the rank",
    "D2 mask of rank 1": r"IndexError: tuple index out of range",
    "D3 mask of another type": r"ValueError: .*must have the same data type",
    "D4 dynamic length": r"TypeError: cannot determine truth value of Relational",
    "D5 dynamic batch or keys": r"ValueError: Cannot add const \[",
    "D6 dynamic keys, bool mask": r"TypeError: 'Symbol' object cannot be interpreted",
    "D9 in a branch": r"DidNotFireError: .*the fused op is still there",
}


def outcome(form: Form, divider: int, make: Callable[[int, int], Any] = shipped) -> str:
    """ "" where a pass is right about a form; else how it fails."""
    try:
        return problem(form, sliced(form, make(1, divider)))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("defect", SHOWN)
def test_the_same_forms_find_what_the_shipped_pass_gets_wrong(defect: str) -> None:
    """Prints the smallest form that shows the defect."""
    pattern = re.compile(SHOWN[defect], re.DOTALL)
    smallest = find(
        forms(),
        lambda form: pattern.search(outcome(form, 2)) is not None,
        settings=settings(run, max_examples=max(EXAMPLES, 400), phases=list(Phase)),
    )
    print(f"{defect}: {smallest}: {outcome(smallest, 2).splitlines()[0]}")
    assert outcome(smallest, 2, own) == ""


def test_the_same_forms_find_nothing_else_wrong_with_the_shipped_pass() -> None:
    """What it neither raises on nor leaves alone, it answers rightly."""
    known = re.compile("|".join(SHOWN.values()), re.DOTALL)

    def is_new(form: Form) -> bool:
        found = outcome(form, 2)
        return bool(found) and known.search(found) is None

    with pytest.raises(NoSuchExample):
        find(forms(), is_new, settings=settings(run, max_examples=max(EXAMPLES // 2, 100)))
