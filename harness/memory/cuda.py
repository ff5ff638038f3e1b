"""The CUDA side of the probe: the caching allocator's own statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from harness.memory.events import ProbeError

T = TypeVar("T")

#: Bytes asked for.  `allocated_bytes` holds them rounded up to 512, which hides small changes.
REQUESTED = "requested_bytes.all"


@dataclass(frozen=True)
class Use:
    """Bytes of one call beyond its start, and the most that was reserved from the device."""

    peak: int
    allocated: int
    retained: int
    allocations: int
    reserved: int


def record(fn: Callable[[], T], device: torch.device) -> tuple[T, Use]:
    """Call `fn` between two synchronisations of `device`, with peak statistics reset.

    The caller must warm up: the first calls make cuBLAS and cuDNN workspaces, which stay.
    Raises ProbeError without CUDA, or where the allocator keeps no statistics of requested bytes.
    """
    if not torch.cuda.is_available():
        raise ProbeError(f"no CUDA device to measure on, asked for {device}")
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = _stats(device)
    result = fn()
    torch.cuda.synchronize(device)
    after = _stats(device)
    start = before[f"{REQUESTED}.current"]
    return result, Use(
        peak=after[f"{REQUESTED}.peak"] - start,
        allocated=after[f"{REQUESTED}.allocated"] - before[f"{REQUESTED}.allocated"],
        retained=after[f"{REQUESTED}.current"] - start,
        allocations=after["allocation.all.allocated"] - before["allocation.all.allocated"],
        reserved=after["reserved_bytes.all.peak"],
    )


def _stats(device: torch.device) -> dict[str, int]:
    stats = dict(torch.cuda.memory_stats(device))
    if f"{REQUESTED}.peak" not in stats:
        backend = torch.cuda.get_allocator_backend()
        raise ProbeError(f"the CUDA allocator {backend!r} keeps no statistics of requested bytes")
    return stats
