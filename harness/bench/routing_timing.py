"""Times of calls that take turns: by the clock on the CPU, by events on CUDA.

Two threads that meet at barriers lose more than half of their speed when another process takes one
of their CPUs, and short calls lose more than long ones.  The figures therefore also hold the part
of the time that threads *waited for a CPU*, as the scheduler counts it, and a ratio over only those
rounds in which neither call waited.
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

#: Warm-up calls of each on CUDA, in which kernels are loaded and the GPU's clock rises.
_CUDA_WARMUP = 3

#: A call is disturbed if its threads waited for a CPU for more than this part of its time.
DISTURBED = 0.15

_TASKS = Path("/proc/self/task")


@dataclass
class Rounds:
    """The seconds of every call in every round, and the part of them that its threads waited.

    Both are lists by the name of the call.  waited: None for a round that was not counted, as when
    a thread ended in it; empty, or None throughout, where the system does not count at all.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    waited: dict[str, list[float | None]] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """Median seconds of every call and, if the system counts it, the median part waited."""
        out: dict[str, Any] = {"seconds": timing.medians(self.seconds)}
        counted = {name: self._counted(name) for name in self.waited}
        if any(counted.values()):
            out["waited"] = {
                name: round(statistics.median(parts), 3) for name, parts in counted.items() if parts
            }
        return out

    def _counted(self, name: str) -> list[float]:
        """The parts that a call waited, of the rounds in which it was counted."""
        return [part for part in self.waited[name] if part is not None]

    def _quiet(self, name: str, i: int) -> bool:
        """True unless a call was disturbed in a round, or may have been."""
        if not self._counted(name):
            return True  # the system does not count
        part = self.waited[name][i]
        return part is not None and part <= DISTURBED

    def speedup(self, slow: str, fast: str) -> dict[str, Any]:
        """Median over the rounds of slow's time divided by fast's, for all rounds and quiet ones.

        quiet_rounds: in how many rounds neither call was disturbed (all, if the system does not
        count waiting; a single round that was not counted is none).  If there are none,
        quiet_speedup is left out.
        """
        out: dict[str, Any] = {"speedup": timing.ratio(self.seconds, slow, fast)}
        n = len(self.seconds[slow])
        quiet = [i for i in range(n) if self._quiet(slow, i) and self._quiet(fast, i)]
        out["quiet_rounds"] = len(quiet)
        if quiet:
            ratios = (self.seconds[slow][i] / self.seconds[fast][i] for i in quiet)
            out["quiet_speedup"] = statistics.median(ratios)
        return out


def interleaved(calls: Mapping[str, Call], repeats: int, device: torch.device) -> Rounds:
    """Time the calls for `repeats` rounds, one call of each in turn, after a warm-up.

    On CUDA, a call's time is the device's own, between two events around it.  Raises ValueError
    for repeats < 1.
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
            after = waiting()
            if before is None or after is None:
                out.waited[name].append(None)
            else:
                out.waited[name].append((after - before) / spent)
    return out


def tell(what: str, entry: Mapping[str, Any]) -> None:
    """Print a line on standard error for an entry that is done, to show progress."""
    timed = {name: found for name, found in entry.items() if isinstance(found, dict)}
    ratios = (
        f"{name} {found['speedup']:.2f}x" for name, found in timed.items() if "speedup" in found
    )
    print(f"  {what}: {', '.join(ratios) or 'timed without a mask'}", file=sys.stderr, flush=True)


def waiting() -> float | None:
    """Seconds that this process's threads have waited for a CPU so far; None if not counted."""
    try:
        stats = [(task / "schedstat").read_text().split() for task in _TASKS.iterdir()]
    except OSError:  # not Linux, a kernel without these statistics, or a thread that just ended
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
    """The device that a figure belongs to: the GPU's own name, or the CPU's kind and threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    capability = torch.backends.cpu.get_cpu_capability()
    return f"cpu {capability}, {torch.get_num_threads()} threads"
