"""Faults planted in the sliced-Q pass are caught; the pass itself is not."""

from __future__ import annotations

import pytest

from harness.defects import sliced_q
from harness.schemes.sliced_q.mil_pass import SlicedQ
from harness.schemes.sliced_q.slicer import Slicer


@pytest.mark.parametrize("fault", sliced_q.FAULTS, ids=lambda fault: fault.__name__)
def test_each_fault_is_caught(fault: type[Slicer]) -> None:
    found = list(sliced_q.problems(sliced_q.planted(fault)))
    assert found, f"{fault.__name__} ({fault.__doc__}) passes the battery"
    # By its answer: a fault that only raises would not test the judge.
    assert any(what.startswith(("off by", "NaN mismatch")) for _, what in found), found


def test_the_pass_has_none_of_them() -> None:
    assert list(sliced_q.problems(SlicedQ)) == []


def test_there_are_ten_and_each_says_what_it_does() -> None:
    assert len({fault.__name__ for fault in sliced_q.FAULTS}) == 10
    assert all(fault.__doc__ and fault.__doc__ != Slicer.__doc__ for fault in sliced_q.FAULTS)


def test_scores_that_are_materialised_leave_the_answer_right() -> None:
    """Only bytes show this fault: see test_sliced_q_bytes."""
    assert list(sliced_q.problems(sliced_q.planted(sliced_q.ScoresMaterialised))) == []
