"""The plugin's options, what a run of everything is, and projects that are not ours."""

import os
import subprocess
import sys

import pytest
from plugin_runs import PREFILL_W, results, statuses, verdict
from subject_files import BAD, SUITE

from harness.results.folder import Folder
from harness.run import plan, registry


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
