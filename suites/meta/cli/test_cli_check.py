"""`harness check` survives whatever it is pointed at, and says how that went."""

import json
import re

import pytest
from cli_calls import ONE, SOON, one_line
from gate_data import ENTRY, row, write_known

from harness.run.parent import PATIENCE


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
