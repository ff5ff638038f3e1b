"""`harness gate`: what CI reads, what is red, and what it refuses."""

import json

import pytest
from cli_calls import one_line
from gate_data import CASE, record, results

from harness.results.folder import RunInfo


def test_a_part_is_green_for_a_part_and_red_where_the_whole_is_asked_for(harness, tmp_path):
    results(tmp_path, record())
    status, out, _ = harness("gate")
    assert (status, "Green for a part: 1 check holds" in out) == (0, True)
    status, out, _ = harness("gate", "--whole")
    assert (status, "Red: the run was not whole" in out) == (1, True)
    results(tmp_path, record(), run=RunInfo("r1", whole=True, exit_status=0))
    assert harness("gate", "--whole")[0] == 0


def test_records_of_another_run_are_red_and_no_baseline(harness, tmp_path):
    results(tmp_path, record(run="r0", cache_bytes=1))
    status, out, _ = harness("gate")
    assert (status, "Red: 1 record is from another run" in out) == (1, True)
    status, _, err = harness("baseline", "update")
    assert status == 2
    assert "1 record is from another run" in one_line(err)
    assert not list((tmp_path / "reports" / "baselines").iterdir())


@pytest.mark.parametrize("command", [["gate"], ["report"], ["baseline", "update"]])
@pytest.mark.parametrize(
    "place",
    ["latest/records.jsonl", "latest/collected.json", "latest/run.json", "baselines/uniform.csv"],
)
def test_a_file_that_cannot_be_read_is_misuse(harness, tmp_path, command, place):
    results(tmp_path, record())
    path = tmp_path / "reports" / place
    path.unlink(missing_ok=True)
    path.mkdir()
    status, _, err = harness(*command)
    assert status == 2
    assert f"{path.name} cannot be read: Is a directory" in one_line(err)
    path.rmdir()
    path.write_bytes(b"\xff\xfe")
    assert f"{path.name} is not UTF-8" in one_line(harness(*command)[2])


@pytest.mark.parametrize("name", ["summary.md", "comment.md", "verdict.json", "junit.xml"])
def test_a_file_that_cannot_be_written_is_misuse(harness, tmp_path, name):
    (results(tmp_path, record()) / name).mkdir()
    status, _, err = harness("gate")
    assert status == 2
    assert f"{name}: Is a directory" in one_line(err)


def test_the_gate_writes_what_ci_reads_and_exits_by_the_verdict(harness, tmp_path):
    out = results(tmp_path, record())
    assert harness("gate")[0] == 0
    assert (out / "summary.md").read_text().startswith("# Attention conformance: Green")
    assert (out / "comment.md").read_text().startswith("<!-- attention-harness: conformance -->")
    results(tmp_path, record(status="fail"))
    status, said, _ = harness("gate")
    assert status == 1
    assert "Red: 1 check fails" in said
    assert json.loads((out / "verdict.json").read_text())["red"] is True
    assert "<failure" in (out / "junit.xml").read_text()


def test_the_gate_names_the_first_ten_broken_checks_and_how_to_repeat_them(harness, tmp_path):
    same = [
        record(item=f"v{i}", case=f"mistral/s{i}/float32/b1", status="fail", first_bad=9)
        for i in range(12)
    ]
    died = record(item="d", check="reset", status="error", message="died:\n signal 9")
    results(tmp_path, *same, died)
    lines = harness("gate")[1].splitlines()
    broken = [line for line in lines if line.startswith(("  fail: ", "  error: "))]
    assert len(broken) == 10
    assert broken[0].startswith("  fail: ours values mistral/s0/float32/b1, first bad position 9: ")
    assert broken[1] == f"  error: ours reset {CASE}: died: signal 9"
    assert lines[lines.index(broken[1]) + 1] == f"    {died.reproduce}"
    assert "  and 3 more broken checks" in lines


def test_an_empty_folder_of_baselines_is_never_silent(harness, tmp_path):
    """A whole run that has integers must be compared with something; other runs only say so."""
    whole = RunInfo("r1", whole=True, exit_status=0)
    out = results(tmp_path, record(), run=whole)
    status, said, _ = harness("gate")
    assert (status, "no baselines: no integer was compared" in said) == (0, True)
    results(tmp_path, record(cache_bytes=1))
    assert harness("gate")[0] == 0
    results(tmp_path, record(cache_bytes=1), run=whole)
    assert harness("report")[0] == 0
    status, said, _ = harness("gate")
    assert status == 1
    assert "Red: there are no baselines: no integer was compared" in said
    for name in ("summary.md", "comment.md", "index.html"):
        assert "There are no baselines: no integer was compared." in (out / name).read_text("utf-8")
    assert harness("baseline", "update")[0] == 0
    status, said, _ = harness("gate")
    assert (status, "no baselines" in said) == (0, False)


def test_the_gate_can_require_a_subject(harness, tmp_path):
    results(tmp_path, record())
    assert harness("gate", "--require", "ours")[0] == 0
    status, out, _ = harness("gate", "--require", "ours", "--require", "theirs")
    assert status == 1
    assert "required subject theirs did not run" in out
