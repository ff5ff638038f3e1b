"""The plugin loses no record, and counts every outcome apart."""

import psutil
import pytest
from gate_data import ENTRY, row, write_known
from plugin_runs import PREFILL_W, SELECTED, SOON, items, results, statuses, verdict
from subject_files import BAD, SUITE


def test_a_subject_with_a_suite_of_its_own_is_run_by_that_suite_alone(project, run):
    (project.path / "other.py").write_text(
        BAD.replace('name = "mine"', 'name = "mine"\n    suite = "other"')
    )
    assert run("other.py:Mine").ret == pytest.ExitCode.NO_TESTS_COLLECTED
    suite = SUITE.replace('schemes={"uniform", "full"}', 'suite="other"')
    (project.path / "suites" / "test_other.py").write_text(suite)
    done = run("other.py:Mine")
    done.assert_outcomes(passed=8)
    assert all(item.startswith("suites/test_other.py") for item in items(project))


def test_a_subject_that_cannot_run_shows_once(project, run):
    (project.path / "suites" / "test_twice.py").write_text(SUITE)
    absent = BAD.replace('name = "mine"', 'name = "mine"\n    package = "no-such-package"')
    (project.path / "absent.py").write_text(absent)
    run("absent.py:Mine", select="")
    assert list(statuses(project).values()) == ["not-installed"]


def test_each_check_is_an_item_with_a_record(project, run):
    run("bad.py:Mine", "-n0").assert_outcomes(passed=8)
    assert set(statuses(project).values()) == {"pass"}
    assert "mine-values-mistral/prefill-w/float32/b1" in statuses(project)
    record = results(project).read_records()[0]
    assert (record.subject, record.device, record.threads) == ("mine", "cpu", 1)
    assert record.reproduce.startswith("harness check bad.py:Mine --case mistral/")
    assert record.versions["torch"]
    assert not results(project).inflight.exists()
    resident = results(project).read_run().resident_peak_bytes
    assert resident is not None
    assert resident >= psutil.Process().memory_info().rss // 2  # torch is in it


def test_the_size_of_a_worker_is_in_the_run_and_in_no_record(project, run):
    run("bad.py:Mine", "-n1", select=PREFILL_W)
    assert results(project).read_run().resident_peak_bytes > 0
    assert "resident" not in results(project).records.read_text()


@pytest.mark.usefixtures("project")
def test_a_failure_is_told_without_a_traceback_of_the_harness(run):
    result = run("bad.py:Narrow", "-n0", select="visibility and " + SELECTED)
    result.assert_outcomes(failed=3, passed=1)
    result.stdout.fnmatch_lines(
        [
            "narrow visibility fail: *query 7 lost [[]0]*",
            "first bad position 7*",
            "reproduce: harness check bad.py:Narrow --case mistral/prefill-w/float32/b1 "
            "--check visibility",
        ]
    )
    result.stdout.no_fnmatch_line("*plugin.py*")
    result.stdout.no_fnmatch_line("*Traceback*")


def test_an_exception_of_a_subject_is_an_error_record(project, run):
    run("bad.py:Raises", "-n0").assert_outcomes(failed=2, passed=6)
    broken = [r for r in results(project).read_records() if r.status != "pass"]
    assert {(r.status, r.kind, r.exception) for r in broken} == {
        ("error", "raised", "RuntimeError")
    }


def test_an_exit_of_a_subject_is_an_error_record(project, run):
    run("bad.py:Quits", "-n0").assert_outcomes(failed=2, passed=6)
    broken = [r for r in results(project).read_records() if r.status != "pass"]
    assert {(r.status, r.exception) for r in broken} == {("error", "SystemExit")}


@pytest.mark.parametrize(("subject", "how"), [("Killed", "signal 9"), ("Leaves", "exit status 3")])
def test_a_worker_that_dies_in_mid_case_loses_no_record(project, run, subject, how):
    result = run(f"bad.py:{subject}", "-n1")
    result.assert_outcomes(failed=2, passed=6)
    result.stdout.fnmatch_lines(
        ["*the process died in mid-check*", "reproduce: harness check bad.py:*prefill-w/float32*"]
    )
    records = results(project).read_records()
    assert len(records) == len(results(project).read_collected()) == 8
    died = [r for r in records if r.status == "error"]
    assert {r.schedule for r in died} == {"prefill-w"}
    assert {r.kind for r in died} == {"died"}
    assert all(how in r.message for r in died)
    assert verdict(project)[1].reasons == ["2 checks broke"]


def test_a_crash_is_no_known_failure(project, run):
    folder = project.path / "suites" / "known_failures"
    text = ENTRY.replace('"ours"', '"killed"')
    write_known(folder, text, rows=[row(subject="killed", case="mistral/prefill-w/float32/b1")])
    run("bad.py:Killed", "-n1", select=PREFILL_W)
    assert list(statuses(project).values()) == ["error"]


def test_a_session_that_dies_leaves_a_red_verdict(project, run):
    run("bad.py:Killed", "-n0", runner="runpytest_subprocess")
    frame, judged = verdict(project)
    assert frame["status"].value_counts().to_dict() == {"pass": 1, "error": 1, "missing": 6}
    assert "the run did not end by itself" in judged.reasons


def test_a_hang_is_an_error(project, run):
    result = run("bad.py:Hangs", "-n0", f"--timeout={SOON}", select="values and " + SELECTED)
    result.assert_outcomes(failed=1, passed=3)
    (hung,) = [r for r in results(project).read_records() if r.status == "error"]
    assert (hung.kind, hung.message) == ("hung", f"hung: no answer within {SOON} s")
    assert hung.exception == ""


def test_a_hang_that_no_signal_ends_costs_its_worker_and_no_record(project, run):
    result = run("bad.py:Stuck", "-n1", f"--timeout={SOON}", select="values and " + SELECTED)
    result.assert_outcomes(failed=1, passed=3)
    (hung,) = [r for r in results(project).read_records() if r.status == "error"]
    assert hung.kind == "hung"
    assert f"hung: no answer within {SOON} s" in hung.message


def test_known_fixed_and_not_claimed_are_counted_apart(project, run):
    select = "visibility and " + SELECTED
    run("bad.py:Narrow", "-n0", select=select).assert_outcomes(failed=3, passed=1)
    seen = results(project).read_records()
    filed = [row("B1", "narrow", r.check, r.case, r.kind, "", r.first_bad) for r in seen]
    text = ENTRY.replace('"ours"', '"narrow"')
    write_known(project.path / "suites" / "known_failures", text, rows=filed)
    result = run("bad.py:Narrow", "-n0", select=select)
    result.assert_outcomes(failed=1, skipped=0)
    result.stdout.fnmatch_lines(["*1 failed, *3 known in*"])
    assert sorted(statuses(project).values()) == ["fixed", "known", "known", "known"]
    result = run("bad.py:Refuses", "-n1")
    result.stdout.fnmatch_lines(["*6 passed, *2 not claimed in*"])
