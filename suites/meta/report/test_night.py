"""A night with one regression of each kind: page and summary say it before anything else."""

import re

import pytest
from gate_data import entries, planned, record, row, write_known

from harness.gate.baselines import Baselines, key_of
from harness.gate.verdict import judge, read
from harness.report import html, summary
from harness.results.folder import Folder, RunInfo
from harness.results.merge import merge
from harness.results.record import to_frame
from harness.results.recorder import Recorder, announce

CASE = "mistral/chunk-w/float32/b1"
LOST = "mistral/chunk-w-1/float32/b1"
SOUND = [record(item=f"ok{i}", case=f"mistral/s{i}/float32/b1") for i in range(5)]


def told(frame, verdict, folder):
    """The page up to its first table, and the summary up to the matrix, as text."""
    page = html.build(frame, verdict, folder / "index.html").read_text(encoding="utf-8")
    first = page[page.index("<h1") : page.index('class="bar"')]
    text = summary.to_markdown(frame, verdict)
    return " ".join(re.sub(r"<[^>]*>", " ", first).split()), text.partition("## Matrix")[0]


def night(records, folder, *, rows=None, known=(), run=None):
    frame = to_frame(records)
    baselines = Baselines({"uniform": rows} if rows else None)
    info = run or RunInfo(run="r1", whole=True, exit_status=1)
    return told(frame, judge(frame, baselines, known, info), folder)


@pytest.mark.parametrize("check", ["values", "visibility"])
def test_a_wrong_answer(tmp_path, check):
    bad = record(item="bad", case=CASE, check=check, status="fail", message="off", first_bad=9)
    page, text = night([*SOUND, bad], tmp_path)
    for said in (page, text):
        assert "1 check fails" in said
        assert check in said
    assert page.startswith("Red")
    assert "first bad position 9" in page
    assert CASE in text


@pytest.mark.parametrize("now", [4_095, 4_097])
def test_bytes_that_moved_either_way(tmp_path, now):
    was = record(item="bytes", case=CASE, check="cache_bytes", cache_bytes=4_096)
    moved = record(item="bytes", case=CASE, check="cache_bytes", cache_bytes=now)
    page, text = night([*SOUND, moved], tmp_path, rows={key_of(was): {"cache_bytes": 4_096}})
    for said in (page, text):
        assert "1 integer drifted" in said
    assert f"ours cache_bytes 4,096 → {now:,} ({now - 4_096:+}), 1 case" in page
    assert f"{now:,}" in text or str(now) in text


def test_a_known_failure_that_passes_and_one_that_matches_nothing(tmp_path):
    (tmp_path / "known").mkdir()
    fixed = record(item="fixed", case=CASE, status="fixed", known="B1", message="B1 passes")
    stale = entries(tmp_path / "known", rows=[row(case="nowhere/chunk-4/float32/b1")])
    page, text = night([*SOUND, fixed], tmp_path, known=stale)
    for said in (page, text):
        assert "1 known failure passes" in said
        assert "1 known failure is stale" in said
    assert "ours B1 matches nothing that ran" in page
    assert "ours.toml, B1: did not run: ours values nowhere/chunk-4/float32/b1" in text
    assert "ours values 1 case: B1 passes" in page


def shard(folder, number, items, everything, *, killed=""):
    """One of two shards, with records of its items.  killed: the item in which a worker died."""
    place, run = Folder(folder / f"shard{number}"), f"run{number}"
    cases = {i: CASE if i in items else LOST for i in everything}
    called = [planned(i, case=CASE) for i in items]
    whole = [planned(i, case=cases[i]) for i in everything]
    announce(place, run, called, whole=True, shard=f"{number}/2", planned=whole)
    recorder = Recorder(place, run, [])
    recorder.begin()
    for item in items:
        done = record(run=run, item=item, case=CASE)
        if item == killed:
            place.checkpoint("gw0", record(run=run, item=item, case=CASE, status="error"))
            crashed = recorder.crashed(item, "gw0", 60, "signal 9, SIGKILL")
            assert crashed is not None
            done = crashed
        recorder.record(done)
    recorder.end(1 if killed else 0)
    return place.path


def merged(parts, folder, lost=""):
    """Page and summary of the merged parts.  lost: a case filed under a known failure."""
    (folder / "known").mkdir()
    if lost:
        write_known(folder / "known", rows=[row(case=lost)])
    merge(parts, folder / "merged")
    return told(*read(folder / "merged", folder / "none", folder / "known"), folder)


def test_a_worker_that_was_killed(tmp_path):
    parts = [
        shard(tmp_path, 1, ["a", "b"], ["a", "b", "c"], killed="b"),
        shard(tmp_path, 2, ["c"], ["a", "b", "c"]),
    ]
    page, text = merged(parts, tmp_path)
    for said in (page, text):
        assert "1 check broke" in said
        assert "signal 9" in said


def test_a_shard_that_never_came_back(tmp_path):
    """Its known failures are not stale merely because the shard is missing."""
    parts = [shard(tmp_path, 1, ["a", "b"], ["a", "b", "c", "d"])]
    page, text = merged(parts, tmp_path, LOST)
    for said in (page, text):
        assert "2 records are missing" in said
        assert "shard 2/2 did not come back" in said
        assert "stale" not in said.replace("0 stale", "")
