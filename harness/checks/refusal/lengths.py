"""Rewinds to lengths that nothing can be rewound to: one more than is held, and a negative one.

Where such a length is refused, nothing may have changed.  Where it is accepted, nothing is judged:
correct code without any validation takes it for a slice, and the contract gives it no meaning.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from harness.checks.op_reference import OpReference
from harness.checks.refusal.attempts import require_message, row_problem
from harness.contract import optional
from harness.results.finding import Finding, Kind


class HoldingRun(Protocol):
    """One life of a cache or decoder, between the good calls before a rewind and those after."""

    @property
    def holder(self) -> object:
        """What may have a `rewind`."""
        ...

    def head(self) -> None:
        """Make the good calls that come before."""
        ...

    def tail(self) -> Tensor:
        """Make the good calls that come after -> their rows (..., n, F)."""
        ...


class HoldingBody(Protocol):
    """A cache or decoder in one case."""

    where: str
    at: int  # positions held between the good calls before and those after

    def start(self) -> HoldingRun:
        """A fresh body under test."""
        ...

    def good(self) -> OpReference:
        """What the good calls after must be answered with."""
        ...


def bad_lengths(finding: Finding, body: HoldingBody) -> None:
    """Ask for each bad length between good calls.

    Nothing is asked where there is no `rewind`, nor of a body that answers good calls wrongly as it
    is: what is wrong after a rewind would not be the rewind's doing.
    """
    run = body.start()
    if optional(run.holder, "rewind") is None:
        return
    run.head()
    if _after(run, body.good()):
        return
    for length in (body.at + 1, -1):
        _ask(finding, body, length)


def _ask(finding: Finding, body: HoldingBody, length: int) -> None:
    run = body.start()
    run.head()
    what = f"{body.where}rewind from {body.at} to {length}"
    try:
        optional(run.holder, "rewind")(length)
    except Exception as error:
        require_message(finding, what, error)
        problem = _after(run, body.good())
        if problem:
            finding.fail(Kind.STATE_CHANGED, f"{what}: refused, but {problem}")


def _after(run: HoldingRun, expected: OpReference) -> str:
    """What is wrong with the good calls after it; "" where nothing is."""
    try:
        rows = run.tail()
    except Exception as error:
        return f"the good call after it raises {type(error).__name__}: {error}"
    return row_problem(rows, expected) and "the good calls after it are wrong"
