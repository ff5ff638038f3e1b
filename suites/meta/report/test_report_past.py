"""The page says what changed since the last run, and which check catches which defect."""

import re

from gate_data import CASE, record, results
from typer.testing import CliRunner

from harness.cli import main as cli
from harness.gate.baselines import Baselines
from harness.gate.drift import Drift
from harness.gate.verdict import judge
from harness.report import blunt, html, kills
from harness.report.past import past
from harness.results.folder import Folder, RunInfo
from harness.results.history import History
from harness.results.record import to_frame

RUNS = ("20261101T000000-aaaa", "20261102T000000-bbbb", "20261103T000000-cccc")


def night(history, run, **changes):
    frame = to_frame([record(run=run, item="a"), record(run=run, item="b", **changes)])
    verdict = judge(frame, Baselines(), [], RunInfo(run=run, exit_status=0))
    history.add(frame, run, red=verdict.red, headline=verdict.headline)
    return frame, verdict


def page(tmp_path, frame, verdict, past=None):
    text = html.build(frame, verdict, tmp_path / "index.html", past).read_text(encoding="utf-8")
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def test_a_broken_check_says_since_when_and_what_changed_with_the_last_run(tmp_path):
    history = History(str(tmp_path / "store"))
    night(history, RUNS[0], case="mistral/chunk-w/float32/b1")
    night(history, RUNS[1], case="mistral/chunk-w/float32/b1", status="fail", first_bad=9)
    broken = {"status": "fail", "first_bad": 9, "peak_bytes": 77}
    said = page(
        tmp_path,
        *night(history, RUNS[2], case="mistral/chunk-w/float32/b1", **broken),
        past(history),
    )
    assert "since 2 Nov (run bbbb, 2 runs)" in said
    assert "broken since 2 Nov (run bbbb, 2 runs)" in said
    assert f"What differs from {RUNS[1]}" in said
    assert "peak_bytes none 77" in said


def test_a_drift_says_since_when_the_integer_has_its_value(tmp_path):
    history = History(str(tmp_path / "store"))
    for run, nbytes in zip(RUNS, (10, 12, 12), strict=True):
        frame, verdict = night(history, run, check="cache_bytes", cache_bytes=nbytes)
    verdict.drift = [Drift("ours", CASE, "cache_bytes", "cache_bytes", 10, 12)]
    verdict.reasons = ["1 integer drifted"]
    said = page(tmp_path, frame, verdict, past(history, verdict.drift))
    assert "10 → 12 (+2), 1 case, since 2 Nov (run bbbb, 2 runs)" in said
    assert "10 12 +2 2 Nov (run bbbb, 2 runs)" in said


def test_what_of_the_history_cannot_be_read_is_named_by_page_and_command(tmp_path, run_harness):
    results(tmp_path, record(run=RUNS[2]), run=RunInfo(RUNS[2], exit_status=0))
    history = History(str(tmp_path / "reports" / "history"))
    night(history, RUNS[0])
    assert run_harness("history", "add")[0] == 0
    (tmp_path / "reports" / "history" / f"{RUNS[1]}.parquet").touch()
    status, _, err = run_harness("report")
    assert status == 0
    assert f"history: {RUNS[1]} cannot be read, and is left out: " in err
    text = (tmp_path / "reports" / "latest" / "index.html").read_text("utf-8")
    assert f"Left out of the history, since it cannot be read: {RUNS[1]}" in text
    assert f"Nothing changed since {RUNS[0]}" in text


def test_a_first_run_and_an_equal_one_say_so(tmp_path):
    history = History(str(tmp_path / "store"))
    assert "first run that is kept" in page(tmp_path, *night(history, RUNS[0]), past(history))
    said = page(tmp_path, *night(history, RUNS[1]), past(history))
    assert f"Nothing changed since {RUNS[0]}" in said


def test_without_a_history_the_page_says_nothing_of_it(tmp_path):
    history = History(str(tmp_path / "store"))
    assert "Since the last run" not in page(tmp_path, *night(history, RUNS[0]))


ROWS = [
    kills.Row("Late", "comes late", (("values", 3, 4),), ("values",)),
    kills.Row("Mute", "is mute", (), ("reset",)),
    kills.Row("Half", "is half seen", (("values", 1, 4),), ("values", "reset")),
]


def test_the_kill_table_is_shown_where_it_lies_beside_the_page(tmp_path):
    history = History(str(tmp_path / "store"))
    kills.write(ROWS, tmp_path)
    said = page(tmp_path, *night(history, RUNS[0]))
    assert "1 of 3 defects" in said
    assert "Late comes late values values 3/4" in said
    assert "Mute is mute reset nothing" in said
    assert "Half is half seen values, reset values 1/4; not by reset" in said
    (tmp_path / kills.FILE).write_text("{")
    assert "Planted defects" not in page(tmp_path, *night(history, RUNS[0]))


def test_the_command_plants_every_defect(tmp_path, monkeypatch):
    monkeypatch.setattr(kills, "run", lambda: iter(ROWS))
    line = blunt.Line("cache", "values", "zeros", "1 of 1 red", vacuous=False)
    monkeypatch.setattr(blunt, "run", lambda: iter([line]))
    monkeypatch.setattr(blunt, "missed", lambda: iter(["cache: float16 far"]))
    done = CliRunner().invoke(cli.app, ["kills", "--out", str(tmp_path)])
    assert done.exit_code == 1  # a defect that nothing catches is a blind spot
    assert "Late: caught by values (expected: values)\n" in done.output
    assert "Mute: caught by nothing (expected: reset)" in done.output
    assert "Half: caught by values (expected: values, reset); MISSED by reset" in done.output
    assert "vacuous 0 of 1 cells" in done.output
    assert "not met: cache: float16 far" in done.output
    assert blunt.read(tmp_path) == blunt.Blunt((line,))
    table = kills.read(Folder(tmp_path).path)
    assert table is not None
    assert (table.caught, len(table.rows)) == (1, 3)
