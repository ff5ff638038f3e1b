"""Sliced-Q attention: coremltools' own pass, our pass, and our torch operation."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.mark.conformance(suite="sliced_q")
def test_sliced_q(conformance: Callable[[], None]) -> None:
    conformance()
