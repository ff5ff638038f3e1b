"""How a check ends without an answer: one kind and one wording for every way of running."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from gate_data import planned, record

from harness.results import ended
from harness.results.finding import Kind
from harness.results.folder import Folder
from harness.results.recorder import Recorder, died_in_flight


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    out = Recorder(Folder(tmp_path), "r1", [])
    out.items = {"a": planned("a")}
    return out


def test_words() -> None:
    assert ended.hung(2.5).message == "hung: no answer within 2.5 s"
    assert ended.hung(60, forced=True).message.startswith(ended.hung(60).message)
    assert ended.died().message == "the process died"
    assert ended.died("signal 9", when="in mid-check").message == (
        "the process died in mid-check: signal 9"
    )
    assert ended.not_run(5).message == "not run: 5 checks before it hung or died"
    assert ended.failed("the setup of the test", KeyError("x")).message == (
        "the setup of the test failed: 'x'"
    )


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exit status 0"),
        (3, "exit status 3"),
        (-9, "signal 9, SIGKILL"),
        (-99, "signal 99, unk"),
    ],
)
def test_exit_words(status: int, words: str) -> None:
    assert ended.exit_words(status).startswith(words)


class CacheIsFull(MemoryError):
    """A library's own exception for exhausted memory."""


class OutOfMemoryError(RuntimeError):
    """The name of torch's exception for CUDA."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("no cache today"), Kind.RAISED),
        (SystemExit(0), Kind.RAISED),
        (MemoryError(), Kind.OUT_OF_MEMORY),
        (CacheIsFull(), Kind.OUT_OF_MEMORY),
        (OutOfMemoryError(), Kind.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: out of memory"), Kind.OUT_OF_MEMORY),
    ],
    ids=repr,
)
def test_the_kind_of_an_exception(error: BaseException, kind: Kind) -> None:
    assert ended.kind_of(error) is kind
    assert ended.failed("the call", error).kind is kind


def test_what_torch_raises_without_memory_is_known_by_its_text() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert ended.kind_of(caught.value) is Kind.OUT_OF_MEMORY


def test_a_worker_that_dies_leaves_a_record_that_says_so(recorder: Recorder) -> None:
    before = recorder.crashed("a", "gw0", 60, "signal 9, SIGKILL")
    recorder.folder.checkpoint("gw0", record(item="a", status="error"))
    during = recorder.crashed("a", "gw0", 60, "signal 9, SIGKILL")
    assert before is not None
    assert during is not None
    assert (before.status, before.kind) == (during.status, during.kind) == ("error", "died")
    assert before.message == "the process died before the check began: signal 9, SIGKILL"
    assert during.message == "the process died in mid-check: signal 9, SIGKILL"
    assert recorder.crashed("another", "gw0", 60) is None


def test_a_worker_past_its_limit_hung(recorder: Recorder) -> None:
    recorder.folder.checkpoint("gw0", record(item="a", status="error"))
    long_ago = time.time() - 100
    os.utime(recorder.folder.inflight / "gw0.json", (long_ago, long_ago))
    hung = recorder.crashed("a", "gw0", 60)
    assert hung is not None
    assert hung.kind == "hung"
    assert hung.message == ended.hung(60, forced=True).message
    assert hung.seconds is not None
    assert hung.seconds >= 100


def test_what_was_in_flight_when_the_session_died(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.checkpoint("gw0", record(item="a", status="error"))
    folder.checkpoint("gw1", record(item="b", status="error"))
    (lost,) = died_in_flight(folder, [record(item="b")])
    assert (lost.item, lost.kind, lost.message) == ("a", "died", "the session died in mid-check")
