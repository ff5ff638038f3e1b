"""Files are written whole or not at all; the error for one that cannot be written names it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from gate_data import record, results

from harness.results import files
from harness.results.files import write_atomically, write_together
from harness.results.folder import RunInfo

HARNESS = (sys.executable, "-m", "harness")
GATED = ("summary.md", "comment.md", "verdict.json", "junit.xml")


@pytest.fixture
def full(monkeypatch):
    """A disk on which no file whose name contains `full` has room."""

    def write(path, text):
        held = text[: len(text) // 2] if "full" in path.name else text
        path.write_text(held, encoding="utf-8")
        if held != text:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "_write", write)


@pytest.mark.usefixtures("full")
def test_a_full_disk_leaves_the_old_file_and_no_stump(tmp_path):
    path = tmp_path / "full.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left") as told:
        write_atomically(path, "new and longer")
    assert told.value.filename == str(path)
    assert [p.name for p in tmp_path.iterdir()] == ["full.txt"]
    assert path.read_text() == "old"


@pytest.mark.usefixtures("full")
def test_of_several_files_all_are_replaced_or_none(tmp_path):
    names = {tmp_path / "a": "new", tmp_path / "full": "new", tmp_path / "c": "new"}
    for path in names:
        path.write_text("old")
    with pytest.raises(OSError, match="No space left"):
        write_together(names)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == dict.fromkeys(
        ("a", "full", "c"), "old"
    )
    write_together({tmp_path / "a": "new", tmp_path / "c": "new"})
    assert (tmp_path / "a").read_text() == (tmp_path / "c").read_text() == "new"


def test_a_link_stays_a_link_and_a_device_a_device(tmp_path):
    (tmp_path / "held").write_text("old")
    (tmp_path / "link").symlink_to("held")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "held").read_text() == "new"
    write_atomically(Path(os.devnull), "anything")
    assert Path(os.devnull).is_char_device()
    with pytest.raises(OSError, match="No space left") as told:
        write_atomically(Path("/dev/full"), "x")
    assert told.value.filename == "/dev/full"


def test_half_of_a_pair_is_written_as_an_escape(tmp_path):
    write_atomically(tmp_path / "x", "\ud800")
    assert (tmp_path / "x").read_text() == "\\ud800"


def one_line(err: str, said: str) -> None:
    (line,) = err.strip().splitlines()
    assert line.startswith("harness: ")
    assert said in line


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("gate",), "verdict.json"),
        (("report",), "index.html"),
        (("report", "--picture", "p.svg"), "p.svg"),
        (("merge", "part"), "records.jsonl"),
        (("baseline", "update"), "uniform.csv"),
    ],
)
def test_a_command_on_a_full_disk_says_so_in_a_line(
    run_harness, tmp_path, monkeypatch, command, name
):
    out = results(tmp_path, record(cache_bytes=7), run=RunInfo("r1", whole=True, exit_status=0))
    if command[0] == "merge":
        out.rename(tmp_path / "part")
    was = files._write

    def write(path, text):
        if name in path.name:
            path.write_text(text[:9])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        was(path, text)

    monkeypatch.setattr(files, "_write", write)
    status, _, err = run_harness(*command)
    assert status == 2
    one_line(err, f"{name}: No space left on device")
    assert not [p for p in tmp_path.rglob(".*") if p.is_file() and p.name != ".lock"]
    assert not [p for p in tmp_path.rglob(name) if p.parent.name != "part"]


def test_a_verdict_that_cannot_be_written_leaves_none_of_another_run(run_harness, tmp_path):
    """The files of the gate are replaced together: no green page beside a red verdict."""
    out = results(tmp_path, record())
    assert run_harness("gate")[0] == 0
    before = {name: (out / name).read_text() for name in GATED[:3]}
    results(tmp_path, record(status="fail"))
    for name, held in before.items():
        (out / name).write_text(held)
    (out / "junit.xml").mkdir()
    status, _, err = run_harness("gate")
    assert status == 2
    one_line(err, "junit.xml: Is a directory")
    assert {name: (out / name).read_text() for name in before} == before


@pytest.mark.parametrize("command", [("gate",), ("kv", "gemma-3-27b", "--context", "4096")])
def test_an_output_without_room_is_told_in_a_line(tmp_path, command):
    results(tmp_path, record())
    with Path("/dev/full").open("w") as nowhere:
        done = subprocess.run(
            [*HARNESS, *command],
            cwd=tmp_path,
            stdout=nowhere,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    one_line(done.stderr, "output: No space left on device")
