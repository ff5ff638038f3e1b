"""`measure`: exact bytes of one call.

**What counts.**  On the CPU every block of the c10 allocator: tensors, temporaries and the
workspaces that kernels take from it (flash attention's, say), at the bytes asked for.  **What does
not:** memory that MKL or oneDNN take from malloc, numpy arrays, and what other threads allocate.
Bytes are counted from the start of the call: inputs that exist are free, the result is not.

**Why it repeats.**  One torch thread (workspaces grow with the threads), warm-up calls first
(lazily made constants), and no garbage collection during the calls (reference cycles are freed at
the collector's whim otherwise).  Gate float32 only: bfloat16 peaks depend on the instruction set.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType
from typing import Generic, TypeVar

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from harness.memory import cuda, events
from harness.memory.canary import check_probe
from harness.memory.events import Step
from harness.memory.storage import tensors_of

T = TypeVar("T")


@dataclass(frozen=True)
class Measurement(Generic[T]):
    """Bytes of one call, beyond what was there when it began.

    peak_bytes: most held at a time; allocated_bytes: sum of all allocations; retained_bytes: still
    held at the end, the result included; allocations: how many.  preexisting_frees: blocks from
    before the call that it is seen to free; they lower none of the figures (None on CUDA, whose
    statistics subtract them).  reserved_bytes: the most that the CUDA allocator took from the
    device.  steps: the parts marked by `step`, in order (CPU).  result: what the call returned;
    ignored in comparisons.
    """

    peak_bytes: int
    allocated_bytes: int
    retained_bytes: int
    allocations: int
    preexisting_frees: int | None
    reserved_bytes: int | None = None
    steps: tuple[Step, ...] = ()
    result: T | None = field(default=None, compare=False, repr=False)


def measure(
    fn: Callable[[], T], *, warmup: int = 2, device: torch.device | str = "cpu"
) -> Measurement[T]:
    """Call `fn` `warmup` times, then once more under the probe.

    A `fn` that should not be charged for its result returns None.  Sets one torch thread and
    restores the number.  What `fn` raises passes through.

    Raises ProbeError where memory cannot be measured exactly (see `check_probe`), ValueError for a
    negative warmup or a device that is neither cpu nor cuda.
    """
    if isinstance(warmup, bool) or warmup < 0:
        raise ValueError(f"warmup must be an integer >= 0, got {warmup!r}")
    kind = torch.device(device).type
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"device must be a cpu or cuda device, got {device!r}")
    with _one_thread():
        if kind == "cpu":
            check_probe()
        for _ in range(warmup):
            fn()
        with _collector_off():
            return _on_cpu(fn) if kind == "cpu" else _on_cuda(fn, torch.device(device))


def _on_cpu(fn: Callable[[], T]) -> Measurement[T]:
    before = _storages(fn)
    result, log = events.record(fn)
    ledger = events.add_up(log)
    gone = {address for address, storage in before.items() if _expired(storage)}
    return Measurement(
        peak_bytes=ledger.peak,
        allocated_bytes=ledger.allocated,
        retained_bytes=ledger.held,
        allocations=ledger.allocations,
        preexisting_frees=len(gone | ledger.foreign),
        steps=tuple(ledger.steps),
        result=result,
    )


def _on_cuda(fn: Callable[[], T], device: torch.device) -> Measurement[T]:
    result, use = cuda.record(fn, device)
    return Measurement(
        peak_bytes=use.peak,
        allocated_bytes=use.allocated,
        retained_bytes=use.retained,
        allocations=use.allocations,
        preexisting_frees=None,
        reserved_bytes=use.reserved,
        result=result,
    )


def _storages(fn: Callable[[], object]) -> dict[int, StorageWeakRef]:
    """Weak references to the CPU storages that `fn` leads to, by address.

    The profiler does not report the free of a block that it never saw allocated.  For tensors in
    the closure of `fn` and in the globals that it names, these references show it.
    """
    roots: list[object] = [fn]
    if isinstance(fn, partial):
        roots += [fn.func, *fn.args, *fn.keywords.values()]
    if isinstance(fn, FunctionType):
        roots += [fn.__globals__[n] for n in fn.__code__.co_names if n in fn.__globals__]
    found = {}
    for tensor in tensors_of(roots):
        if tensor.layout == torch.strided and tensor.device.type == "cpu":
            storage = tensor.untyped_storage()
            found[storage.data_ptr()] = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
    return found


def _expired(storage: StorageWeakRef) -> bool:
    return bool(storage.expired())  # type: ignore[no-untyped-call]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _collector_off() -> Iterator[None]:
    """Keep the garbage collector out."""
    enabled = gc.isenabled()
    # Garbage of any age stays put while the collector is off.  A full collection would take longer
    # than most calls that are measured, for nothing; the young generations are cheap to clear.
    gc.collect(1)
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
