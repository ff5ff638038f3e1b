"""What a subject, a test or a file says is shown and never obeyed: no control, no markup."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest
from gate_data import CASE, record, results
from rich.segment import Segment
from rich.table import Table

from harness.report import markdown
from harness.report.screen import Screen
from harness.results.folder import RunInfo
from harness.results.history import History

#: Clears the screen, sets the title, forges a verdict, turns a line round, and cannot be encoded.
EVIL = (
    "\x1b[2J\x1b]0;owned\x07\r\x9b31m all 54 checks hold\u202e\u2066\ud800\x00\x08"
    "[bold red]x[/bold red] <b>y</b> <script>z</script> @team ![i](https://e.org/i) | `c`\n# Green"
)
SEEN = "\\x1b[2J\\x1b]0;owned\\x07"
#: Every character that may not leave unescaped; a new line is part of each text.
FORBIDDEN = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def clean(text: str) -> str:
    """The text, if it has no forbidden character."""
    assert not FORBIDDEN.search(text.replace("\t", " "))
    return text


@pytest.fixture
def out(tmp_path):
    """The folder of a run in which everything that a stranger may name is evil."""
    evil = {"subject": f"ours{EVIL}", "case": f"{CASE}{EVIL}", "kind": EVIL, "exception": EVIL}
    made = [
        record(item="a", status="fail", message=EVIL, reproduce=f"harness check {EVIL}", **evil),
        record(item=f"b{EVIL}", status="error", check=EVIL, message="x", **evil),
        record(item="c", subject=f"gone{EVIL}", status="not-installed", case="", message=EVIL),
        record(item="d", subject_version=EVIL, versions={EVIL: EVIL}, cache_bytes=1),
    ]
    run = RunInfo("r1", exit_status=1, outside=[f"tests/x.py::{EVIL}"], branch=EVIL, commit=EVIL)
    for one in made:
        one.run = "r1"
    return results(tmp_path, *made, run=run)


def test_gate_and_report_show_what_a_subject_says(out, run_harness):
    for command in (("gate", "--require", EVIL.replace("\x00", "")), ("report",)):
        _, said, err = run_harness(*command)
        clean(said + err)
    assert f"  fail: ours{SEEN}" in run_harness("gate")[1]
    assert f"other test: tests/x.py::{SEEN}" in run_harness("gate")[1]
    for name in ("summary.md", "comment.md", "index.html", "junit.xml", "verdict.json"):
        text = clean((out / name).read_text("utf-8"))
        assert "\\x1b" in text or name == "verdict.json"


@pytest.mark.usefixtures("out")
def test_no_line_of_a_message_stands_as_a_line_of_the_gate(run_harness):
    lines = run_harness("gate")[1].splitlines()
    assert not [line for line in lines if line.strip().startswith(("# Green", "all 54"))]


def outside_code(text: str) -> str:
    return re.sub(r"(```)(.*?)\1|`[^`\n]*`", "", text, flags=re.S)


@pytest.mark.parametrize("name", ["summary.md", "comment.md"])
def test_markup_in_messages_is_inert_in_markdown(out, run_harness, name):
    run_harness("gate")
    rest = outside_code((out / name).read_text("utf-8"))
    for mark in ("<b>", "<script>", "@team", "![i]", "[bold", "# Green\n"):
        assert mark not in rest, mark
    assert not re.search(r"^# Green", (out / name).read_text("utf-8"), re.M)


def test_markup_in_messages_is_inert_on_the_page_and_in_xml(out, run_harness):
    run_harness("gate")
    run_harness("report")
    page = (out / "index.html").read_text("utf-8")
    assert "<b>y</b>" not in page
    assert "&lt;script&gt;z&lt;/script&gt;" in page
    tree = ElementTree.parse(out / "junit.xml")
    assert any(SEEN in (case.get("classname") or "") for case in tree.iter("testcase"))


@pytest.mark.usefixtures("out")
def test_the_history_shows_what_a_subject_says(run_harness, tmp_path):
    for _ in range(2):
        assert run_harness("history", "add", "--store", tmp_path / "kept")[0] == 0
    _, said, err = run_harness("history", "--store", tmp_path / "kept")
    clean(said + err)
    assert "[bold red]" in said
    assert History(str(tmp_path / "kept")).runs() == ["r1"]


EVIL_SUBJECT = f"""
import torch
class Mine:
    name = {EVIL.replace(chr(0xD800), "")!r}
    schemes = frozenset({{"uniform"}})
    def attend(self, q, k, v, layer, *rest, **more):
        raise RuntimeError({EVIL!r})
"""


def test_check_shows_what_a_subject_says(run_harness, tmp_path):
    (tmp_path / "evil.py").write_text(EVIL_SUBJECT, encoding="utf-8")
    one = ("--case", "mistral/prefill-w/float32/b1", "--check", "values")
    status, said, err = run_harness("check", "evil.py:Mine", *one)
    clean(said + err)
    assert status in {1, 2}
    assert "\\x1b[2J" in said + err


@pytest.mark.parametrize(
    "model_type", ["\x1b]0;t\x07\x1b[31mgemma[bold]x[/bold]", "\ud800", "a\nb", "\u202egemma"]
)
def test_kv_shows_what_a_file_says(run_harness, tmp_path, model_type):
    config = {
        "model_type": model_type,
        "num_hidden_layers": 26,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "hidden_size": 1152,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    status, said, err = run_harness("kv", "config.json", "--context", "4096")
    assert status in {0, 2}
    clean(said + err)
    assert "[/bold]" in said + err or "bold" not in model_type


def test_a_screen_neither_obeys_controls_nor_reads_markup():
    screen = Screen(force_terminal=False, width=200)
    table = Table(EVIL)
    table.add_row(EVIL)
    with screen.capture() as held:
        screen.print(table)
        screen.print(EVIL)
    clean(held.get())
    assert "[bold red]x[/bold red]" in held.get()
    assert all(isinstance(s, Segment) for s in screen.render("x"))


@pytest.mark.parametrize("text", ["plain words, 3 of them", "shard 2/4 did not come back", "a_b"])
def test_plain_words_stay_plain(text):
    assert markdown.prose(text) == text


@pytest.mark.parametrize(
    "text",
    ["<b>", "@x", "a _b_", "x`y`", "https://e.org", "www.e.org", "*a*", "# a", "a [b](c)", "''"],
)
def test_whatever_may_be_markup_becomes_code(text):
    assert re.fullmatch(r"`[^`]*`", markdown.prose(text))
