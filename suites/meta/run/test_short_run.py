"""The suites run what the short matrix lists; --all runs the plan; a lost case is never silent."""

from __future__ import annotations

from functools import partial

import pytest

from harness.gate.short import Short, write
from harness.results.folder import ALL, SHORT, Folder
from harness.run import registry

SELECT = "values and mistral/prefill and not then and float32/b1"
LISTED = ("values", "mistral/prefill-w/float32/b1")


@pytest.fixture
def run(project, monkeypatch):
    """Run values of four prefills of one registered subject, of which the list holds one."""
    write(Short({"mine": {LISTED: "scheme uniform"}}), project.path / "suites")
    monkeypatch.setattr(registry, "names", lambda: ["mine.py:Mine"])
    return partial(project.runpytest_inprocess, "suites", "-n0", "-q", "-k", SELECT)


def info(project):
    return Folder(project.path / "reports" / "latest").read_run()


def cases(project):
    folder = Folder(project.path / "reports" / "latest")
    return [(r.check, r.case) for r in folder.read_records()]


def test_what_is_listed_runs_and_all_runs_everything(project, run):
    run().assert_outcomes(passed=1)
    assert cases(project) == [LISTED]
    assert info(project).matrix == SHORT
    for option in ("--all", "--harness-all"):
        run(option).assert_outcomes(passed=4)
        assert info(project).matrix == ALL


def test_without_a_list_or_without_a_row_everything_runs(project, run):
    write(Short({"other": {LISTED: ""}}), project.path / "suites")
    run().assert_outcomes(passed=4)
    (project.path / "suites" / "short.csv").unlink()
    run().assert_outcomes(passed=4)
    assert info(project).matrix == ALL


def test_a_whole_run_of_the_list_is_whole(project, monkeypatch):
    write(Short({"mine": {LISTED: ""}}), project.path / "suites")
    monkeypatch.setattr(registry, "names", lambda: ["mine.py:Mine"])
    project.runpytest_inprocess("suites", "-n0", "-q").assert_outcomes(passed=1)
    assert info(project).whole
    assert info(project).matrix == SHORT


def test_a_listed_case_that_is_not_planned_is_an_error(project, monkeypatch):
    gone = ("values", "no-such/prefill-w/float32/b1")
    write(Short({"mine": {LISTED: "", gone: ""}}), project.path / "suites")
    monkeypatch.setattr(registry, "names", lambda: ["mine.py:Mine"])
    done = project.runpytest_inprocess("suites", "-n0", "-q")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*short.csv lists what is not planned: values no-such/*"])
    assert [check for check, _ in cases(project)] == ["values", "load"]


def test_a_wrong_list_is_a_usage_error_in_one_line(project, run):
    (project.path / "suites" / "short.csv").write_text("subject\n")
    done = run()
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: short matrix: short.csv: the header must read subject,*"])


def test_who_names_a_subject_gets_all_that_is_planned_for_it(project, run):
    run("--subject=mine.py:Mine").assert_outcomes(passed=4)
    assert info(project).matrix == ALL


@pytest.mark.usefixtures("run")
def test_a_selection_that_the_list_leaves_out_is_told(project):
    unlisted = ["suites", "-n0", "-k", "purity and mistral/chunk-w+1/float32/b3"]
    done = project.runpytest_inprocess(*unlisted)
    assert done.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    done.stdout.fnmatch_lines(
        ["*this was the short matrix, and --harness-all takes the whole plan"]
    )
    project.runpytest_inprocess(*unlisted, "--all").assert_outcomes(passed=1)
