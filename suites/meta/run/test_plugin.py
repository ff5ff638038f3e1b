"""The plugin loses no record, counts every outcome apart, and is free where it is not used."""

import os
import subprocess
import sys
from functools import partial

import psutil
import pytest
from gate_data import ENTRY, row, write_known
from subject_files import BAD, SUITE

from harness.gate.verdict import read
from harness.results.folder import Folder
from harness.run import plan, registry

#: Eight items of window 8: prefills of 7, 8, 9 and 29 tokens, two checks each.
SELECTED = "(visibility or values) and mistral/prefill and not then and float32/b1"
PREFILL_W = "values and mistral/prefill-w/float32/b1"
#: Seconds after which a check counts as hung: checks that end take a twentieth of that.
SOON = 6


@pytest.fixture
def run(run_suites):
    """Run the suite on one subject."""
    return partial(run_suites, select=SELECTED)


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


def items(project):
    return [r.item for r in results(project).read_records()]


def results(project, out="reports/latest"):
    return Folder(project.path / out)


def statuses(project):
    return {r.item.partition("[")[2][:-1]: r.status for r in results(project).read_records()}


def verdict(project):
    path = project.path
    return read(path / "reports" / "latest", path / "baselines", path / "suites/known_failures")


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


def test_two_workers_are_the_default_and_a_choice_is_kept(project, run):
    project.makeconftest(
        "def pytest_report_header(config):\n"
        "    return f'workers {config.option.numprocesses} {config.option.dist}'\n"
    )
    result = run("bad.py:Mine", select=PREFILL_W)
    result.stdout.fnmatch_lines(["workers 2 worksteal"])
    result.assert_outcomes(passed=1)
    project.makepyfile(test_plain="def test_plain():\n    assert True\n")
    for args in (["test_plain.py"], ["suites", "--collect-only"], ["suites", "-n0"]):
        result = project.runpytest_inprocess(*args, "--subject=bad.py:Mine", "-k", "plain")
        result.stdout.no_fnmatch_line("workers 2*")


def test_without_xdist_records_are_written_all_the_same(project, run):
    run("bad.py:Mine", "-p", "no:xdist").assert_outcomes(passed=8)
    assert len(results(project).read_records()) == 8


@pytest.mark.usefixtures("project")
def test_a_bad_target_is_a_usage_error_in_one_line(run):
    result = run("bad.py:Min")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --subject: bad.py:Min: no class Min; did you mean Mine*"])


def test_a_bad_known_failure_is_a_usage_error_in_one_line(project, run):
    (project.path / "suites" / "known_failures" / "mine.toml").write_text("[B1]\n")
    result = run("bad.py:Mine")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: known failures: mine.toml, B1: subjects is missing"])


def test_a_subject_that_is_not_installed_is_one_item_and_no_pass(project, monkeypatch):
    register(project, absent="absent:Absent", broken="broken:Broken")
    project.makepyfile(absent="import no_such_package_of_theirs", broken="1 / 0")
    monkeypatch.setenv("PYTHONPATH", str(project.path), prepend=os.pathsep)
    result = project.runpytest_subprocess("suites", "-n0", "-k", "absent or broken")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*1 failed*1 not installed in*"])
    by_subject = {r.subject: r for r in results(project).read_records()}
    assert by_subject["absent"].status == "not-installed"
    assert by_subject["absent"].message == "no_such_package_of_theirs is not installed"
    assert by_subject["broken"].status == "error"
    assert "no check passed" in verdict(project)[1].reasons


def test_a_registered_subject_that_plans_nothing_is_an_error(project, monkeypatch):
    names = {"Nowhere": "plans nothing", "Uncovered": "raised LookupError: no table of cases"}
    monkeypatch.setattr(registry, "names", lambda: [f"bad.py:{name}" for name in names])
    project.runpytest_inprocess("suites", "-n0").assert_outcomes(failed=2)
    records = results(project).read_records()
    assert [(r.status, r.kind) for r in records] == [("error", "not-loaded")] * 2
    for record, told in zip(records, names.values(), strict=True):
        assert told in record.message
    assert "2 checks broke" in verdict(project)[1].reasons


@pytest.mark.parametrize("name", ["Nowhere", "Uncovered"])
@pytest.mark.usefixtures("project")
def test_a_target_that_plans_nothing_is_a_usage_error_in_one_line(run, name):
    result = run(f"bad.py:{name}", "-n0")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --subject: bad.py:{name} *covers() *"])


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--timeout=inf", "--timeout must be up to 86400 s, got inf"),
        ("--timeout=nan", "--timeout must be up to 86400 s, got nan"),
        ("--timeout=-1", "--timeout must be up to 86400 s, got -1"),
        ("--harness-out=bad.py", "--harness-out: *bad.py is not a folder"),
    ],
)
@pytest.mark.usefixtures("project")
def test_a_bad_option_is_a_usage_error_in_one_line(run, option, expected):
    result = run("bad.py:Mine", option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {expected}"])


def register(project, **subjects):
    """Make a distribution in the project's folder that registers these subjects."""
    info = project.path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    lines = "".join(f"{name} = {place}\n" for name, place in subjects.items())
    (info / "entry_points.txt").write_text(f"[harness.subjects]\n{lines}")


def test_a_failing_test_beside_the_suites_turns_the_gate_red(project, run):
    (project.path / "suites" / "test_more.py").write_text("def test_prefill_w():\n    assert 0\n")
    run("bad.py:Mine", "-n1", select=f"({PREFILL_W}) or test_more")
    assert list(statuses(project).values()) == ["pass"]
    assert verdict(project)[1].reasons == ["1 other test failed"]


def test_a_failing_fixture_of_an_item_is_an_error_record(project, run):
    project.makeconftest(
        "import pytest\n"
        "@pytest.fixture(autouse=True)\n"
        "def breaks(request):\n"
        "    yield\n"
        "    assert 'prefill-w/' not in request.node.name, 'left a mess'\n"
    )
    run("bad.py:Mine", "-n0", select=PREFILL_W)
    assert "1 check broke" in verdict(project)[1].reasons


def test_only_a_run_of_everything_is_whole(project, monkeypatch):
    monkeypatch.setattr(registry, "names", lambda: ["bad.py:Mine"])
    monkeypatch.setattr(plan, "TINY", {"mistral-w1": plan.TINY["mistral-w1"]})
    assert whole(project, "suites") is True
    assert whole(project, "suites/test_suite.py") is True
    assert whole(project, "suites", "-k", "prefill-w") is False
    assert whole(project, "suites", "--subject=bad.py:Mine") is False
    (project.path / "suites" / "test_other.py").write_text(SUITE)
    assert whole(project, "suites/test_suite.py") is False
    assert whole(project, "suites", "--ignore=suites/test_other.py") is False
    assert whole(project, "suites") is True


def whole(project, *args):
    """Whether a run with these arguments records itself as whole."""
    project.runpytest_inprocess(*args, "-n0", "-x", "-q")
    return results(project).read_run().whole


def test_a_collection_alone_leaves_the_results_of_the_last_run(project, run):
    run("bad.py:Mine", "-n0", select=PREFILL_W)
    before = results(project).read_records()
    run("bad.py:Mine", "--collect-only")
    assert results(project).read_records() == before


def test_another_project_s_subject_is_its_own(pytester):
    pytester.makeconftest(
        "def pytest_addoption(parser):\n    parser.addoption('--subject', help='of a mail')\n"
    )
    pytester.makepyfile(
        "def test_theirs(pytestconfig):\n"
        "    assert pytestconfig.getoption('--subject') == 'hello'\n"
        "    assert pytestconfig.getoption('harness_subjects') == []\n"
    )
    result = pytester.runpytest_subprocess("--subject", "hello")
    result.assert_outcomes(passed=1)


def test_without_suites_of_its_own_a_project_names_subjects_at_length(pytester):
    pytester.makepyfile(bad=BAD, test_own=SUITE)
    select = ("-k", PREFILL_W, "-n0", "-p", "no:cacheprovider")
    result = pytester.runpytest_subprocess("--harness-subject=bad.py:Mine", *select)
    result.assert_outcomes(passed=1)
    assert len(Folder(pytester.path / "reports" / "latest").read_records()) == 1
    result = pytester.runpytest_subprocess("--subject=bad.py:Mine", *select)
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_plain_tests_write_nothing_and_import_nothing_heavy(pytester):
    pytester.makepyfile(
        "import sys\n"
        "def test_light():\n"
        "    assert not {'torch', 'pandas', 'rich', 'typer', 'packaging.specifiers'} "
        "& set(sys.modules)\n"
    )
    # Other installed plugins may import what they like; this one must not.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "harness.run.plugin"]
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        command, cwd=pytester.path, env=env, capture_output=True, text=True, check=False
    )
    assert "1 passed" in done.stdout
    assert not (pytester.path / "reports").exists()
