"""Times calls that take turns in one process, and compares them as ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Call = Callable[[], object]


def check_repeats(repeats: int) -> None:
    """Raise ValueError unless repeats is an integer of at least 1."""
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise ValueError(f"repeats must be an integer >= 1, got {repeats!r}")


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Within the `with` block, torch computes on n threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def interleaved(calls: Mapping[str, Call], repeats: int) -> dict[str, list[float]]:
    """Seconds of every call in each of `repeats` rounds, after a warm-up round.

    Each round makes one call of each in turn: whatever slows the machine for a while slows all.
    Raises ValueError for repeats < 1.
    """
    check_repeats(repeats)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(repeats + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            spent = time.perf_counter() - began
            if round_:
                seconds[name].append(spent)
    return seconds


def ratio(seconds: Mapping[str, list[float]], name: str, base: str) -> float:
    """Median over the rounds of the time of `name` divided by that of `base` in the same round."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[base], strict=True))


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Median seconds of every call."""
    return {name: statistics.median(times) for name, times in seconds.items()}


def environment(repeats: int) -> dict[str, Any]:
    """The versions and settings that figures depend on, as the first entries of a result."""
    import torch

    return {"torch": torch.__version__, "threads": torch.get_num_threads(), "repeats": repeats}
