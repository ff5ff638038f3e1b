"""Growth, secondary figures and the cost of measuring."""

from __future__ import annotations

import mmap

import numpy as np
import psutil
import pytest

from harness.bench import probe
from harness.memory import (
    canary,
    measure,
    peak_resident_bytes,
    secondary,
)
from harness.memory.scaling import exponent, second_difference


def test_second_difference_and_exponent_of_known_curves() -> None:
    sizes = (1024, 2048, 3072)
    linear = [7 * s + 5 for s in sizes]
    mask = [p + s * s for p, s in zip(linear, sizes, strict=True)]
    assert second_difference(*linear) == 0
    assert second_difference(*mask) == 2_097_152
    for power in (0, 1, 2):
        assert exponent(sizes, [s**power for s in sizes]) == pytest.approx(power)


@pytest.mark.parametrize(
    ("sizes", "peaks", "what"),
    [
        ((1, 2), (1,), "must pair up, got 2 and 1"),
        ((2, 2), (1, 2), "two different lengths"),
        ((1, 2), (0, 2), "peaks must be positive"),
        ((0, 2), (1, 2), "sizes must be positive"),
    ],
)
def test_exponent_names_what_it_cannot_take(
    sizes: tuple[int, ...], peaks: tuple[int, ...], what: str
) -> None:
    with pytest.raises(ValueError, match=what):
        exponent(sizes, peaks)


def test_secondary_figures_see_what_the_allocator_does_not() -> None:
    def call() -> None:
        # Fresh pages: what malloc returns may be resident already, and would not show.
        np.frombuffer(mmap.mmap(-1, 64 * canary.MEBI), dtype=np.uint8).fill(1)

    assert measure(call).peak_bytes == 0
    found = secondary(call)
    for figure in (found.resident_peak_bytes, found.memray_peak_bytes):
        assert figure is None or figure > 32 * canary.MEBI  # half: these figures are approximate


def test_the_peak_resident_size_stays_when_the_pages_are_gone() -> None:
    pages = mmap.mmap(-1, 64 * canary.MEBI)
    np.frombuffer(pages, dtype=np.uint8).fill(1)
    pages.close()
    left = psutil.Process().memory_info().rss
    assert peak_resident_bytes() - left > 32 * canary.MEBI  # half: these figures are approximate


def test_probe_overhead_reports_ratios() -> None:
    report = probe.run(repeats=1)
    assert all(timed["ratio"] > 0 for timed in report["workloads"].values())
    assert report["threads"] == 1
    with pytest.raises(ValueError, match="repeats must be an integer >= 1, got 0"):
        probe.run(repeats=0)
