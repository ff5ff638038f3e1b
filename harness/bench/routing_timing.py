"""Times of calls that take turns, on the CPU by the clock and on CUDA by events.

Two threads that meet at barriers lose more than half of their speed when another process takes one
of their CPUs, and short calls lose more than long ones.  So beside the seconds stands what part of
them the threads *waited for a CPU*, as the scheduler counts it, and a ratio over the rounds in
which neither call did.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from harness.bench import timing
from harness.bench.timing import Call

#: Calls of each before the first that counts on CUDA: kernels are loaded and clocks rise.
_CUDA_WARMUP = 3

#: A call whose threads waited for a CPU for more than this part of its time was disturbed.
DISTURBED = 0.15

_TASKS = Path("/proc/self/task")


@dataclass
class Rounds:
    """Of every call and round: its seconds, and the part of them that its threads waited."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    waited: dict[str, list[float]] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """Median seconds of every call and, where the system counts it, what they waited."""
        out: dict[str, Any] = {"seconds": timing.medians(self.seconds)}
        if any(self.waited.values()):
            out["waited"] = {
                name: round(statistics.median(parts), 3) for name, parts in self.waited.items()
            }
        return out

    def speedup(self, slow: str, fast: str) -> dict[str, Any]:
        """Median over the rounds of one call's time over another's, and that of quiet rounds.

        quiet_rounds: how many rounds nobody disturbed (all, where that is not counted); without
        any there is no second ratio.
        """
        out: dict[str, Any] = {"speedup": timing.ratio(self.seconds, slow, fast)}
        n = len(self.seconds[slow])
        quiet = [
            i
            for i in range(n)
            if all(self.waited[name][i : i + 1] <= [DISTURBED] for name in (slow, fast))
        ]
        out["quiet_rounds"] = len(quiet)
        if quiet:
            ratios = (self.seconds[slow][i] / self.seconds[fast][i] for i in quiet)
            out["quiet_speedup"] = statistics.median(ratios)
        return out


def interleaved(calls: Mapping[str, Call], repeats: int, device: torch.device) -> Rounds:
    """Every call in each of `repeats` rounds, one of each in turn, after a warm-up.

    On CUDA the device's own time between two events around each call.  Raises ValueError for
    repeats < 1.
    """
    timing.check_repeats(repeats)
    for call in calls.values():
        for _ in range(_CUDA_WARMUP if device.type == "cuda" else 1):
            call()
    out = Rounds({name: [] for name in calls}, {name: [] for name in calls})
    for _ in range(repeats):
        for name, call in calls.items():
            if device.type == "cuda":
                out.seconds[name].append(_by_events(call, device))
                continue
            before, began = waiting(), time.perf_counter()
            call()
            spent = time.perf_counter() - began
            out.seconds[name].append(spent)
            if before is not None and (after := waiting()) is not None:
                out.waited[name].append((after - before) / spent)
    return out


def tell(what: str, entry: Mapping[str, Any]) -> None:
    """One line on standard error for each entry that is done: long benches show that they go on."""
    timed = {name: found for name, found in entry.items() if isinstance(found, dict)}
    ratios = (
        f"{name} {found['speedup']:.2f}x" for name, found in timed.items() if "speedup" in found
    )
    print(f"  {what}: {', '.join(ratios) or 'timed without a mask'}", file=sys.stderr, flush=True)


def waiting() -> float | None:
    """Seconds that this process's threads have waited for a CPU so far; None if nobody counts."""
    try:
        stats = [(task / "schedstat").read_text().split() for task in _TASKS.iterdir()]
    except OSError:  # no Linux, or a kernel without these statistics, or a thread that just ended
        return None
    return sum(int(fields[1]) for fields in stats) / 1e9


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
