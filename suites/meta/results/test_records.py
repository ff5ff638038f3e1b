"""Records survive their way through JSON lines, frames and crashes exactly."""

import json
import math
from dataclasses import fields

import pytest
from gate_data import CASE, planned, record

from harness.cases.case import parse
from harness.results.finding import Finding, Status
from harness.results.folder import Folder, RecordsError, RunInfo
from harness.results.record import (
    INTEGERS,
    Origin,
    Record,
    finish,
    rows,
    start,
    to_frame,
)

ORIGIN = Origin("ours", "ours.py:Ours", "1.0", versions={"torch": "2.13.0"})


def read_back(*records):
    """The records, read back from the rows of a frame."""
    return [Record(**row._asdict()) for row in rows(to_frame(records))]


def test_a_record_comes_back_from_json_as_it_was():
    made = record(figure=0.25, first_bad=3, rows=[[3, [1, 2], [2]]], errors=[0.5, 2.0])
    assert Record.from_json(made.to_json()) == made


def test_neighbours_come_back_and_cost_nothing_where_there_are_none():
    made = record(errors=[0.5, 2.0], neighbours={"window 9": [0.0, math.inf]})
    assert Record.from_json(made.to_json()) == made
    assert read_back(made) == [made]
    plain = record().to_json()  # the form in the folders of earlier releases
    assert "neighbours" not in plain
    assert Record.from_json(plain).neighbours == {}


@pytest.mark.parametrize("held", ["[]", '{"window 9": 3}', '{"window 9": [true]}'])
def test_neighbours_of_another_shape_are_refused_by_name(held):
    line = record().to_json().replace('"errors": []', f'"errors": [], "neighbours": {held}')
    with pytest.raises(ValueError, match="neighbours must be"):
        Record.from_json(line)


def test_infinities_are_strict_json_and_come_back():
    line = record(figure=math.inf, bound=-math.inf, margin=math.nan, errors=[math.inf]).to_json()
    assert "Infinity" not in line
    assert "NaN" not in line
    back = Record.from_json(line)
    assert (back.figure, back.bound, back.errors) == (math.inf, -math.inf, [math.inf])
    assert math.isnan(back.margin)


def test_integers_past_the_floats_are_exact_in_a_frame():
    big = 2**60 + 1
    frame = to_frame([record(peak_bytes=big), record(peak_bytes=None)])
    assert frame["peak_bytes"].tolist()[0] == big
    assert frame["peak_bytes"].isna().tolist() == [False, True]


def test_the_rows_of_a_frame_hold_what_the_records_held():
    made = [
        record(cache_bytes=7, rows=[[1, [0], []]]),
        record(status="fail", first_bad=0, figure=math.inf, peak_bytes=2**60 + 1),
        record(batch=None, threads=None, seconds=None),
    ]
    assert read_back(*made) == made


def test_what_a_frame_does_not_hold_is_none_in_its_rows():
    (row,) = rows(to_frame([record(figure=math.nan)]))
    empty = {f.name for f in fields(Record) if getattr(row, f.name) is None}
    assert empty == {"figure", "bound", "margin", "first_bad", *INTEGERS}
    with pytest.raises(AttributeError):
        row.figure = 1.0


def test_a_part_of_a_frame_has_rows_too():
    frame = to_frame([record(item=i, check=c) for i, c in ("ax", "by", "cx")])
    assert [row.item for row in rows(frame[frame["check"] == "x"])] == ["a", "c"]
    assert list(rows(frame[:0])) == []


def test_an_empty_run_makes_an_empty_frame_with_every_column():
    frame = to_frame([])
    assert len(frame) == 0
    assert {"subject", "status", "cache_bytes", "rows"} <= set(frame.columns)


def test_a_started_record_is_an_error_until_its_finding_comes():
    case = parse(CASE)
    made = start(ORIGIN, "r1", "item", "values", case)
    assert (made.status, made.case, made.scheme) == ("error", CASE, "uniform")
    assert made.reproduce == f"harness check ours.py:Ours --case {CASE} --check values"
    finish(made, Finding("values", Status.FAIL, first_bad=4, bytes={"cache_bytes": 64}), 0.5)
    assert (made.status, made.first_bad, made.cache_bytes) == ("fail", 4, 64)


def test_bytes_without_a_column_are_refused():
    made = start(ORIGIN, "r1", "item", "values", parse(CASE))
    with pytest.raises(ValueError, match="spare_bytes"):
        finish(made, Finding("values", bytes={"spare_bytes": 1}), 0.1)


def test_a_torn_last_line_is_the_crash_and_no_record(tmp_path):
    folder = Folder(tmp_path)
    folder.append(record())
    with folder.records.open("a", encoding="utf-8") as out:
        out.write(record().to_json()[:40])
    assert len(folder.read_records()) == 1


def test_a_broken_line_within_is_named(tmp_path):
    folder = Folder(tmp_path)
    folder.records.write_text("{}\n" + record().to_json() + "\n", encoding="utf-8")
    with pytest.raises(RecordsError, match="line 1"):
        folder.read_records()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("status", "passed", "status must be one of pass, fail"),
        ("status", None, "status must be one of"),
        ("errors", 5, "errors must be a list, got 5"),
        ("errors", [None], "errors must be a number"),
        ("figure", [1], r"figure must be a number, got \[1\]"),
        ("figure", "wide", "figure must be a number, got 'wide'"),
        ("cache_bytes", "1", "cache_bytes must be an integer, got '1'"),
        ("cache_bytes", True, "cache_bytes must be an integer"),
        ("cache_bytes", 2**63, "cache_bytes must be an integer"),
        ("versions", None, "versions must be an object of strings, got None"),
        ("versions", {"torch": 2}, "versions must be a string, got 2"),
        ("item", ["a"], "item must be a string"),
        ("rows", [[1, 2]], "rows must be a list of"),
        ("rows", [[1, [2], 3]], "rows must be a list, got 3"),
        ("colour", "red", "a Record has no field 'colour'"),
    ],
)
def test_a_field_of_the_wrong_type_is_named_with_its_line(tmp_path, name, value, expected):
    data = json.loads(record().to_json()) | {name: value}
    folder = Folder(tmp_path)
    folder.records.write_text(json.dumps(data) + "\n", encoding="utf-8")
    with pytest.raises(RecordsError, match=rf"records\.jsonl, line 1: {expected}"):
        folder.read_records()


def test_half_of_a_surrogate_pair_does_not_come_back():
    assert Record.from_json(record(message="a\ud800").to_json()).message == "a?"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("collected", "{}", "must be a list of records"),
        ("collected", "[3]", "3 is not a Record"),
        ("collected", '[{"item": "a"}]', "missing 4 required"),
        ("collected", '[{"item": 1, "subject": "a", "check": "b"}]', "item must be a string, got"),
        ("planned", '[{"item": "a", "shape": 1}]', "a Record has no field 'shape'"),
        ("run", "[]", r"\[\] is not a RunInfo"),
        ("run", "null", "None is not a RunInfo"),
        ("run", '{"run": "r", "resident_peak_bytes": 0.5}', "resident_peak_bytes must be an integ"),
        ("run", "{}", "missing 1 required"),
        ("run", '{"run": "r", "exit_status": "0"}', "exit_status must be an integer"),
        ("run", '{"run": "r", "whole": 1}', "whole must be true or false"),
        ("run", '{"run": "r", "outside": "x"}', "outside must be a list"),
        ("run", "[" * 100_000, "is not JSON"),
    ],
)
def test_a_file_of_the_wrong_shape_is_named(tmp_path, name, text, expected):
    folder = Folder(tmp_path)
    getattr(folder, name).write_text(text, encoding="utf-8")
    with pytest.raises(RecordsError, match=expected) as caught:
        getattr(folder, f"read_{name}")()
    assert f"{name}.json" in str(caught.value)


@pytest.mark.parametrize("name", ["records", "collected", "run"])
def test_a_file_that_is_no_text_is_named(tmp_path, name):
    folder = Folder(tmp_path)
    path = getattr(folder, name)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RecordsError, match=f"{path.name} is not UTF-8"):
        getattr(folder, f"read_{name}")()
    path.unlink()
    path.mkdir()
    with pytest.raises(RecordsError, match=f"{path.name} cannot be read"):
        getattr(folder, f"read_{name}")()


def test_a_planned_record_is_missing_and_names_its_case_but_not_where_it_runs():
    made = planned("a", case=CASE)
    case = parse(CASE)
    assert (made.status, made.case, made.model) == ("missing", CASE, case.model.name)
    assert (made.scheme, made.schedule, made.batch) == (case.scheme, "chunk-4", 1)
    assert made.reproduce == f"harness check ours --case {CASE} --check values"
    assert (made.device, made.threads, made.versions) == ("", None, {})


def test_a_planned_record_of_a_subject_that_does_not_load_has_no_case():
    made = planned("a", check="load")
    assert (made.status, made.case, made.batch) == ("missing", "", None)
    assert made.reproduce == "harness check ours"


@pytest.mark.parametrize("read", ["read_records", "read_collected", "read_run"])
def test_an_empty_folder_says_what_would_fill_it(tmp_path, read):
    with pytest.raises(RecordsError, match="harness run"):
        getattr(Folder(tmp_path), read)()


def test_what_was_collected_and_the_run_come_back(tmp_path):
    folder = Folder(tmp_path)
    items = [planned("a", case=CASE), planned("b", check="load")]
    folder.write_collected(items)
    folder.write_planned(items[:1])
    info = RunInfo("r1", whole=True, outside=["x"], resident_peak_bytes=2**31)
    folder.write_run(info)
    assert folder.read_collected() == items
    assert folder.read_planned() == items[:1]
    assert folder.read_run() == info
    assert "neighbours" not in folder.collected.read_text()


def test_what_a_worker_was_at_is_read_back_until_it_lands(tmp_path):
    folder = Folder(tmp_path)
    folder.checkpoint("gw0", record())
    assert folder.in_flight("gw0") == record()
    folder.landed("gw0")
    folder.landed("gw0")
    assert folder.in_flight("gw0") is None
    assert folder.seconds_at("gw0") is None


def test_clearing_leaves_nothing_of_an_earlier_run(tmp_path):
    folder = Folder(tmp_path)
    folder.append(record())
    folder.write_run(RunInfo("r0"))
    folder.checkpoint("gw0", record())
    folder.clear()
    assert not folder.records.exists()
    assert not folder.run.exists()
    assert list(folder.inflight.iterdir()) == []
