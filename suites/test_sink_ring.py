"""Sink tokens that stay, and a window that turns over behind them."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.mark.conformance(schemes={"sink"})
def test_sink_ring(conformance: Callable[[], None]) -> None:
    conformance()
