"""Decoders converted to Core ML, whose MIL programs run on any machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.mark.conformance(suite="coreml")
def test_coreml(conformance: Callable[[], None]) -> None:
    conformance()
