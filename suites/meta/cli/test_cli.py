"""The command as a whole: versions, help, lists, and misuse in one line."""

import json
import re
import subprocess
import sys

import pytest
from cli_calls import ONE, SOON, one_line
from gate_data import record, results
from subject_files import BAD

from harness import __version__


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
