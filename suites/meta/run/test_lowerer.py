"""Programs are lowered in a process that does nothing else, and only when they are missing."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cases.case import parse
from harness.run import lowerer, registry
from harness.run.target import Target

#: Its program holds the id of the process that made it.
LOWERING = """
import os
from harness.export.program_cache import Entry, ProgramCache
from harness.subjects.own.caches import Static


class Lowering(Static):
    name = "lowering"

    def lowered(self, case):
        def make():
            print("not an answer")
            return Entry(str(os.getpid()).encode(), {})

        return ProgramCache().get("tested", {"case": case.id}, make)


class Raises(Lowering):
    name = "raises"

    def lowered(self, case):
        raise RuntimeError("no kernel")


class Bare(Static):
    name = "bare"
"""
CASE = parse("mistral/chunk-4/float32/b1")


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    lowerer._here.cache_clear()  # the folder of the cache is that of its environment
    path = tmp_path / "lowering.py"
    path.write_text(LOWERING)
    return lambda name: registry.load(f"{path}:{name}")


def maker(target: Target, case: object) -> int:
    return int(target.subject().lowered(case).payload)


def test_another_process_lowers_and_the_same_one_all_programs(load) -> None:
    target = load("Lowering")
    other = parse("mistral/chunk-w/float32/b1")
    for case in (CASE, other):
        lowerer.prepare(target, case)
    made = {maker(target, CASE), maker(target, other)}
    assert len(made) == 1
    assert os.getpid() not in made


def test_what_is_there_starts_no_process(load, monkeypatch) -> None:
    target = load("Lowering")
    assert maker(target, CASE) == os.getpid()

    def none() -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(lowerer, "_here", none)
    lowerer.prepare(target, CASE)
    lowerer.prepare(load("Bare"), CASE)


def test_what_raises_and_a_process_that_died_cost_nothing_but_time(load) -> None:
    lowerer.prepare(load("Raises"), CASE)
    here = lowerer._here()
    here._child.kill()
    here._child.wait()
    target = load("Lowering")
    lowerer.prepare(target, CASE)
    assert maker(target, CASE) == os.getpid()


def test_it_ends_with_its_input() -> None:
    command = [sys.executable, "-m", "harness.run.lowerer"]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_each_line_gets_one_answer_whatever_it_says(load) -> None:
    target = load("Lowering")
    out = io.StringIO()
    lowerer.serve(io.StringIO(f"{target.target}\t{CASE.id}\nnonsense\n\tx\n"), out)
    assert out.getvalue() == "\n" * 3
    assert maker(target, CASE) == os.getpid()
