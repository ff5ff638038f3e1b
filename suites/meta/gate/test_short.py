"""The list of the short matrix is read as it was written; a wrong one is told in one line."""

import pytest
from gate_data import CASE, record

from harness.gate.baselines import Baselines, read, write
from harness.gate.short import FILE, HEADER, Short, ShortError
from harness.gate.short import read as read_short
from harness.gate.short import write as write_short
from harness.gate.verdict import judge
from harness.results.folder import ALL, SHORT, RunInfo
from harness.results.record import to_frame

ROWS = {"ours": {("values", CASE): "scheme uniform", ("reset", CASE): 'a "quoted", one'}}


def test_a_list_is_read_as_it_was_written(tmp_path):
    write_short(Short(ROWS), tmp_path)
    assert read_short(tmp_path).rows == ROWS
    assert read_short(tmp_path / "absent").rows == {}


def test_it_takes_what_it_lists_and_all_of_an_unlisted_subject():
    short = Short(ROWS)
    assert short.takes("ours", "values", CASE)
    assert not short.takes("ours", "purity", CASE)
    assert short.takes("theirs", "purity", CASE)
    assert short.lost("ours", [("values", CASE)]) == [("reset", CASE)]
    assert short.lost("theirs", []) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the header must read subject,check,case,shows"),
        ("subject,check\n", "the header must read"),
        (f"{','.join(HEADER)}\nours,values\n", "line 2: 2 columns, not 4"),
        (f"{','.join(HEADER)}\nours,valeus,{CASE},x\n", "line 2: no check is named 'valeus'"),
    ],
)
def test_a_wrong_list_is_told_in_one_line(tmp_path, text, said):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ShortError, match=said) as told:
        read_short(tmp_path)
    assert "\n" not in str(told.value)


def test_a_list_that_is_no_text_is_told_in_one_line(tmp_path):
    (tmp_path / FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(ShortError, match=r"short\.csv cannot be read"):
        read_short(tmp_path)


# --- the gate of a run of the short matrix


def run_of(matrix):
    return RunInfo("r1", whole=True, exit_status=0, matrix=matrix)


def test_each_matrix_has_its_own_count_of_claims(tmp_path):
    long = [record(), record(case="mistral/chunk-4/float32/b1")]
    rows = Baselines()
    rows.update(to_frame(long), whole=True, matrix=ALL)
    rows.update(to_frame(long[:1]), whole=True, matrix=SHORT)
    write(rows, tmp_path)
    held = read(tmp_path)
    for matrix, records in ((ALL, long), (SHORT, long[:1])):
        assert held.compare(to_frame(records), whole=True, matrix=matrix).drift == []
    fewer = [record(status="not-claimed")]
    drift = held.compare(to_frame(fewer), whole=True, matrix=SHORT).drift
    assert [str(d) for d in drift if d.integer == "claims"] == [
        "ours values: claims 0 of 1 cases, the baseline 1 (-1)"
    ]


def test_what_only_the_whole_plan_runs_has_not_vanished():
    rows = Baselines()
    rows.update(to_frame([record(cache_bytes=1), record(case="other", cache_bytes=2)]))
    frame = to_frame([record(cache_bytes=1)])
    assert rows.compare(frame, whole=True, matrix=SHORT).drift == []
    assert [d.vanished for d in rows.compare(frame, whole=True, matrix=ALL).drift] == [True]


def test_a_green_run_says_which_matrix_it_was():
    frame = to_frame([record()])
    short = judge(frame, Baselines(), [], run_of(SHORT), need_whole=True)
    assert short.headline == "Green: 1 check holds in the short matrix"
    assert judge(frame, Baselines(), [], run_of(ALL)).headline == "Green: 1 check holds"
    assert short.to_json()["matrix"] == SHORT


def test_an_update_after_the_short_matrix_drops_no_row():
    rows = Baselines()
    rows.update(to_frame([record(cache_bytes=1), record(case="other", cache_bytes=2)]))
    done = rows.update(to_frame([record(cache_bytes=1)]), whole=True, matrix=SHORT)
    assert done.dropped == 0
    assert rows.update(to_frame([record(cache_bytes=1)]), whole=True, matrix=ALL).dropped == 1
