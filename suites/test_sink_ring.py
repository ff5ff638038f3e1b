"""Attention sinks that stay, and a sliding window after them."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.mark.conformance(schemes={"sink"})
def test_sink_ring(conformance: Callable[[], None]) -> None:
    conformance()
