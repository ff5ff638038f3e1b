"""An update lets filed cases follow a run; only a person files a new one."""

import pytest
from gate_data import CASE, ENTRY, RAISES, SAYS, entries, record, row

from harness.gate.known import Place, Symptom
from harness.gate.known_update import CannotFile, file_under, update
from harness.results.record import to_frame

OTHER = "mistral/prefill-w/float32/b1"
HERE, THERE = Place("ours", "values", CASE), Place("ours", "values", OTHER)
SEEN = Place("ours", "visibility", CASE)
B2 = ENTRY.replace("[B1]", "[B2]")


def test_a_case_that_fails_in_another_way_keeps_its_cause(tmp_path):
    (cause,) = entries(tmp_path, rows=[row(first_bad=9)])
    now = record(status="fail", kind="lost-keys", first_bad=12)
    done = update([cause], to_frame([now]))
    assert (done.moved, done.dropped) == (1, 0)
    assert cause.cases == {HERE: Symptom("lost-keys", "", 12)}
    assert done.frame[["status", "known"]].values.tolist() == [["known", "B1"]]


def test_a_case_that_raises_now_keeps_its_cause(tmp_path):
    (cause,) = entries(tmp_path, RAISES)
    raised = record(status="error", exception="TypeError", message=SAYS)
    assert update([cause], to_frame([raised])).moved == 1
    assert cause.cases == {HERE: Symptom("", "TypeError", None)}


@pytest.mark.parametrize("text", [ENTRY, RAISES])
def test_an_exception_that_says_something_else_is_not_taken_over(tmp_path, text):
    (cause,) = entries(tmp_path, text)
    frame = to_frame([record(status="error", exception="TypeError", message="TypeError: new")])
    done = update([cause], frame, whole=True)
    assert (done.moved, done.dropped, done.frame["status"].tolist()) == (0, 0, ["error"])
    assert cause.cases == {HERE: Symptom("", "", None)}
    with pytest.raises(CannotFile, match=f"^--cause B1: has .*but ours values {CASE} says 'TypeE"):
        file_under("B1", [cause], frame)
    assert cause.cases == {HERE: Symptom("", "", None)}


def test_a_case_that_is_fixed_is_dropped(tmp_path):
    (cause,) = entries(tmp_path)
    done = update([cause], to_frame([record(status="fixed", known="B1")]))
    assert (done.moved, done.dropped, cause.cases) == (0, 1, {})
    assert done.frame[["status", "known"]].values.tolist() == [["pass", ""]]


def test_a_case_that_is_gone_is_dropped_with_a_whole_run_only(tmp_path):
    (cause,) = entries(tmp_path, rows=[row(), row(case=OTHER)])
    frame = to_frame([record(status="known")])
    assert update([cause], frame).dropped == 0
    assert update([cause], frame, whole=True).dropped == 1
    assert list(cause.cases) == [HERE]


def test_a_case_that_did_not_run_for_a_reason_stays(tmp_path):
    (cause,) = entries(tmp_path)
    for left in (
        record(status="missing", versions={}, device="", threads=None),
        record(status="not-installed", case="", check="load", versions={}),
        record(status="fail", versions={"torch": "1.13"}, first_bad=3),
    ):
        done = update([cause], to_frame([left]), whole=True)
        assert (done.moved, done.dropped) == (0, 0)
    assert cause.cases == {HERE: Symptom("", "", None)}


def test_a_new_failure_is_not_filed_by_itself(tmp_path):
    (cause,) = entries(tmp_path)
    frame = to_frame([record(status="known"), record(status="fail", case=OTHER)])
    done = update([cause], frame, whole=True)
    assert (done.moved, done.dropped, list(cause.cases)) == (0, 0, [HERE])
    assert done.frame["status"].tolist() == ["known", "fail"]


NEVER = [
    {"status": "error", "message": "hung: no answer within 2 s"},
    {"status": "error", "message": "the process died in mid-check (signal 9)"},
    {"status": "error", "exception": "MemoryError"},
    {"status": "error", "exception": "RuntimeError", "kind": "out-of-memory"},
]


@pytest.mark.parametrize("changes", NEVER)
def test_crashes_hangs_and_exhausted_memory_are_never_taken_over(tmp_path, changes):
    (cause,) = entries(tmp_path)
    frame = to_frame([record(**changes)])
    done = update([cause], frame, whole=True)
    assert (done.moved, done.frame["status"].tolist()) == (0, ["error"])
    filed = file_under("B1", [cause], frame)
    assert (filed.added, filed.refused) == ([], [HERE])
    assert cause.cases == {HERE: Symptom("", "", None)}


def test_a_person_files_what_broke_under_a_cause(tmp_path):
    (cause,) = entries(tmp_path, RAISES, rows=[])
    broken = [
        record(status="fail", first_bad=3),
        record(status="error", exception="TypeError", case=OTHER, message=SAYS),
        record(check="visibility"),
        record(status="fail", check="reset"),
        record(status="fail", subject="theirs"),
    ]
    assert file_under("B1", [cause], to_frame(broken)).added == [HERE, THERE]
    assert cause.cases == {HERE: Symptom("", "", 3), THERE: Symptom("", "TypeError", None)}


@pytest.mark.parametrize(
    ("selection", "filed"),
    [
        ({"cases": ["mistral/chunk-*"]}, [HERE, SEEN]),
        ({"cases": ["mistral/chunk-*", "*/prefill-w/*"]}, [HERE, THERE, SEEN]),
        ({"checks": ["values"], "subjects": ["ours"]}, [HERE, THERE]),
        ({"checks": ["visibility"]}, [SEEN]),
        ({"checks": ["visibility", "values"], "cases": ["*/chunk-4/*"]}, [HERE, SEEN]),
    ],
)
def test_a_person_may_file_a_part(tmp_path, selection, filed):
    (cause,) = entries(tmp_path, rows=[])
    places = [{}, {"case": OTHER}, {"check": "visibility"}]
    broken = to_frame([record(status="fail", **place) for place in places])
    assert file_under("B1", [cause], broken, **selection).added == filed


def test_a_case_moves_from_one_cause_to_another(tmp_path):
    first, second = entries(tmp_path, ENTRY + B2, rows=[row("B1")])
    file_under("B2", [first, second], to_frame([record(status="fail", first_bad=2)]))
    assert (first.cases, second.cases) == ({}, {HERE: Symptom("", "", 2)})


@pytest.mark.parametrize(
    ("cause", "selection", "expected"),
    [
        ("B11", {}, "--cause: no cause is named 'B11'; did you mean 'B1'?"),
        ("x", {}, "--cause: no cause is named 'x'; causes: B1"),
        ("B1", {"subjects": ["theirs"]}, "--subject: B1 does not list 'theirs'; allowed: ours"),
        ("B1", {"checks": ["reset"]}, "--check: B1 does not list 'reset'; allowed: values, vis"),
        ("B1", {"cases": ["gemma*"]}, "--cause B1: the last run has no broken record to file"),
    ],
)
def test_what_cannot_be_filed_is_one_line(tmp_path, cause, selection, expected):
    known = entries(tmp_path)
    with pytest.raises(CannotFile) as caught:
        file_under(cause, known, to_frame([record(status="fail")]), **selection)
    assert str(caught.value).startswith(expected)


def test_a_record_of_other_versions_cannot_be_filed(tmp_path):
    frame = to_frame([record(status="fail", versions={"torch": "3.0"})])
    with pytest.raises(CannotFile, match=r"applies to torch ==2\.\*, but .* from torch 3\.0"):
        file_under("B1", entries(tmp_path), frame)
