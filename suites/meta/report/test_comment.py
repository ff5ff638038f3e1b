"""The comment on a pull request: verdict first, never too long, found again by its mark."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from gate_data import CASE, ENTRY, entries, record, row

from harness.gate.baselines import Baselines, key_of
from harness.gate.verdict import Verdict, judge
from harness.report import comment
from harness.results.folder import Folder, RunInfo
from harness.results.record import Record, to_frame

ROOT = Path(__file__).parents[3]
WORKFLOW = ROOT / ".github" / "workflows" / "pull-request.yml"


def told(records: list[Record], *known: Any, rows: Any = None, **run: Any) -> str:
    info = RunInfo(run="r1", **({"whole": True, "exit_status": 1} | run))
    baselines = Baselines({"uniform": rows} if rows else None)
    return comment.to_comment(judge(to_frame(records), baselines, known, info))


def test_the_verdict_comes_first_then_what_broke_then_what_changed(tmp_path: Path) -> None:
    was = record(item="bytes", check="cache_bytes", cache_bytes=4_096)
    now = record(item="bytes", check="cache_bytes", cache_bytes=4_608)
    failed = [
        record(item=f"bad{i}", case=f"mistral/s{i}/float32/b1", status="fail", first_bad=9)
        for i in range(3)
    ]
    fixed = record(item="fixed", subject="theirs", status="fixed", known="B1")
    elsewhere = [row("B7", case="nowhere/chunk-4/float32/b1")]
    stale = entries(tmp_path, ENTRY.replace("B1", "B7"), rows=elsewhere)
    text = told(
        [now, *failed, fixed],
        *stale,
        rows={key_of(was): {"cache_bytes": 4_096}},
        outside=["suites/meta/test_x.py::test_y"],
    )
    head, _, rest = text.partition("### What broke")
    broke, _, changed = rest.partition("### Changed since the baseline")
    assert head.startswith(f"{comment.MARK}\n## Attention conformance: Red")
    assert "3 checks fail; 1 known failure passes; 1 integer drifted" in head
    assert "| fail | `ours` | values | 3 | 9 |" in broke
    assert "harness check ours" in broke
    assert f"`ours` cache_bytes `{CASE}` cache_bytes: 4,096 → 4,608 (+512)" in changed
    assert "known failure `B1` passes" in changed
    assert "`ours` `B7` matches nothing any more" in changed
    assert "suites/meta/test_x.py::test_y" in changed
    assert "harness baseline update" in changed
    assert text.rstrip().endswith("opens offline.")
    assert f"]({comment.LINK})" in text


def test_a_green_run_is_a_few_lines() -> None:
    text = told([record()], exit_status=0)
    assert text.startswith(f"{comment.MARK}\n## Attention conformance: Green\n")
    assert "1 pass." in text
    assert "What broke" not in text
    assert len(text.splitlines()) < 18
    part = told([record()], exit_status=0, whole=False)
    assert "Green for a part" in part
    assert "not whole" in part


def test_however_much_broke_it_is_no_longer_than_a_comment() -> None:
    """2,000 kinds of failure with messages of 10,000 characters, and 500 other failed tests."""
    broken = [
        record(
            item=str(i),
            subject=f"subject.{i}." + "x" * 2_000,
            status="fail",
            message=f"@all | {i} `x` --> <b>" + "y" * 10_000,
            reproduce="harness check " + "z" * 10_000,
        )
        for i in range(2_000)
    ]
    text = told(broken, outside=[f"test_{i}" + "w" * 2_000 for i in range(500)])
    assert len(text) <= comment.LONGEST < 65_536 // 3
    assert "2000 checks fail" in text.partition("### What broke")[0]
    assert "more kinds" in text
    assert f"]({comment.LINK})" in text
    long = Verdict(reasons=[f"reason {i} " + "r" * 200 for i in range(400)], counts={"fail": 1})
    cut = comment.to_comment(long)
    assert len(cut) <= comment.LONGEST
    assert "Cut." in cut


def test_messages_are_no_markup_and_call_nobody() -> None:
    text = told([record(status="fail", message="@team | `a`\n```\n<img src=x> -->")])
    (row,) = (line for line in text.splitlines() if line.startswith("| fail"))
    outside_code = re.sub(r"`[^`]*`", "", row)
    assert "@" not in outside_code
    assert "<" not in outside_code
    assert len(re.findall(r"(?<!\\)\|", row)) == 7
    assert text.count("```") == 2


def test_a_run_that_begins_forgets_the_comment_of_the_last(tmp_path: Path) -> None:
    for name in (comment.FILE, "summary.md"):
        (tmp_path / name).write_text("Green")
    Folder(tmp_path).clear()
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def step() -> dict[str, Any]:
    """The step of the workflow that writes the comment."""
    job = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["gate"]
    assert job["permissions"]["pull-requests"] == "write"
    names = [s.get("id", "") for s in job["steps"]]
    (found,) = (s for s in job["steps"] if s.get("name") == "Comment")
    assert "steps.report.outputs" in found["env"][comment.LINK]
    assert names.index("report") < job["steps"].index(found)
    return found


def test_the_workflow_may_comment_only_where_its_token_can_write(step: dict[str, Any]) -> None:
    assert "head.repo.full_name == github.repository" in step["if"]
    assert "always()" in step["if"]
    assert f"reports/latest/{comment.FILE}" in step["with"]["script"]


#: Calls the script with stand-ins for what github-script provides; returns what it did.
DRIVER = """async ([script, text, comments]) => {
  const done = [];
  const issues = {
    listComments: "list",
    createComment: async (given) => done.push(["create", given]),
    updateComment: async (given) => done.push(["update", given]),
  };
  const github = { rest: { issues }, paginate: async (method, given) => comments };
  const context = { repo: { owner: "o", repo: "r" }, issue: { number: 7 } };
  const core = { warning: (said) => done.push(["warning", said]) };
  const files = { existsSync: () => text !== null, readFileSync: () => text };
  const process = { env: { REPORT_URL: "https://example.org/artifact" } };
  const Script = (async () => {}).constructor;
  const run = new Script("github", "context", "core", "require", "process", script);
  await run(github, context, core, () => files, process);
  return done;
}"""


@pytest.fixture(scope="module")
def script(step: dict[str, Any]) -> Any:
    """Runs the step's script in a browser, on a text and the existing comments."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser is installed to run the workflow's script")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = running.new_page()
        yield lambda text, there: page.evaluate(DRIVER, [step["with"]["script"], text, there])
        running.close()


def test_the_script_writes_one_comment_and_then_writes_over_it(script: Any) -> None:
    text = told([record()], exit_status=0)
    others = [
        {"id": 1, "body": "LGTM", "user": {"type": "User"}},
        {"id": 2, "body": text, "user": {"type": "User"}},  # a person's quote of it is not replaced
        {"id": 4, "body": "size: +3", "user": {"type": "Bot"}},
    ]
    ((what, made),) = script(text, others)
    assert (what, made["issue_number"]) == ("create", 7)
    assert made["body"] == text.replace(comment.LINK, "https://example.org/artifact")
    mine = {"id": 3, "body": made["body"], "user": {"type": "Bot"}}
    ((what, changed),) = script(text, [*others, mine])
    assert (what, changed["comment_id"], changed["body"]) == ("update", 3, made["body"])


def test_without_a_verdict_the_script_says_so(script: Any) -> None:
    ((what, said),) = script(None, [])
    assert what == "warning"
    assert "no verdict" in said
