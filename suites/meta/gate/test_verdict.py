"""The gate is red for every reason to be red, says which, and is green otherwise."""

import json

import pytest
from gate_data import CASE, entries, planned, record
from junitparser import JUnitXml

from harness.gate.baselines import Baselines
from harness.gate.verdict import judge, read
from harness.report import junit, summary
from harness.results.complete import complete
from harness.results.folder import Folder, RunInfo
from harness.results.record import to_frame

ENDED = RunInfo("r1", exit_status=0)
WHOLE = RunInfo("r1", whole=True, exit_status=0)
OTHER = "mistral/prefill-w/float32/b1"


def verdict_of(*records, known=(), baselines=None, run=ENDED, required=(), need_whole=False):
    rows = baselines or Baselines()
    return judge(to_frame(records), rows, known, run, required, need_whole=need_whole)


def baselines_of(*records):
    rows = Baselines()
    rows.update(to_frame(records))
    return rows


def test_passes_known_failures_and_what_is_not_claimed_are_green():
    statuses = ("pass", "known", "not-claimed", "not-installed")
    verdict = verdict_of(*(record(status=s, known="B1" * (s == "known")) for s in statuses))
    assert not verdict.red
    assert verdict.exit_status == 0
    assert verdict.headline == "Green for a part: 1 check holds; the run was not whole"


def test_a_part_in_which_all_is_known_is_green_and_a_whole_run_is_not():
    known = record(status="known", known="B1")
    headline = "Green for a part: 0 checks hold; the run was not whole"
    assert verdict_of(known).headline == headline
    assert "no check passed" in verdict_of(known, run=WHOLE).reasons


def test_green_without_more_is_of_a_whole_run():
    verdict = verdict_of(record(), run=WHOLE, need_whole=True)
    assert verdict.headline == "Green: 1 check holds"
    assert "# Attention conformance: Green\n" in summary.to_markdown(to_frame([record()]), verdict)


def test_a_part_is_red_where_a_whole_run_is_needed():
    verdict = verdict_of(record(), need_whole=True)
    assert verdict.headline == "Red: the run was not whole"
    text = summary.to_markdown(to_frame([record()]), verdict_of(record()))
    assert text.startswith("# Attention conformance: Green for a part\n")
    assert "The run was not whole" in text


def folder_of(path, *records, run=ENDED, items=None):
    folder = Folder(path)
    for made in records:
        folder.append(made)
    collected = [planned(r.item, r.subject, r.check) for r in records]
    folder.write_collected(collected if items is None else items)
    folder.write_run(run)
    return read(path, path, path)[1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"run": "r0"}, "1 record is from another run"),
        ({"item": "b"}, "1 record has no collected item"),
        ({"subject": "theirs"}, "1 record has no collected item"),
    ],
)
def test_a_record_that_is_not_of_the_run_is_red(tmp_path, changes, reason):
    items = [planned("a")]
    verdict = folder_of(tmp_path, record(item="a"), record(**{"item": "a"} | changes), items=items)
    assert verdict.reasons == [reason]


def test_records_of_the_run_are_no_strays(tmp_path):
    assert folder_of(tmp_path, record(item="a"), record(item="b")).reasons == []


def test_a_claim_that_drifts_is_red_and_told_apart():
    before = Baselines()
    assert verdict_of(record(), run=WHOLE).no_claims == ["ours"]
    before.update(to_frame([record(), record(case=OTHER)]), whole=True)
    assert verdict_of(record(), baselines=before, run=WHOLE).no_claims == []
    now = [record(), record(case=OTHER, status="not-claimed")]
    verdict = verdict_of(*now, baselines=before, run=WHOLE)
    assert verdict.reasons == ["1 claim drifted"]
    assert "| 1 of 2 cases | claims | 2 | 1 |" in summary.to_markdown(to_frame(now), verdict)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("fail", "1 check fails"),
        ("error", "1 check broke"),
        ("missing", "1 record is missing"),
        ("fixed", "1 known failure passes"),
    ],
)
def test_each_broken_status_is_red(status, reason):
    verdict = verdict_of(record(), record(status=status))
    assert verdict.reasons == [reason]
    assert verdict.exit_status == 1
    assert verdict.broken["status"].tolist() == [status]


@pytest.mark.parametrize("now", [9, 11])
def test_drift_is_red_either_way(now):
    verdict = verdict_of(record(cache_bytes=now), baselines=baselines_of(record(cache_bytes=10)))
    assert verdict.reasons == ["1 integer drifted"]


def test_no_baseline_is_not_red_and_is_counted():
    verdict = verdict_of(record(cache_bytes=10))
    assert not verdict.red
    assert verdict.no_baseline == 1


def test_stale_known_failures_are_red_in_a_whole_run_only(tmp_path):
    known = entries(tmp_path)
    assert not verdict_of(record(case=OTHER), known=known).red
    verdict = verdict_of(record(case=OTHER), known=known, run=WHOLE)
    assert verdict.reasons == ["1 known failure is stale"]


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (RunInfo("r1", exit_status=None), "the run did not end by itself"),
        (RunInfo("r1", exit_status=2), "pytest was interrupted"),
        (RunInfo("r1", exit_status=3), "pytest had an internal error"),
        (RunInfo("r1", exit_status=5), "pytest selected no test"),
        (RunInfo("r1", exit_status=-9), "pytest ended with status -9"),
        (RunInfo("r1", exit_status=1), "pytest failed, and no record says why"),
        (RunInfo("r1", exit_status=1, outside=["t"]), "1 other test failed"),
    ],
)
def test_a_run_that_ended_badly_is_red(run, reason):
    assert verdict_of(record(), run=run).reasons == [reason]


def test_a_run_that_checked_nothing_is_red():
    assert verdict_of().reasons == ["no check passed"]
    assert verdict_of(record(status="not-installed", case="")).reasons == ["no check passed"]


def test_a_required_subject_must_have_run():
    absent = record(subject="theirs", status="not-installed", case="")
    verdict = verdict_of(record(), absent, required=["ours", "theirs"])
    assert verdict.reasons == ["required subject theirs did not run"]


def test_the_worst_of_two_records_counts_and_the_missing_are_named():
    line = f"harness check ours --case {OTHER} --check values"
    lost = planned("b", case=OTHER)
    failed, passed = record(item="a", status="fail"), record(item="a")
    records = complete([failed, passed], [planned("a"), lost])
    assert [r.status for r in records] == ["fail", "missing"]
    assert (records[1].case, records[1].batch, records[1].reproduce) == (OTHER, 1, line)


def test_records_are_in_the_order_of_collection_however_they_came():
    items = [planned(i) for i in "abc"]
    came = [record(item=i) for i in ("stray", "c", "a")]
    assert [r.item for r in complete(came, items)] == ["a", "b", "c", "stray"]


def test_a_session_that_died_leaves_what_was_in_flight(tmp_path):
    folder = Folder(tmp_path)
    folder.append(record(item="a"))
    folder.write_collected([planned(i) for i in "abc"])
    folder.write_run(RunInfo("r1"))
    folder.checkpoint("gw0", record(item="b", status="error"))
    frame, verdict = read(tmp_path, tmp_path, tmp_path)
    assert frame["status"].tolist() == ["pass", "error", "missing"]
    assert "1 check broke" in verdict.reasons
    assert "died" in frame["message"].tolist()[1]


def test_the_first_of_each_kind_leads_the_broken():
    fails = [record(item=str(i), status="fail") for i in range(50)]
    verdict = verdict_of(*fails, record(item="x", check="reset", status="error"))
    assert verdict.broken["check"].tolist()[:2] == ["values", "reset"]
    assert verdict.broken["item"].tolist() == ["0", "x", *map(str, range(1, 50))]
    assert verdict.broken.columns.tolist() == to_frame([]).columns.tolist()


def test_the_summary_leads_with_the_verdict_and_names_what_broke(tmp_path):
    known = entries(tmp_path)
    records = [
        record(status="fail", first_bad=12, figure=0.5, bound=0.25, message="a | b", case=OTHER),
        record(status="known", known="B1"),
        record(subject="theirs", status="not-installed", check="load", case="", message="absent"),
    ]
    verdict = verdict_of(*records, known=known)
    text = summary.to_markdown(to_frame(records), verdict)
    assert text.startswith("# Attention conformance: Red")
    assert f"| fail | ours | values | {OTHER} | 12 | 0.5 | 0.25 |" in text
    assert records[0].reproduce in text
    assert "| ours | 1 fail, 1 known |" in text
    assert "| theirs | not installed |" in text
    assert "[B1](https://example.org/issues/1), 1 record" in text
    assert text.index("What broke") < text.index("## Matrix")


def test_a_summary_of_very_many_failures_stays_short():
    records = [record(item=str(i), status="fail", message="x" * 5000) for i in range(3000)]
    text = summary.to_markdown(to_frame(records), verdict_of(*records))
    assert len(text) < 100_000
    assert "2960 more" in text


def test_junit_counts_what_the_verdict_counts(tmp_path):
    statuses = ("pass", "fail", "error", "missing", "known", "not-claimed")
    records = [record(status=s, message="bad \x00 byte") for s in statuses]
    verdict = verdict_of(*records)
    junit.write(to_frame(records), verdict, tmp_path / "junit.xml")
    suites = {suite.name: suite for suite in JUnitXml.fromfile(str(tmp_path / "junit.xml"))}
    ours = suites["ours"]
    assert (ours.tests, ours.failures, ours.errors, ours.skipped) == (6, 1, 2, 2)
    assert suites["gate"].failures == 1


def test_junit_holds_the_reasons_that_no_record_holds(tmp_path):
    drifted = verdict_of(record(cache_bytes=9), baselines=baselines_of(record(cache_bytes=10)))
    junit.write(to_frame([record(cache_bytes=9)]), drifted, tmp_path / "junit.xml")
    text = (tmp_path / "junit.xml").read_text(encoding="utf-8")
    assert "cache_bytes 10 -&gt; 9" in text


def test_the_verdict_is_plain_data(tmp_path):
    verdict = verdict_of(record(status="fail"), known=entries(tmp_path))
    data = json.loads(json.dumps(verdict.to_json()))
    assert data["red"] is True
    assert data["counts"] == {"fail": 1}
    assert data["broken"] == [f"values::{CASE}"]
