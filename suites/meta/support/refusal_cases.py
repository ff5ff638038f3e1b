"""Cases that the tests of the refusal check share."""

from __future__ import annotations

from typing import Any

from harness.cases.case import parse
from harness.checks.refusal import refusal
from harness.results.finding import Finding

CASE = parse("mistral/chunk-4/float32/b1")  # 51 positions, window 8, two key heads
BATCH = parse("mistral/chunk-4/float32/b3")
PREFILL = parse("mistral/prefill-3w+5/float32/b1")


def found(subject: type[Any], case: Any = CASE) -> Finding:
    """What the refusal check finds."""
    return refusal(subject(), case)
