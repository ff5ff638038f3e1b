"""A command that a signal ends takes all that it started along, and leaves no old verdict."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from gate_data import planned, record
from processes import family, start, survivors, until
from subject_files import BAD, SUITE

from harness.results.folder import Folder, RunInfo

#: Says that it is there, and never comes back.
WAITS = """
import pathlib
import time

pathlib.Path("here").touch()
time.sleep(600)
"""
#: A cache that starts a process of its own, and hangs.
HANGS = (
    BAD
    + """
import subprocess


class HangsWithChild(Mine):
    name = "hangs-with-child"

    def new_cache(self, layer, shape):
        if shape.max_context > 20:
            child = subprocess.Popen(["sleep", "600"], start_new_session=True)
            open("child", "w").write(str(child.pid))
            time.sleep(600)
        return super().new_cache(layer, shape)
"""
)


@pytest.fixture
def green(tmp_path: Path) -> Path:
    """A checkout with one suite, whose last run is green."""
    (tmp_path / "reports" / "baselines").mkdir(parents=True)
    (tmp_path / "suites" / "known_failures").mkdir(parents=True)
    (tmp_path / "suites" / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nharness_suites = suites\n")
    (tmp_path / "bad.py").write_text(HANGS)
    folder = Folder(tmp_path / "reports" / "latest")
    folder.clear()
    held = record()
    folder.append(held)
    folder.write_collected([planned(held.item, held.subject, held.check)])
    folder.write_run(RunInfo("r1", exit_status=0))
    assert gate(tmp_path)[0] == 0
    (folder.path / "index.html").write_text("green")
    return tmp_path


def gate(checkout: Path) -> tuple[int, str]:
    process = start("gate", folder=checkout)
    said = process.communicate()[0]
    return process.returncode, said


@pytest.mark.parametrize(
    ("module", "arguments", "stops_in"),
    [
        ("harness", ("run", "--no-lower"), "conftest.py"),  # before pytest has begun
        ("pytest", ("suites", "-n0"), "suites/test_suite.py"),  # while it collects
    ],
)
def test_a_run_that_is_killed_early_leaves_no_old_verdict(
    green: Path, module: str, arguments: tuple[str, ...], stops_in: str
) -> None:
    (green / stops_in).write_text(WAITS + SUITE)
    process = start(*arguments, folder=green, module=module)
    until((green / "here").exists, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    latest = green / "reports" / "latest"
    left = {"verdict.json", "summary.md", "comment.md", "junit.xml", "index.html"}
    assert not left & {path.name for path in latest.iterdir()}
    status, said = gate(green)
    assert status == 1
    assert "the run did not end by itself" in said


def test_a_session_beside_the_suites_leaves_the_last_run(green: Path) -> None:
    (green / "suites" / "test_beside.py").write_text("def test_beside():\n    assert True\n")
    process = start("suites/test_beside.py", folder=green, module="pytest")
    assert "1 passed" in process.communicate()[0]
    assert gate(green)[0] == 0


def test_sigterm_ends_a_run_with_pytest_and_its_workers(green: Path) -> None:
    arguments = ("--subject=bad.py:HangsWithChild", "-k", "values and mistral/", "-n1")
    process = start("run", *arguments, folder=green)
    until((green / "child").exists, process)
    everyone = family(process)
    assert len(everyone) > 2  # pytest, and its worker
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert not survivors(everyone)
    status, said = gate(green)
    assert (status, "the run did not end by itself" in said) == (1, True)


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "")])
def test_check_shows_and_writes_what_it_knows_when_it_is_ended(
    green: Path, number: signal.Signals, word: str
) -> None:
    target = ("bad.py:HangsWithChild", "--model", "mistral", "--check", "values")
    process = start("check", *target, "--json", "part.json", folder=green)
    until((green / "child").exists, process)
    everyone = [*family(process), psutil.Process(int((green / "child").read_text()))]
    process.send_signal(number)
    said, told = process.communicate()
    assert process.returncode == 128 + number, told
    assert not survivors(everyone)
    assert f"checks hold; {word or 'ended by SIGTERM'}, " in said
    written = json.loads((green / "part.json").read_text())
    assert written["partial"] is True
    assert 0 < len(written["records"]) < written["planned"]


def test_sigterm_ends_fuzz_with_its_workers(green: Path) -> None:
    process = start("fuzz", "bad.py:HangsWithChild", "--seconds", "600", folder=green)
    until((green / "child").exists, process)
    everyone = family(process)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert not survivors(everyone)


def test_a_second_run_in_the_same_folder_ends_at_once(green: Path) -> None:
    (green / "suites" / "conftest.py").write_text(
        "import os\nif not os.path.exists('here'):\n"
        + "".join(f"    {line}\n" for line in WAITS.strip().splitlines())
    )
    first = start("run", "--no-lower", folder=green)
    try:
        until((green / "here").exists, first)
        second = start("run", folder=green)
        _, told = second.communicate()
        assert second.returncode == 2
        (line,) = told.splitlines()
        assert line.startswith(f"harness: another run (pid {first.pid}, since ")
        assert line.endswith("--out DIR")
        again = start("suites", "-n0", folder=green, module="pytest")
        said = "".join(again.communicate())
        assert again.returncode == pytest.ExitCode.USAGE_ERROR
        assert "another run (pid" in said
        assert "--harness-out DIR" in said
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()


@pytest.mark.parametrize("command", [["list"], ["kv", "gemma-3-27b", "--context", "4096"]])
def test_a_full_disk_or_a_closed_output_is_one_line(command: list[str]) -> None:
    for output, said in (("/dev/full", "No space left on device"), (None, "standard output")):
        read, write = os.pipe()
        os.close(read)
        stdout = os.open(output, os.O_WRONLY) if output else write
        done = subprocess.run(
            [sys.executable, "-m", "harness", *command],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        os.close(write)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("harness: ")
        assert said in line
