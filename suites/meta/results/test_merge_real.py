"""One real suite on one real subject, in four shards: verdict, summary and page of one run."""

import re
import shutil
from pathlib import Path

import pytest

from harness.gate.verdict import read
from harness.report import comment, html, summary
from harness.results.folder import Folder, RunInfo
from harness.results.merge import merge

ROOT = Path(__file__).parents[3]
SUITE = "test_sink_ring.py"
#: No exports: a second run in this process would import parts of torch again.
SELECTED = "llama3-sink2/ and float32 and b1 and not peak and not bytes and not export"
SHARDS = 4


@pytest.fixture
def parts(pytester, run_suites):
    """Folders of one run and of its four shards, which run as `tox -e shard` does."""

    def run(out, *args):
        given = ("-n0", f"--harness-out={out}", *args)
        run_suites("harness.sink", *given, select=SELECTED, suites=f"suites/{SUITE}")
        return pytester.path / out

    pytester.makeini("[pytest]\nharness_suites = suites\ntestpaths = suites\n")
    (pytester.path / "suites").mkdir()
    shutil.copy(ROOT / "suites" / SUITE, pytester.path / "suites")
    split = [f"--splits={SHARDS}", "--group"]
    shards = [run(f"s{k}", *split, str(k)) for k in range(1, SHARDS + 1)]
    return run("one"), shards


def told(folder):
    """Verdict, summary and comment without the run's name; cells and rows of the page, no times."""
    frame, verdict = read(folder, ROOT / "reports" / "baselines", ROOT / "suites/known_failures")
    verdict.run = RunInfo("any")
    page = html.build(frame, verdict, folder).read_text(encoding="utf-8")
    cells = re.findall(r'<td class="[a-z-]+" data-v.*?</td>', page)
    rows = re.findall(r'<tr data-s="[a-z-]+">(.*?)<td>[\d.]*\n', page)
    plain = [verdict.to_json(), summary.to_markdown(frame, verdict), comment.to_comment(verdict)]
    return verdict, plain, cells, rows


def test_four_shards_of_a_real_suite_say_what_one_run_says(parts, tmp_path):
    one, shards = parts
    sizes = [len(Folder(shard).read_records()) for shard in shards]
    assert all(sizes)
    assert not merge(shards, tmp_path / "merged").absent
    (_, *single), (verdict, *merged) = told(one), told(tmp_path / "merged")
    assert merged == single
    _, cells, rows = merged
    assert len(rows) == sum(sizes) == sum(verdict.counts.values()) > 30
    assert cells
    assert not verdict.red

    left_out = merge([shards[k] for k in (0, 1, 3)], tmp_path / "three")
    red, *_ = told(tmp_path / "three")
    assert left_out.absent == ["3/4"]
    assert red.reasons == ["shard 3/4 did not come back", f"{sizes[2]} records are missing"]


def test_shards_that_are_named_in_another_order_say_the_same(parts, tmp_path):
    _, shards = parts
    merge(shards, tmp_path / "a")
    merge(shards[::-1], tmp_path / "b")
    assert told(tmp_path / "a")[1:] == told(tmp_path / "b")[1:]
