"""Sliding layers routed through a windowed kernel, and the operations that may serve as one."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.mark.conformance(suite="fa2_routing")
def test_fa2_routing(conformance: Callable[[], None]) -> None:
    conformance()
