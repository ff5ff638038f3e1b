"""The plan meets every dtype, range of positions and kind of step, or says why it does not."""

from __future__ import annotations

import pytest

from harness.defects import conditions
from harness.defects.conditions import BODIES, CONDITIONS


@pytest.mark.parametrize("body", BODIES)
def test_what_is_wrong_under_one_condition_is_caught_or_there_is_a_reason(body: str) -> None:
    passed = [c for c in CONDITIONS if not conditions.caught(body, c)]
    assert passed == [c for c in CONDITIONS if conditions.reason(body, c)]


def test_every_condition_is_there_once() -> None:
    assert len(set(CONDITIONS)) == len(CONDITIONS) == 36
