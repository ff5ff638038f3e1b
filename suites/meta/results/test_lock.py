"""The lock of a folder of results: one run at a time, and none that outlives its process."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness.results.lock import FILE, BusyError, Lock

HOLDS = """
import sys, time
from pathlib import Path
from harness.results.lock import Lock
Lock(Path(sys.argv[1]), "--out").take()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the lock of the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_another_run_is_named_and_its_death_frees_the_folder(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    lock = Lock(tmp_path, "--out")
    said = rf"another run \(pid {holder.pid}, since 20.*\) writes to .*; .* with --out DIR"
    with pytest.raises(BusyError, match=said):
        lock.take()
    holder.kill()
    holder.wait()
    with lock:
        assert json.loads((tmp_path / FILE).read_text())["host"] == socket.gethostname()


@pytest.mark.parametrize(
    "left",
    [
        '{"pid": 1, "since": 0, "host": "elsewhere"}',  # of another machine, or another start
        '{"pid": 999999999, "since": 0}',
        "[]",
        "no JSON",
        "",
    ],
)
def test_what_an_ended_run_left_is_taken_over(tmp_path: Path, left: str) -> None:
    (tmp_path / FILE).write_text(left)
    with Lock(tmp_path, "--out") as lock:
        assert lock.descriptor
        lock.take()  # again: it is held
    assert lock.descriptor == ()


def test_what_a_run_starts_shares_its_lock(tmp_path: Path) -> None:
    take = "import sys; from pathlib import Path; from harness.results.lock import Lock; "
    take += "Lock(Path(sys.argv[1]), '--out').take()"
    with Lock(tmp_path, "--out"):
        done = subprocess.run([sys.executable, "-c", take, str(tmp_path)], check=False)
    assert done.returncode == 0


def test_a_file_system_without_locks_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with Lock(tmp_path, "--out") as lock:
        assert lock.descriptor == ()
