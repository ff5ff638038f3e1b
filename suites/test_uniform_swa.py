"""Full attention, and one sliding window in every layer."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.mark.conformance(schemes={"full", "uniform"})
def test_uniform_swa(conformance: Callable[[], None]) -> None:
    conformance()
