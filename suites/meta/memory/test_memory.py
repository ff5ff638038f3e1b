"""The memory probe: exact against hand-computed truth, repeatable, and broken loudly."""

from __future__ import annotations

import gc
import json
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import memory_workloads
import numpy as np
import psutil
import pytest
import torch
from memory_workloads import SHAPES, Workload, workloads
from torch import Tensor

from harness.bench import probe
from harness.law import Layer
from harness.memory import (
    ProbeError,
    canary,
    check_probe,
    events,
    measure,
    peak_resident_bytes,
    secondary,
    step,
)
from harness.memory.scaling import exponent, second_difference
from harness.reference import tolerance
from harness.reference.oracle import attention, attention64

LOADS = [load for shape in SHAPES for load in workloads(*shape)]
IDS = [f"{load.name}-{shape[1]}" for shape in SHAPES for load in workloads(*shape)]
MEBI = 1 << 20


@pytest.mark.parametrize("load", LOADS, ids=IDS)
def test_peak_equals_hand_computed_truth_to_the_byte(load: Workload) -> None:
    got = measure(load.call)
    assert (got.peak_bytes, got.retained_bytes) == (load.peak, load.retained)


@pytest.mark.parametrize("load", LOADS[: len(LOADS) // 2], ids=IDS[: len(LOADS) // 2])
def test_the_workloads_compute_what_they_are_named_for(load: Workload) -> None:
    heads, n, width = SHAPES[0]
    q, k, v = memory_workloads.inputs(heads, n, width)
    layer = Layer(window=memory_workloads.WINDOW) if load.name == "banded" else Layer()
    mask = layer.mask(0, n, n)
    exact = attention64(q, k, v, mask)
    bound = tolerance.row_bound(attention(q, k, v, mask), exact, mask.sum(-1), width, 1)
    assert (tolerance.row_error(load.call(), exact) <= bound).all()


@pytest.mark.parametrize("load", LOADS, ids=IDS)
def test_twenty_runs_give_one_value(load: Workload) -> None:
    assert len({repr(measure(load.call, warmup=0)) for _ in range(20)}) == 1


def test_fresh_processes_give_one_value_and_a_clean_stderr() -> None:
    root = Path(memory_workloads.__file__).parents[3]
    env = {**os.environ, "PYTHONPATH": str(root)}
    env.pop("KINETO_LOG_LEVEL", None)
    runs = [
        subprocess.run(
            [sys.executable, memory_workloads.__file__],
            capture_output=True,
            text=True,
            env=env,
            check=True,
        )
        for _ in range(3)
    ]
    assert [run.stderr for run in runs] == ["", "", ""]
    here = memory_workloads.readings()
    assert [json.loads(run.stdout) for run in runs] == [here, here, here]


def test_threads_and_the_collector_are_set_and_restored() -> None:
    seen = []

    def call() -> None:
        seen.append((torch.get_num_threads(), gc.isenabled()))
        if len(seen) == 3:
            raise KeyError("the call's own error passes through")

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError):
            measure(call)
        assert (torch.get_num_threads(), gc.isenabled()) == (2, True)
    finally:
        torch.set_num_threads(before)
    assert seen == [(1, True), (1, True), (1, False)]


def test_frees_of_blocks_from_before_the_call_are_counted_and_not_subtracted() -> None:
    old = [torch.zeros(1000) for _ in range(5)]

    def call() -> Tensor:
        old.clear()
        return torch.zeros(10)

    got = measure(call, warmup=0)
    assert got.preexisting_frees == 5
    assert (got.peak_bytes, got.retained_bytes) == (40, 40)


def test_steps_are_measured_apart_and_net_of_what_they_free() -> None:
    kept: list[Tensor] = []

    def call() -> None:
        kept.clear()
        with step("grow"):
            kept.append(torch.zeros(100))
            torch.zeros(1000)
        with step("replace"):
            kept.append(torch.zeros(50))
            del kept[0]

    got = [(s.name, s.peak_bytes, s.retained_bytes, s.held_bytes) for s in measure(call).steps]
    assert got == [("grow", 4400, 400, 400), ("replace", 200, -200, 200)]


def test_a_step_inside_a_step_is_refused() -> None:
    def call() -> None:
        with step("outer"), step("inner"):
            torch.zeros(1)

    with pytest.raises(ProbeError, match="'inner' begins inside step 'outer'"):
        measure(call)


def test_reference_cycles_are_charged() -> None:
    def call() -> None:
        for _ in range(2):
            cycle: list[object] = [torch.zeros(MEBI // 4)]
            cycle.append(cycle)

    # The garbage collector is off until the call is over.
    assert measure(call).peak_bytes == 2 * MEBI


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"warmup": -1}, "warmup must be an integer >= 0, got -1"),
        ({"warmup": True}, "warmup must be an integer >= 0, got True"),
        ({"device": "meta"}, "device must be a cpu or cuda device, got 'meta'"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        measure(torch.zeros, **arguments)


@pytest.mark.parametrize("device", ["cpu", *["cuda"] * torch.cuda.is_available()])
def test_the_known_pattern_reads_exactly_on_every_device(device: str) -> None:
    def pattern() -> Tensor:
        kept = torch.empty(MEBI, dtype=torch.uint8, device=device)
        torch.empty(4097, dtype=torch.uint8, device=device)
        return kept

    got = measure(pattern, device=device)
    assert (got.peak_bytes, got.retained_bytes) == (MEBI + 4097, MEBI)
    assert (got.allocated_bytes, got.allocations) == (MEBI + 4097, 2)


def test_cuda_without_a_device_is_a_probe_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ProbeError, match="no CUDA device to measure on, asked for cuda:1"):
        measure(lambda: None, device="cuda:1")


# --- The canary: whatever breaks the probe must end in ProbeError, never in a number.


def _with_changes(change: Callable[[events.Change], list[events.Change]]) -> Callable[..., object]:
    """`events._read`, with every change of the log replaced by what `change` makes of it."""
    read = events._read

    def broken(trace: object) -> events.Log:
        log = read(trace)
        return replace(log, changes=[c for old in log.changes for c in change(old)])

    return broken


def _rounded(change: events.Change) -> list[events.Change]:
    return [replace(change, size=change.size + -change.size % 64)]


def _frees_lost(change: events.Change) -> list[events.Change]:
    return [change] if change.size > 0 else []


def _one_address(change: events.Change) -> list[events.Change]:
    return [replace(change, address=1)]


def _no_workspace(change: events.Change) -> list[events.Change]:
    tell_tale = 256 * 32 * 4, 256 * 4, canary.MEBI, canary.ODD
    return [change] if abs(change.size) in tell_tale else []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (_rounded, "must read"),
        (_frees_lost, "must read|freed unseen"),
        (_one_address, "freed unseen"),
        (lambda _: [], "must read 1,052,673, the probe read 0"),
        (_no_workspace, "flash attention shows no workspace"),
    ],
    ids=["rounded", "frees lost", "addresses lost", "blind", "no workspace"],
)
def test_the_canary_catches_a_broken_probe(
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[events.Change], list[events.Change]],
    what: str,
) -> None:
    monkeypatch.setattr(canary, "_passed", set())
    monkeypatch.setattr(events, "_read", _with_changes(change))
    with pytest.raises(ProbeError, match=what):
        measure(lambda: torch.zeros(1))
    assert not canary._passed


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (torch._C._profiler, "ProfilerConfig"),
        (torch._C._profiler, "_EventType"),
        (torch._C._autograd, "_enable_profiler"),
    ],
)
def test_a_torch_without_the_private_api_is_a_probe_error(
    monkeypatch: pytest.MonkeyPatch, module: object, name: str
) -> None:
    monkeypatch.setattr(canary, "_passed", set())
    monkeypatch.delattr(module, name)
    with pytest.raises(ProbeError, match=f"torch {torch.__version__.partition('+')[0]}"):
        check_probe()


def test_the_probe_recovers_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "_passed", set())
    with monkeypatch.context() as broken:
        broken.setattr(events, "_read", _with_changes(lambda _: []))
        with pytest.raises(ProbeError):
            check_probe()
    assert measure(lambda: torch.zeros(1)).peak_bytes == 4


def test_the_canary_runs_once_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    monkeypatch.setattr(canary, "_passed", set())
    monkeypatch.setattr(canary, "run_canary", lambda: runs.append(os.getpid()))
    measure(lambda: None)
    measure(lambda: None)
    assert runs == [os.getpid()]


def test_measuring_under_a_profiler_is_refused() -> None:
    check_probe()
    with torch.profiler.profile(), pytest.raises(ProbeError, match="a profiler is running"):
        measure(lambda: None)


def test_nothing_is_written_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    old = [torch.zeros(1000) for _ in range(5)]
    canary.run_canary()
    measure(old.clear, warmup=0)
    assert capfd.readouterr().err == ""


# --- Growth, secondary figures, overhead.


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
        np.frombuffer(mmap.mmap(-1, 64 * MEBI), dtype=np.uint8).fill(1)

    assert measure(call).peak_bytes == 0
    found = secondary(call)
    for figure in (found.resident_peak_bytes, found.memray_peak_bytes):
        assert figure is None or figure > 32 * MEBI  # half: these figures are approximate


def test_the_peak_resident_size_stays_when_the_pages_are_gone() -> None:
    pages = mmap.mmap(-1, 64 * MEBI)
    np.frombuffer(pages, dtype=np.uint8).fill(1)
    pages.close()
    left = psutil.Process().memory_info().rss
    assert peak_resident_bytes() - left > 32 * MEBI  # half: these figures are approximate


def test_probe_overhead_reports_ratios() -> None:
    report = probe.run(repeats=1)
    assert all(timed["ratio"] > 0 for timed in report["workloads"].values())
    assert report["threads"] == 1
    with pytest.raises(ValueError, match="repeats must be an integer >= 1, got 0"):
        probe.run(repeats=0)
