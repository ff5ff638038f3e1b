"""The command survives whatever it is pointed at, and its exit status says how that went."""

import json
import re
import subprocess
import sys

import pytest
from gate_data import CASE, ENTRY, checkout, record, results, row, write_known
from subject_files import BAD

from harness import __version__
from harness.results.folder import RunInfo
from harness.run.parent import PATIENCE

ONE = ("--case", "mistral/prefill-w/float32/b1")
#: Seconds after which a check counts as hung: checks that end take a twentieth of that.
SOON = "6"


@pytest.fixture
def harness(run_harness, tmp_path):
    """Run the command in a folder with a file of subjects: (exit status, stdout, stderr)."""
    (tmp_path / "bad.py").write_text(BAD)
    return run_harness


def one_line(err):
    # On a slow machine a line of progress may come first; it is not part of the message.
    progress = r"\S+: \d+/\d+(, about \d+ s left)?"
    lines = [x for x in err.strip().splitlines() if not re.fullmatch(progress, x)]
    err = "\n".join(lines)
    assert len(lines) == 1
    assert err.startswith("harness: ")
    return err


def test_a_subject_of_which_every_check_holds(harness):
    status, out, _ = harness("check", "bad.py:Mine", *ONE)
    assert status == 0
    assert "mine: all 2 checks hold" in out


def test_a_broken_check_is_named_with_all_that_is_needed(harness, tmp_path):
    status, out, _ = harness("check", "bad.py:Narrow", *ONE, "--json", "out.json")
    assert status == 1
    broken = [line.split() for line in out.splitlines() if line.startswith("visibility  mistral")]
    check, case, word, first_bad, *_ = broken[0]
    assert (check, case, word) == ("visibility", ONE[1], "fails")
    assert first_bad == "7"
    assert f"harness check bad.py:Narrow --case {ONE[1]} --check visibility" in out
    data = json.loads((tmp_path / "out.json").read_text())
    assert data["subject"] == "narrow"
    assert [r["status"] for r in data["records"]] == ["fail", "fail"]


def test_check_writes_junit_and_a_page_for_ci(harness, tmp_path):
    files = ("--junit", "out.xml", "--html", "out.html")
    assert harness("check", "bad.py:Narrow", *ONE, *files)[0] == 1
    assert (tmp_path / "out.xml").read_text("utf-8").count("<failure") == 3  # the verdict is one
    page = (tmp_path / "out.html").read_text("utf-8")
    assert "<title>Red: attention conformance</title>" in page
    assert f"harness check bad.py:Narrow --case {ONE[1]}" in re.sub("</?span>", "", page)
    assert not list(tmp_path.glob(".*"))


def test_the_line_that_reproduces_runs_one_check(harness):
    status, out, _ = harness("check", "bad.py:Narrow", *ONE, "--check", "visibility")
    assert status == 1
    assert "narrow: 1 of 1 checks broken" in out


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Shapes", "breaks the contract"),
        ("Quits", "SystemExit: 0"),
        ("Killed", "the process died: signal 9, SIGKILL"),
        ("Leaves", "the process died: exit status 3; its last words: 'farewell'"),
        ("Hangs", f"hung: no answer within {SOON} s"),
        ("Stuck", f"hung: no answer within {SOON} s"),
    ],
)
def test_what_a_subject_does_becomes_a_named_broken_check(harness, name, expected):
    # Short only for what hangs: on a slow machine the others take a while to end.
    limit = SOON if "hung" in expected else "60"
    args = (*ONE, "--check", "values", "--timeout", limit)
    status, out, _ = harness("check", f"bad.py:{name}", *args)
    assert status == 1
    assert expected in out
    assert f"harness check bad.py:{name} --case {ONE[1]} --check values" in out


def test_the_checks_behind_a_crash_are_run(harness, tmp_path):
    only = ("--model", "mistral-w1", "--check", "visibility", "--json", "out.json")
    harness("check", "bad.py:Killed", *only)
    records = json.loads((tmp_path / "out.json").read_text())["records"]
    died = [i for i, r in enumerate(records) if r["kind"] == "died"]
    assert died
    assert {r["status"] for r in records[max(died) + 1 :]} >= {"pass"}
    assert all(r["status"] != "missing" for r in records)


def test_a_subject_that_dies_everywhere_is_given_up(harness):
    status, out, _ = harness("check", "bad.py:Dies", "--model", "mistral-w1")
    assert status == 1
    assert f"dies: {PATIENCE} of {PATIENCE} checks broken" in out
    assert "not run: too many hung or died" in out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def (:\n", "own.py, line 1: syntax error"),
        ("import os\nos._exit(4)\n", "loading the target: the process died: exit status 4"),
        ("import time\ntime.sleep(600)\n", "loading the target: hung: no answer within 1 s"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_misuse(harness, tmp_path, text, expected):
    (tmp_path / "own.py").write_text(text)
    limit = "1" if "hung" in expected else "60"
    status, out, err = harness("check", "own.py:Mine", "--timeout", limit)
    assert (status, out) == (2, "")
    assert expected in one_line(err)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["bad.py:Missing"], "no class Missing"),
        (["bad.py:NoMethods"], "NoMethods needs exactly one of the methods"),
        (["bad.py:Mine", "--scheme", "sink"], "does not claim --scheme sink; it claims uniform"),
        (["bad.py:Mine", "--scheme", "round"], "--scheme must be one of chunked"),
        (["bad.py:Mine", "--model", "gpt-2"], "no checks of --model gpt-2; models here: mistral"),
        (["bad.py:Mine", "--case", "mistral"], "case must read model/schedule/dtype/bN"),
        (["bad.py:Mine", "--case", ""], "--case is empty; leave it out to select everything"),
        (["bad.py:Mine", "--check", "speed"], "--check must be one of visibility"),
        (["bad.py:Mine", "--json", "no/such/folder.json"], "--json: no such folder"),
        (["bad.py:Mine", "--json", "."], "--json: must be a file, got the folder '.'"),
        (["bad.py:Mine", "--json", ""], "--json: must be a file, got the folder"),
        (["bad.py:Mine", "--json", "bad.py/x"], "--json: no such folder"),
        (["bad.py:Mine", "--junit", "no/x.xml"], "--junit: no such folder"),
        (["bad.py:Mine", "--html", "page.txt"], "--html: must end in .html, got 'page.txt'"),
        (["bad.py:Mine", "--json", "/proc/x"], "--json: /proc/x cannot be written"),
        (["bad.py:Mine", "--timeout", "inf"], "--timeout must be a number of seconds from 0.1"),
        (["bad.py:Mine", "--timeout", "nan"], "--timeout must be a number of seconds from 0.1"),
        (["bad.py:Mine", "--timeout", "0"], "--timeout must be a number of seconds from 0.1"),
        (["bad.py:Refuses", *ONE, "--check", "values"], "refuses claims none of these cases"),
    ],
)
def test_misuse_is_told_in_one_line(harness, args, expected):
    status, _, err = harness("check", *args)
    assert status == 2
    assert expected in one_line(err)


@pytest.mark.parametrize(("options", "count"), [(["-x"], 1), (["--max-failures", "2"], 2)])
def test_it_stops_at_so_many_broken_checks(harness, tmp_path, options, count):
    only = ("--model", "mistral-w1", "--check", "values", "--json", "out.json")
    harness("check", "bad.py:Mine", *only)
    whole = json.loads((tmp_path / "out.json").read_text())
    assert (whole["partial"], whole["planned"]) == (False, len(whole["records"]))
    status, out, err = harness("check", "bad.py:Narrow", "--model", "mistral", *only[2:], *options)
    part = json.loads((tmp_path / "out.json").read_text())
    broken = [r for r in part["records"] if r["status"] == "fail"]
    assert (status, part["partial"], len(broken)) == (1, True, count)
    left = part["planned"] - len(part["records"])
    assert f"; stopped at {count} broken, {left} not run" in out
    assert f"first broken: values {broken[0]['case']}: " in err


def test_json_that_cannot_be_written_is_one_line_below_the_table(harness):
    args = ("bad.py:Mine", *ONE, "--check", "values", "--json", "/dev/full")
    status, out, err = harness("check", *args)
    assert (status, "mine: 1 check holds" in out) == (2, True)
    assert "--json: /dev/full cannot be written: No space left on device" in one_line(err)


def test_a_check_that_hangs_says_where(harness):
    args = ("bad.py:Hangs", *ONE, "--check", "values", "--timeout", SOON)
    assert re.search(r"hung: .*; it was at bad\.py, line \d+, in act", harness("check", *args)[1])


def test_new_cache_that_returns_nothing_is_the_target_s_mistake(harness, tmp_path):
    nothing = "\n\nclass Nothing(Mine):\n    def new_cache(self, layer, shape):\n        pass\n"
    (tmp_path / "bad.py").write_text(BAD + nothing)
    status, out, _ = harness("check", "bad.py:Nothing", "--model", "mistral-w1")
    assert status == 1
    assert "new_cache() must return a cache with update(k, v), reset() and nbytes()" in out
    assert "got NoneType without update, reset, nbytes" in out
    assert re.search(r"all \d+ broken checks: the same", out)


def test_the_version(harness):
    assert harness("--version")[:2] == (0, f"attention-harness {__version__}\n")


def test_every_command_has_an_example_and_check_comes_first(harness):
    out = harness("--help")[1]
    names = re.findall(r"^  ([a-z]+)  ", out.partition("Commands:")[2], re.MULTILINE)
    assert names[:2] == ["check", "list"]
    for name in set(names) - {"baseline", "history"}:
        assert f"\n    harness {name}" in harness(name, "--help")[1]


def test_the_list_imports_no_package_and_no_torch(tmp_path):
    text = (
        "import sys; sys.argv = ['harness', 'list']\n"
        "from harness.cli.main import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'transformers', 'executorch'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("[]\n")
    assert re.search(r"^harness\.sdpa +\S+ +chunked, full", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("args", [["check"], ["check", "x.py:X", "--sheme", "sink"], ["chekc"]])
def test_a_wrong_command_line_is_misuse(harness, args):
    assert harness(*args)[0] == 2


def test_the_list_names_subjects_models_and_schedules(harness):
    status, out, _ = harness("list")
    assert status == 0
    for name in ("executorch.static", "gemma4-e2b", "chunk-w+1"):
        assert name in out


def test_a_place_for_json_is_tried_before_and_left_as_it_was(harness, tmp_path):
    (tmp_path / "old.json").write_text("{}")
    for name in ("old.json", "new.json"):
        assert harness("check", "bad.py:Missing", "--json", name)[0] == 2
    assert (tmp_path / "old.json").read_text() == "{}"
    assert not (tmp_path / "new.json").exists()


@pytest.mark.parametrize("command", ["gate", "report", "run"])
@pytest.mark.parametrize("option", ["--baselines", "--known"])
def test_a_folder_that_is_not_there_is_misuse(harness, tmp_path, command, option):
    results(tmp_path, record())
    (tmp_path / "suites" / "test_suite.py").touch()
    status, _, err = harness(command, option, "nonexist")
    assert status == 2
    said = f"{option}: no such folder: nonexist; `mkdir -p nonexist` makes an empty one"
    assert said in one_line(err)


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


def test_check_names_the_known_failure_that_explains_what_broke(harness, tmp_path):
    args = ("check", "bad.py:Narrow", *ONE, "--check", "visibility")
    assert "known" not in harness(*args)[1]
    folder = tmp_path / "suites" / "known_failures"
    folder.mkdir(parents=True)
    status, _, _ = harness(*args, "--json", "first.json")
    (found,) = json.loads((tmp_path / "first.json").read_text())["records"]
    filed = row(
        subject="narrow",
        check="visibility",
        case=found["case"],
        kind=found["kind"],
        first_bad=found["first_bad"],
    )
    write_known(folder, ENTRY.replace('"ours"', '"narrow"'), rows=[filed])
    again, out, _ = harness(*args)
    assert (status, again) == (1, 1)
    assert "known, 1 of 1: B1: " in out


def test_check_tells_what_is_wrong_with_the_known_failures_in_one_line(harness, tmp_path):
    folder = tmp_path / "suites" / "known_failures"
    folder.mkdir(parents=True)
    (folder / "ours.toml").write_text("[B1]\n")
    status, out, _ = harness("check", "bad.py:Narrow", *ONE, "--check", "visibility")
    assert status == 1
    assert "known failures: ours.toml, B1: subjects is missing" in out


@pytest.mark.parametrize("name", ["harness/__init__.py", "inspect.py", "select.py", "json.py"])
def test_what_lies_beside_a_target_takes_no_module_s_place(harness, tmp_path, name):
    beside = tmp_path / name
    beside.parent.mkdir(exist_ok=True)
    beside.write_text("raise RuntimeError('the wrong module')\n")
    status, out, _ = harness("check", "bad.py:Mine", *ONE, "--check", "values")
    assert status == 0
    assert "mine: 1 check holds" in out


def test_a_target_imports_what_lies_beside_it(harness, tmp_path):
    (tmp_path / "their_helper.py").write_text("from bad import Mine\n")
    (tmp_path / "their_cache.py").write_text("from their_helper import Mine\n")
    assert harness("check", "their_cache.py:Mine", *ONE, "--check", "values")[0] == 0
    assert harness("check", "their_cache:Mine", *ONE, "--check", "values")[0] == 0
