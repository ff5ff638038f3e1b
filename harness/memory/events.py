"""What the CPU allocator did during a call, from torch's profiler, and the sums over it.

The profiler reports each allocation and each free of the c10 CPU allocator with its address and
the bytes asked for (without alignment).  The tree of events that holds the addresses is private
API: anything unexpected raises `ProbeError`, and `canary` tests the whole on known patterns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch.profiler import record_function

T = TypeVar("T")

_STEP = "harness.step:"


class ProbeError(Exception):
    """Memory cannot be measured exactly here.  A check that needs it ends in an error."""


@dataclass(frozen=True)
class Step:
    """Bytes of one marked part of a call, beyond what was held when it began.

    peak_bytes: most held at a time; retained_bytes: held at its end (negative if it freed more
    than it kept); held_bytes: held at its end, counted from the start of the whole call.
    """

    name: str
    peak_bytes: int
    retained_bytes: int
    held_bytes: int


def step(name: str) -> AbstractContextManager[object]:
    """Mark a part of a call under `measure`; costs next to nothing outside of it.

    ``with step("decode 17"): ...`` makes a `Step` of that name in the measurement.  Steps follow
    each other; one inside another raises ProbeError.
    """
    return record_function(_STEP + name)


@dataclass(frozen=True, slots=True)
class Change:
    """size > 0: that many bytes allocated at the address; size < 0: the block there freed."""

    time: int
    address: int
    size: int


@dataclass(frozen=True)
class Log:
    """Changes in order of time, and the marked steps as (name, start, end)."""

    changes: list[Change]
    steps: list[tuple[str, int, int]]


def record(fn: Callable[[], T]) -> tuple[T, Log]:
    """Call `fn` and log what the CPU allocator did meanwhile in this thread.

    Raises ProbeError where the profiler is in use already or does not report what is needed.
    """
    # The profiler reads this when it first starts; otherwise it prints start and stop lines.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    if torch._C._autograd._profiler_enabled():
        raise ProbeError("a profiler is running already; memory cannot be measured under it")
    with _private_api():
        stop = _start()
    try:
        result = fn()
    finally:
        trace = stop()
    with _private_api():
        return result, _read(trace)


@contextmanager
def _private_api() -> Iterator[None]:
    """Make errors in here ProbeErrors: they come from torch, not from the measured call."""
    try:
        yield
    except (AttributeError, ImportError, RuntimeError, TypeError) as error:
        raise ProbeError(
            f"torch {torch.__version__} does not report allocations as expected: {error}"
        ) from error


def _start() -> Callable[[], Any]:
    """Start the profiler; returns a function that stops it and returns its trace.

    Does what `torch.profiler.profile(profile_memory=True)` does, but does not record operators:
    they are most of the events and most of the cost.
    """
    from torch._C import _autograd
    from torch._C import _profiler as kineto

    config = kineto.ProfilerConfig(
        kineto.ProfilerState.KINETO,
        False,  # shapes
        True,  # memory
        False,  # stacks
        False,  # flops
        False,  # modules
        kineto._ExperimentalConfig(),
    )
    activities, scopes = {kineto.ProfilerActivity.CPU}, {kineto.RecordScope.USER_SCOPE}
    # All names are looked up before the first call, so that nothing is left half started.
    prepare, stop = _autograd._prepare_profiler, _autograd._disable_profiler
    enable: Any = _autograd._enable_profiler  # its stub leaves out the scopes
    prepare(config, activities)
    enable(config, activities, scopes)
    return stop


def _read(trace: Any) -> Log:
    from torch._C._profiler import _EventType

    changes, steps = [], []
    for event in _flatten(trace.experimental_event_tree()):
        tag = event.tag
        if tag == _EventType.Allocation:
            _, fields = event.typed
            if fields.device.type == "cpu":
                changes.append(Change(event.start_time_ns, fields.ptr, fields.alloc_size))
        elif tag == _EventType.TorchOp and event.name.startswith(_STEP):
            name = event.name.removeprefix(_STEP)
            steps.append((name, event.start_time_ns, event.end_time_ns))
    changes.sort(key=lambda change: change.time)
    steps.sort(key=lambda entry: entry[1])
    return Log(changes, steps)


def _flatten(roots: Iterable[Any]) -> Iterator[Any]:
    """Every event of the trees, without recursion: eager code nests deep."""
    stack = list(roots)
    while stack:
        event = stack.pop()
        yield event
        stack += event.children


@dataclass
class Ledger:
    """The sums of a log.  foreign: addresses of freed blocks that were there before the call."""

    peak: int = 0
    held: int = 0
    allocated: int = 0
    allocations: int = 0
    foreign: set[int] = field(default_factory=set)
    steps: list[Step] = field(default_factory=list)


def add_up(log: Log) -> Ledger:
    """Match each free to the allocation at its address, and add up.

    A free without one belongs to a block from before the call: it is noted, not subtracted,
    because its bytes were never added (a plain running sum of the events goes wrong here).

    Raises ProbeError for two allocations at one address without a free between them, as when a
    block was freed by a thread that the profiler does not see.
    """
    ledger = Ledger()
    live: dict[int, int] = {}
    levels: list[tuple[int, int]] = []  # (time, held after the change)
    for change in log.changes:
        if change.size > 0:
            if change.address in live:
                raise ProbeError("a block was freed unseen, perhaps by another thread")
            live[change.address] = change.size
            ledger.held += change.size
            ledger.allocated += change.size
            ledger.allocations += 1
            ledger.peak = max(ledger.peak, ledger.held)
        elif change.address in live:
            ledger.held -= live.pop(change.address)
        else:
            ledger.foreign.add(change.address)
        levels.append((change.time, ledger.held))
    ledger.steps = _steps(log.steps, levels)
    return ledger


def _steps(marks: list[tuple[str, int, int]], levels: list[tuple[int, int]]) -> list[Step]:
    out, at, held = [], 0, 0
    for i, (name, start, end) in enumerate(marks):
        if i and start < marks[i - 1][2]:
            raise ProbeError(f"step {name!r} begins inside step {marks[i - 1][0]!r}")
        while at < len(levels) and levels[at][0] < start:
            held = levels[at][1]
            at += 1
        before = peak = held
        while at < len(levels) and levels[at][0] <= end:
            held = levels[at][1]
            peak = max(peak, held)
            at += 1
        out.append(Step(name, peak - before, held - before, held))
    return out
