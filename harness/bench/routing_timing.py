"""Times of calls that take turns, on the CPU by the clock and on CUDA by events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from harness.bench import timing
from harness.bench.timing import Call

#: Calls of each before the first that counts on CUDA: kernels are loaded and clocks rise.
_CUDA_WARMUP = 3


def interleaved(
    calls: Mapping[str, Call], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of every call in each of `repeats` rounds, one call of each in turn.

    On CUDA the device's own time between two events around each call, after a warm-up.
    """
    if device.type != "cuda":
        return timing.interleaved(calls, repeats)
    timing.check_repeats(repeats)
    for call in calls.values():
        for _ in range(_CUDA_WARMUP):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            seconds[name].append(_by_events(call, device))
    return seconds


def _by_events(call: Call, device: torch.device) -> float:
    event: Any = torch.cuda.Event
    start, end = (event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start.record()
    call()
    end.record()
    torch.cuda.synchronize(device)
    return float(start.elapsed_time(end)) / 1000.0


def device_name(device: torch.device) -> str:
    """What a figure belongs to: the GPU's own name, or the CPU's kind and threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    capability = torch.backends.cpu.get_cpu_capability()
    return f"cpu {capability}, {torch.get_num_threads()} threads"
