"""`harness baseline update` and `harness run`: red until it is taken over by a person."""

import pytest
from cli_calls import ONE, one_line
from gate_data import CASE, ENTRY, checkout, record, results, row, write_known

from harness.results.folder import RunInfo


def red_until_updated(harness, drift):
    """The gate is red and names the drift; after an update it is green."""
    status, out, _ = harness("gate")
    assert status == 1
    assert drift in out
    assert harness("baseline", "update")[0] == 0
    assert harness("gate")[0] == 0


def test_drift_is_red_until_the_baseline_is_updated(harness, tmp_path):
    results(tmp_path, record(cache_bytes=10))
    status, out, _ = harness("gate")
    assert status == 0
    assert "1 without a baseline" in out
    assert "1 rows added" in harness("baseline", "update")[1]
    results(tmp_path, record(cache_bytes=9))
    red_until_updated(harness, "cache_bytes 10 -> 9 (-1)")


def test_a_claim_that_drifts_is_red_until_the_baseline_is_updated(harness, tmp_path):
    whole = RunInfo("r1", whole=True, exit_status=0)
    two = [record(), record(check="reset", item="reset")]
    results(tmp_path, *two, run=whole)
    assert "2 counts of claims changed" in harness("baseline", "update")[1]
    two[1].status = "not-claimed"
    results(tmp_path, *two, run=whole)
    red_until_updated(harness, "drift: ours reset: claims 0 of 1 cases, the baseline 1 (-1)")


def test_an_update_from_a_broken_run_is_refused(harness, tmp_path):
    results(tmp_path, record(cache_bytes=10, status="fail"))
    status, out, _ = harness("baseline", "update")
    assert status == 1
    assert "refused, fail: ours values" in out
    assert not list((tmp_path / "reports" / "baselines").glob("*.csv"))


def test_the_gate_without_records_is_misuse(harness, tmp_path):
    checkout(tmp_path)
    status, _, err = harness("gate")
    assert status == 2
    assert "no records" in one_line(err)


def test_the_gate_names_a_wrong_known_failure(harness, tmp_path):
    results(tmp_path, record())
    write_known(tmp_path / "suites" / "known_failures", ENTRY.replace("https", "see https"))
    status, _, err = harness("gate")
    assert status == 2
    assert "ours.toml, B1: link must be a URL" in one_line(err)


def test_a_known_failure_that_moved_is_red_until_the_update(harness, tmp_path):
    folder = tmp_path / "suites" / "known_failures"
    results(tmp_path, record(status="fail", first_bad=12, cache_bytes=10))
    write_known(folder, rows=[row(first_bad=9)])
    status, out, _ = harness("baseline", "update")
    assert (status, "1 cases of known failures moved, 0 dropped" in out) == (0, True)
    assert "1 rows added" in out
    assert row(first_bad=12) in (folder / "ours.csv").read_text(encoding="utf-8")


def test_a_new_failure_is_filed_under_a_cause_by_a_person_alone(harness, tmp_path):
    folder = tmp_path / "suites" / "known_failures"
    case = "mistral/prefill-w/float32/b1"
    new, died = record(status="fail", case=case), record(status="error", item="x")
    results(tmp_path, new, died)
    write_known(folder, rows=[])
    harness("baseline", "update")
    assert not (folder / "ours.csv").exists()
    status, out, _ = harness("baseline", "update", "--cause", "B1", "--case", "*/prefill-w/*")
    assert (status, "1 cases filed under B1" in out) == (0, True)
    assert row(case=case) in (folder / "ours.csv").read_text(encoding="utf-8")
    status, out, _ = harness("baseline", "update", "--cause", "B1", "--subject", "ours")
    assert status == 1
    assert f"refused, never a known failure (crash, hang or no memory): ours values {CASE}" in out
    assert CASE not in (folder / "ours.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cause", "B11"], "--cause: no cause is named 'B11'; did you mean 'B1'?"),
        (["--cause", ""], "--cause: no cause is named ''; causes: B1"),
        (["--cause", "B1", "--check", "reset"], "--check: B1 does not list 'reset'"),
        (["--subject", "ours"], "--subject needs --cause, the known failure to file under"),
        (["--case", "*"], "--case needs --cause, the known failure to file under"),
    ],
)
def test_what_cannot_be_filed_is_misuse(harness, tmp_path, options, said):
    results(tmp_path, record(status="fail"))
    write_known(tmp_path / "suites" / "known_failures")
    status, _, err = harness("baseline", "update", *options)
    assert (status, said in one_line(err)) == (2, True)


def test_a_run_needs_suites(harness):
    status, _, err = harness("run")
    assert status == 2
    assert "no suites/test_*.py here" in one_line(err)


def suite(tmp_path):
    """A checkout with one suite."""
    checkout(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nharness_suites = suites\n")
    (tmp_path / "suites" / "test_suite.py").write_text(
        "import pytest\n\n\n"
        '@pytest.mark.conformance(schemes={"uniform"})\n'
        "def test_suite(conformance):\n"
        "    conformance()\n"
    )


def test_a_run_goes_from_suites_to_verdict_and_report(harness, tmp_path):
    suite(tmp_path)
    select = "mistral/prefill-w/float32/b1 and (values or visibility)"
    args = ("--subject=bad.py:Mine", "-k", select, "-n0")
    status, out, _ = harness("run", *args)
    assert status == 0
    assert "Green for a part: 2 checks hold; the run was not whole" in out
    assert (tmp_path / "reports" / "latest" / "index.html").is_file()
    status, said, err = harness("run", "--subject=bad.py:Mine", "-k", "nothing", "-n0")
    assert "-k 'nothing' matches no check: it selects by parts of an id" in said
    assert (status, "selected nothing" in err) == (2, True)
    assert "Red: pytest selected no test" in harness("gate")[1].replace("no check passed; ", "")
    assert harness("run", "--subject=bad.py:Narrow", *args[1:])[0] == 1


def test_a_run_of_everything_must_be_whole(harness, tmp_path, monkeypatch):
    suite(tmp_path)
    monkeypatch.setenv("PYTEST_ADDOPTS", f"--subject=bad.py:Mine -n0 -k 'values and {ONE[1]}'")
    status, out, _ = harness("run", "--no-lower")
    assert status == 1
    assert "Red: the run was not whole" in out
