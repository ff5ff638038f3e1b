"""The memory probe: exact against hand-computed truth, repeatable, apart for each step."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import memory_workloads
import pytest
import torch
from memory_workloads import SHAPES, Workload, workloads
from torch import Tensor

from harness.law import Layer
from harness.memory import (
    ProbeError,
    measure,
    step,
)
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
