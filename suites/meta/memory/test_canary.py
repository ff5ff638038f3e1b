"""The canary: whatever breaks the probe ends in an error, never in a number."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from harness.memory import (
    ProbeError,
    canary,
    check_probe,
    events,
    measure,
)


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
