"""Shards that are put together give the verdict of one run; what is missing of them is red."""

import json

import pytest
from subject_files import GOOD

from harness.gate.verdict import read
from harness.results.folder import Folder
from harness.results.merge import MergeError, merge

SELECTED = "mistral/ and (prefill or reset) and float32 and b1"
SHARDS = 4


@pytest.fixture
def run(project, run_suites):
    """Runs the suite on a subject that keeps too many bytes; returns the folder of results."""

    def run(out, *args, select=SELECTED):
        run_suites("mine.py:Mine", "-n0", f"--harness-out={out}", *args, select=select)
        return project.path / out

    return run


@pytest.fixture
def shards(run):
    return [run(f"shard{k}", f"--splits={SHARDS}", f"--group={k}") for k in range(1, SHARDS + 1)]


def verdict(project, out):
    frame, found = read(out, project.path / "baselines", project.path / "suites/known_failures")
    columns = ["item", "subject", "check", "case", "status", "first_bad", "figure", "bound"]
    rows = frame[columns].sort_values("item").astype(str)  # as text: NaN equals nothing
    return rows.to_dict("records"), found


def test_four_shards_give_the_table_and_the_verdict_of_one_run(project, run, shards):
    merged = merge(shards, project.path / "merged")
    table, found = verdict(project, project.path / "merged")
    one_table, one = verdict(project, run("one"))
    assert not merged.absent
    assert len(table) > SHARDS
    assert table == one_table
    assert found.counts == one.counts
    assert found.reasons == one.reasons
    assert sorted(found.broken["item"]) == sorted(one.broken["item"])


def test_a_shard_that_is_left_out_is_red_and_its_checks_missing(project, shards):
    merged = merge(shards[:2] + shards[3:], project.path / "merged")
    _, found = verdict(project, project.path / "merged")
    left_out = Folder(shards[2]).read_collected()
    assert merged.absent == ["3/4"]
    assert found.counts["missing"] == len(left_out) > 0
    assert f"{len(left_out)} records are missing" in found.headline


def test_a_record_that_a_shard_lost_is_missing(project, shards):
    lines = Folder(shards[0]).records.read_text().splitlines(keepends=True)
    Folder(shards[0]).records.write_text("".join(lines[1:]))
    merge(shards, project.path / "merged")
    _, found = verdict(project, project.path / "merged")
    assert found.counts["missing"] == 1


def test_a_shard_by_itself_is_not_whole(shards):
    info = Folder(shards[0]).read_run()
    assert (info.shard, info.whole) == ("1/4", False)


def test_a_shard_that_did_not_end_keeps_the_merged_run_red(project, shards):
    path = Folder(shards[1]).run
    path.write_text(json.dumps(json.loads(path.read_text()) | {"exit_status": None}))
    merge(shards, project.path / "merged")
    _, found = verdict(project, project.path / "merged")
    assert "the run did not end by itself" in found.reasons


def test_a_subject_that_ran_in_one_part_is_not_also_absent(project, run):
    absent = GOOD.replace('name = "mine"', 'name = "mine"\n    package = "no-such-package"')
    (project.path / "absent.py").write_text(absent)
    ran = run("ran")
    project.runpytest_inprocess(
        "suites", "--subject=absent.py:Mine", "-n0", f"--harness-out={project.path / 'not'}"
    )
    lines = (project.path / "not" / "records.jsonl").read_text()
    assert "not-installed" in lines
    for name in ("records.jsonl", "collected.json"):  # as if the package were not installed
        text = (project.path / "not" / name).read_text()
        (project.path / "not" / name).write_text(text.replace("absent.py:Mine", "mine"))
    merge([ran, project.path / "not"], project.path / "merged")
    _, found = verdict(project, project.path / "merged")
    assert not found.not_installed
    assert "missing" not in found.counts


@pytest.mark.parametrize(
    ("pick", "expected"),
    [
        (lambda s: [s[0], s[0]], "one folder is named twice"),
        (lambda s: [s[0], s[1], s[4]], "are both shard 2"),
        (lambda s: [s[0], s[5]], "one of 2 shards"),
        (lambda s: [s[0], s[6]], "different matrices"),
    ],
)
def test_parts_that_do_not_fit_are_refused(project, run, shards, pick, expected):
    again = run("again", f"--splits={SHARDS}", "--group=2")
    two = run("two", "--splits=2", "--group=2")
    other = run("other", f"--splits={SHARDS}", "--group=2", select=f"{SELECTED} and values")
    with pytest.raises(MergeError, match=expected):
        merge(pick([*shards, again, two, other]), project.path / "merged")
    assert not (project.path / "merged").exists()
