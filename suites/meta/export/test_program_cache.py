"""The cache of lowered programs: what is in a key, and what becomes of an entry."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from harness.export import sources
from harness.export.program_cache import FOLDER_VARIABLE, KEEP_DAYS, Entry, ProgramCache
from harness.run.prelower import prelower
from harness.run.registry import TargetError
from harness.subjects.executorch import lowering

# ── sources ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package whose `build` imports `graph` at its top and `late` inside a function."""
    files = {
        "__init__": "",
        "build": "import json\nfrom made.graph import f\ndef g():\n    from . import late\n",
        "graph": "f = 1\n",
        "late": "import made.deep.inner\n",
        "other": "x = 1\n",
        "deep/__init__": "",
        "deep/inner": "from ..graph import f\n",
    }
    for name, text in files.items():
        path = tmp_path / "made" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    clear = (sources.digest.cache_clear, sources.digest_folders.cache_clear)
    roots: Any = sources._root
    for forget in (*clear, roots.cache_clear):
        forget()
    yield tmp_path / "made"
    for forget in (*clear, roots.cache_clear):
        forget()


def test_a_closure_is_what_a_module_imports_of_its_package(package: Path) -> None:
    names = {"made", "made.build", "made.graph", "made.late", "made.deep", "made.deep.inner"}
    assert set(sources.closure("made.build")) == names
    assert sources.closure("made.deep.inner")["made.graph"] == package / "graph.py"
    with pytest.raises(ModuleNotFoundError, match=r"made\.absent"):
        sources.closure("made.absent")


@pytest.mark.parametrize("changed", ["build", "graph", "late", "deep/inner", "deep/__init__"])
def test_a_changed_source_is_another_digest(package: Path, changed: str) -> None:
    before = sources.digest("made.build")
    with (package / f"{changed}.py").open("a") as file:
        file.write("# changed\n")
    sources.digest.cache_clear()
    assert sources.digest("made.build") != before


def test_a_source_that_is_not_reached_or_known_by_value_changes_nothing(package: Path) -> None:
    by_value = frozenset({"made.graph"})
    before = sources.digest("made.build"), sources.digest("made.build", apart=by_value)
    (package / "other.py").write_text("x = 2\n")
    sources.digest.cache_clear()
    assert sources.digest("made.build") == before[0]
    (package / "graph.py").write_text("f = 2\n")
    sources.digest.cache_clear()
    assert sources.digest("made.build", apart=by_value) == before[1]


def test_folders_of_a_release_are_told_apart_by_content(package: Path) -> None:
    before = sources.digest_folders("made", "deep")
    (package / "other.py").write_text("x = 2\n")
    sources.digest_folders.cache_clear()
    assert sources.digest_folders("made", "deep") == before
    (package / "deep" / "new.py").write_text("")
    sources.digest_folders.cache_clear()
    assert sources.digest_folders("made", "deep") != before


def test_the_graph_s_sources_are_in_the_key_of_our_programs() -> None:
    reached = set(sources.closure("harness.subjects.own.pte"))
    assert {
        "harness.reference.decoder",
        "harness.schemes.sink.ring",
        "harness.schemes.static.model",
    } <= reached
    assert (
        not {"harness.cli.main", "harness.results.record", "harness.reference.tolerance"} & reached
    )


# ── cache ───────────────────────────────────────────────────────────────────────────────────────


class Builder:
    """Makes an entry and counts how often it is asked to."""

    def __init__(self, payload: bytes = b"line\nprogram\0") -> None:
        self.payload, self.calls = payload, 0

    def __call__(self) -> Entry:
        self.calls += 1
        return Entry(self.payload, {"planned": {"forward": 48}})


KEY = {"what": {"seed": 1}, "sources": "abc"}


def test_a_second_request_builds_nothing(tmp_path: Path) -> None:
    build = Builder()
    first = ProgramCache(tmp_path).get("tiny", KEY, build)
    second = ProgramCache(tmp_path).get("tiny", KEY, build)
    assert (first, build.calls) == (second, 1)
    assert second == Entry(b"line\nprogram\0", {"planned": {"forward": 48}})


@pytest.mark.parametrize(
    "other", [{"what": {"seed": 2}, "sources": "abc"}, {"what": {"seed": 1}, "sources": "abd"}]
)
def test_another_key_is_another_program(tmp_path: Path, other: dict[str, object]) -> None:
    build = Builder()
    ProgramCache(tmp_path).get("tiny", KEY, build)
    ProgramCache(tmp_path).get("tiny", other, build)
    assert build.calls == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:0],
        lambda data: data[:-1],
        lambda data: data[:30],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data.replace(b"48", b"49"),
        lambda data: data + b"x",
    ],
)
def test_a_damaged_entry_is_made_anew(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    build, cache = Builder(), ProgramCache(tmp_path)
    good = cache.get("tiny", KEY, build)
    path = cache.path("tiny", KEY)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert cache.get("tiny", KEY, build) == good
    assert build.calls == 2
    assert path.read_bytes() == whole


RACE = """
import sys
from pathlib import Path
from harness.run.prelower import prelower
from harness.export.program_cache import Entry, ProgramCache
payload = bytes([int(sys.argv[2])]) * 2_000_000
for _ in range(20):
    cache = ProgramCache(Path(sys.argv[1]))
    cache.path("race", {}).unlink(missing_ok=True)
    found = cache.get("race", {}, lambda: Entry(payload, {})).payload
    assert len(set(found)) == 1 and len(found) == 2_000_000, "half an entry"
"""


def test_processes_that_race_leave_a_whole_entry(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", RACE, str(tmp_path), str(i)]) for i in range(2)
    ]
    assert [racer.wait(60) for racer in racers] == [0, 0]
    assert [path.suffix for path in tmp_path.iterdir()] == [".program"]


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    build, cache = Builder(), ProgramCache(tmp_path / "file" / "folder")
    assert cache.get("tiny", KEY, build).payload == cache.get("tiny", KEY, build).payload
    assert build.calls == 2


def test_programs_that_nobody_asks_for_are_deleted(tmp_path: Path) -> None:
    build, cache = Builder(), ProgramCache(tmp_path)
    paths = []
    for seed in (1, 2):
        cache.get("tiny", {"seed": seed}, build)
        paths.append(cache.path("tiny", {"seed": seed}))
        long_ago = time.time() - (KEEP_DAYS + 1) * 86_400
        os.utime(paths[-1], (long_ago, long_ago))
    cache.get("tiny", {"seed": 2}, build)  # it was asked for, so it stays
    cache.get("tiny", {"seed": 3}, build)
    assert [path.exists() for path in paths] == [False, True]
    assert build.calls == 3


def test_the_folder_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    assert ProgramCache().folder == tmp_path / "attention-harness" / "programs"
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "here"))
    assert ProgramCache().folder == tmp_path / "here"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of programs, on disk and in this process."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(lowering, "_memory", {})
    return tmp_path


def test_a_program_is_known_by_all_that_it_depends_on(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = Builder()

    def ask(seed: int = 1) -> int:
        lowering._memory.clear()
        lowering.cached("tiny", ["harness.schemes.sink.ring"], {"seed": seed}, build)
        return build.calls

    assert [ask(), ask(), ask(seed=2), ask(seed=2), ask()] == [1, 1, 2, 2, 2]
    assert len(list(programs.iterdir())) == 2
    for name, changed in (
        ("digest", "other sources"),
        ("digest_folders", "another release"),
    ):
        with monkeypatch.context() as patch:
            before = build.calls
            patch.setattr(sources, name, Mock(return_value=changed))
            assert [ask(), ask()] == [before + 1] * 2
    with monkeypatch.context() as patch:
        before = build.calls
        patch.setattr(lowering.metadata, "version", Mock(return_value="of tomorrow"))
        assert [ask(), ask()] == [before + 1] * 2


# ── ahead of the checks ─────────────────────────────────────────────────────────────────────────

LOWERING = """
from pathlib import Path
from harness.subjects.own.caches import Static

class Lowering(Static):
    name = "lowering"

    @staticmethod
    def covers(check, case):
        return case.model.name in {"mistral", "llama3"} and check == "values"

    def lowered(self, case):
        if case.model.name == "llama3":
            raise RuntimeError("no kernel")
        with (Path(__file__).parent / case.model.name).open("a") as file:
            file.write(case.schedule.name + "\\n")

class Bare(Static):
    name = "bare"
"""


def test_programs_are_lowered_ahead_in_processes_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "lowering.py"
    path.write_text(LOWERING)
    done = sorted(
        prelower([f"{path}:Lowering", f"{path}:Bare"], workers=1), key=lambda item: item.model
    )
    assert [(item.model, item.error) for item in done] == [
        ("llama3", "RuntimeError: no kernel"),
        ("mistral", ""),
    ]
    assert "decode-3wraps" in (tmp_path / "mistral").read_text().splitlines()


def test_nothing_to_lower_starts_no_process() -> None:
    assert list(prelower(["harness.subjects.own.caches:Static"])) == []
    with pytest.raises(TargetError, match="no_such"):
        list(prelower(["harness.subjects.own.caches:no_such"]))
