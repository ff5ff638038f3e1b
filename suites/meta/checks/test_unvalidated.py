"""Correct code without input validation is accepted; with any planted fault it is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from unvalidated import FAULTS, subject

from harness.checks import run_check
from harness.results.finding import Status
from harness.run import plan

#: One model with a window in every layer, one with full layers between.
MODELS = ("mistral", "gemma3")


def broken(body: type, fault: str) -> Iterator[str]:
    """What a body breaks, one message after the other as they are found."""
    target = subject(body, fault)
    for check, case in plan.items(target, models=MODELS):
        finding = run_check(target, check, case)
        if finding.status not in (Status.PASS, Status.NOT_CLAIMED):
            yield f"{check} {case.id}: {finding.message}"


@pytest.mark.parametrize("body", FAULTS, ids=lambda body: body.__name__)
def test_correct_code_without_validation_is_accepted(body: type) -> None:
    assert list(broken(body, "")) == []


@pytest.mark.parametrize(
    ("body", "fault"), [(body, fault) for body, faults in FAULTS.items() for fault in faults]
)
def test_a_fault_in_it_is_rejected(body: type, fault: str) -> None:
    assert next(broken(body, fault), "")
