"""Sliding or chunked layers between full ones: Gemma 2, 3, 4, gpt-oss, Cohere2, Qwen2, Llama 4."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.mark.conformance(schemes={"interleaved", "chunked"})
def test_interleaved(conformance: Callable[[], None]) -> None:
    conformance()
