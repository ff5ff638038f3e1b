"""A verdict is of its run: id, time, commit and branch stand on top of whatever tells it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from gate_data import planned, record, results

from harness.results import origin
from harness.results.folder import Folder, RunInfo
from harness.results.merge import merge
from harness.results.recorder import Recorder, announce

COMMIT = "1a2b3c4d5e6f7a8b9c0d" * 2
INFO = RunInfo(
    "20261124T030000-0004",
    exit_status=0,
    began="2026-11-24T03:00:05+01:00",
    commit=COMMIT,
    branch="main",
)
SAID = "run 20261124T030000-0004, 24 Nov 2026 03:00 UTC+01:00, commit 1a2b3c4d5e6f on main"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one commit, in which a run may begin."""
    for name in origin._CI_BRANCH:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
    place = tmp_path / "checkout"
    place.mkdir()
    monkeypatch.chdir(place)
    (place / "a.txt").write_text("one")
    who = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    for args in (("init", "-q", "-b", "topic"), ("add", "a.txt"), (*who, "commit", "-qm", "m")):
        subprocess.run(["git", *args], check=True)
    return place


def begun(folder: Path) -> RunInfo:
    """What run.json says of a run that began now."""
    announce(Folder(folder), "r1", [planned("a")], whole=False)
    Recorder(Folder(folder), "r1", []).begin()
    return Folder(folder).read_run()


def test_a_run_notes_commit_branch_and_time_as_it_begins(checkout, tmp_path):
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    info = begun(tmp_path / "out")
    assert (info.commit, info.branch, info.changed) == (head.stdout.strip(), "topic", False)
    assert origin.began_at(info)
    (checkout / "a.txt").write_text("two")
    assert begun(tmp_path / "later").changed


def test_a_commit_without_a_branch_takes_the_name_that_ci_gives_it(checkout, tmp_path, monkeypatch):
    subprocess.run(["git", "checkout", "-q", "--detach"], check=True, cwd=checkout)
    assert begun(tmp_path / "out").branch == ""
    monkeypatch.setenv("GITHUB_REF_NAME", "release")
    assert begun(tmp_path / "later").branch == "release"


@pytest.mark.parametrize("path", ["/nowhere", None])
def test_without_git_or_a_repository_a_run_begins_all_the_same(tmp_path, monkeypatch, path):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    if path:
        monkeypatch.setenv("PATH", path)
    info = begun(tmp_path / "out")
    assert (info.commit, info.branch, info.changed) == ("", "", False)
    assert "commit" not in origin.said(info)


def test_everything_that_tells_a_verdict_says_of_which_run(run_harness, tmp_path):
    out = results(tmp_path, record(run=INFO.run, status="fail"), run=INFO)
    _, said, _ = run_harness("gate")
    assert said.startswith(f"{SAID}\n")
    run_harness("report")
    for name in ("summary.md", "comment.md"):
        assert SAID in (out / name).read_text("utf-8").partition("1 check fails")[0]
    page = (out / "index.html").read_text("utf-8")
    assert page.index("<h1") < page.index(SAID) < page.index("1 check fails")
    told = json.loads((out / "verdict.json").read_text("utf-8"))
    assert list(told)[:6] == ["run", "matrix", "began", "commit", "branch", "changed"]
    assert [told["run"], told["commit"], told["branch"]] == [INFO.run, COMMIT, "main"]
    assert SAID in (out / "junit.xml").read_text("utf-8")


def test_a_merged_run_is_of_the_commits_of_its_parts(tmp_path):
    parts = []
    for name, commit in (("a", COMMIT), ("b", COMMIT), ("c", "f" * 40)):
        info = RunInfo(name, exit_status=0, began=f"2026-11-24T03:0{len(parts)}:00", commit=commit)
        folder = tmp_path / name
        results(folder, record(run=name, item=name), run=info)
        parts.append(folder / "reports" / "latest")
    info = merge(parts, tmp_path / "merged").info
    assert info.commit == f"{COMMIT}, {'f' * 40}"
    assert info.began == "2026-11-24T03:00:00"
    assert "commit 1a2b3c4d5e6f, ffffffffffff" in origin.said(info)


@pytest.mark.parametrize(
    ("run", "now", "text"),
    [
        ("20261124T030000-0004", "20261126T030000-0006", "24 Nov (run 0004, 2 runs)"),
        ("20251124T030000-0004", "20261126T030000-0006", "24 Nov 2025 (run 0004, 2 runs)"),
        ("nightly", "20261126T030000-0006", "nightly (2 runs)"),
        ("20269924T030000-0004", "x", "20269924T030000-0004 (2 runs)"),
    ],
)
def test_since_when_is_a_day_and_a_short_name(run, now, text):
    assert origin.since(run, 2, now) == text


def test_the_time_of_an_older_run_is_in_its_id():
    assert origin.said(RunInfo("20261124T030000-0004")).endswith(", 24 Nov 2026 03:00")
    assert origin.said(RunInfo("")) == "run without an id"
