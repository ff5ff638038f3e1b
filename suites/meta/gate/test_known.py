"""Known failures are strict: what is not exactly as it was filed stays a failure."""

import pytest
import torch
from gate_data import CASE, ENTRY, RAISES, SAYS, entries, record, row

from harness.checks import CHECKS
from harness.gate.known import judge, stale
from harness.results import ended
from harness.results.finding import NAMES
from harness.results.record import to_frame

OTHER = "mistral/prefill-w/float32/b1"
B2 = ENTRY.replace("[B1]", "[B2]")


def found_stale(known, *records):
    return [str(found) for found in stale(known, to_frame(records))]


def test_a_failure_that_is_filed_is_known(tmp_path):
    judged = judge(record(status="fail"), entries(tmp_path))
    assert (judged.status, judged.known, judged.message) == ("known", "B1", "")


def test_a_known_failure_that_passes_is_fixed(tmp_path):
    judged = judge(record(), entries(tmp_path))
    assert (judged.status, judged.known) == ("fixed", "B1")
    assert "`harness baseline update` removes it" in judged.message


def test_a_case_that_is_not_claimed_is_neither(tmp_path):
    assert judge(record(status="not-claimed"), entries(tmp_path)).status == "not-claimed"


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": "theirs"},
        {"check": "visibility"},
        {"case": "mistral/chunk-4/float16/b1"},
        {"case": OTHER},
        {"versions": {"torch": "3.0"}},
        {"versions": {"torch": "no version"}},
        {"versions": {}},
    ],
)
def test_a_new_case_and_other_versions_are_not_known(tmp_path, changes):
    judged = judge(record(status="fail", **changes), entries(tmp_path))
    assert (judged.status, judged.known, judged.message) == ("fail", "", "")
    assert judge(record(**changes), entries(tmp_path)).status == "pass"


@pytest.mark.parametrize(
    ("filed", "changes", "said"),
    [
        ({"first_bad": 9}, {"first_bad": 12}, "with first bad position 9, now 12"),
        ({"first_bad": 0}, {}, "with first bad position 0, now none"),
        ({}, {"first_bad": 0}, "with no first bad position, now 0"),
        (
            {"kind": "sees-too-many"},
            {"kind": "lost-keys"},
            "with kind sees-too-many, now lost-keys",
        ),
        ({}, {"kind": "lost-keys"}, "with no kind, now lost-keys"),
        (
            {"exception": "RuntimeError"},
            {"status": "error", "exception": "TypeError"},
            "with exception RuntimeError, now TypeError",
        ),
        ({"exception": "RuntimeError"}, {}, "with exception RuntimeError, now none"),
        (
            {},
            {"status": "error", "exception": "RuntimeError"},
            "with no exception, now RuntimeError",
        ),
        (
            {"kind": "lost-keys", "first_bad": 9},
            {"kind": "sees-too-many", "first_bad": 8},
            "with kind lost-keys, now sees-too-many; with first bad position 9, now 8",
        ),
    ],
)
def test_one_that_fails_in_another_way_is_red_and_names_its_cause(tmp_path, filed, changes, said):
    broken = {"status": "fail", "message": "query 12"} | changes
    judged = judge(record(**broken), entries(tmp_path, RAISES, rows=[row(**filed)]))
    assert (judged.status, judged.known) == (broken["status"], "")
    assert judged.message == f"query 12 (filed under B1 {said})"


@pytest.mark.parametrize(
    "how", [{}, {"exception": "RuntimeError"}, {"kind": "lost-keys", "first_bad": 9}]
)
def test_one_that_fails_in_the_same_way_is_known(tmp_path, how):
    status = "error" if "exception" in how else "fail"
    known = entries(tmp_path, RAISES, rows=[row(**how)])
    assert judge(record(status=status, message=SAYS, **how), known).known == "B1"


def test_another_fault_that_raises_the_same_exception_is_red(tmp_path):
    """The type alone says little: 900 cases of released packages end in a RuntimeError."""
    known = entries(tmp_path, RAISES, rows=[row(exception="RuntimeError")])
    other = record(status="error", exception="RuntimeError", message="RuntimeError: a new bug")
    judged = judge(other, known)
    assert (judged.status, judged.known) == ("error", "")
    assert judged.message == (
        "RuntimeError: a new bug (filed under B1 with an exception that says 'no such slot')"
    )


@pytest.mark.parametrize("exception", ["", "RuntimeError"])
def test_crashes_and_hangs_are_never_known(tmp_path, exception):
    known = entries(tmp_path, RAISES, rows=[row(exception=exception)])
    died = judge(record(status="error", message="the process died (signal 9)"), known)
    assert (died.status, died.known) == ("error", "")
    assert "filed under B1 but the check did not come back" in died.message


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        torch.OutOfMemoryError("CUDA"),
    ],
)
def test_exhausted_memory_is_never_known(tmp_path, error):
    kind, name = str(ended.kind_of(error)), type(error).__name__
    known = entries(tmp_path, RAISES, rows=[row(kind=kind, exception=RuntimeError.__name__)])
    raised = judge(record(status="error", kind=kind, exception=name, message=SAYS), known)
    assert (raised.status, raised.known) == ("error", "")


def test_the_names_of_checks_are_those_of_the_checks():
    assert tuple(CHECKS) == NAMES


def test_a_case_is_found_under_its_own_cause(tmp_path):
    known = entries(tmp_path, ENTRY + B2, rows=[row("B1"), row("B2", case=OTHER)])
    assert judge(record(status="fail", case=OTHER), known).known == "B2"


def test_a_case_that_did_not_run_is_stale(tmp_path):
    known = entries(tmp_path, rows=[row(), row(check="visibility")])
    both = [record(status="known"), record(status="known", check="visibility")]
    assert found_stale(known, *both) == []
    assert found_stale(known, both[0]) == [f"ours.toml, B1: did not run: ours visibility {CASE}"]
    assert found_stale(known, record(case=OTHER)) == [
        f"ours.toml, B1: did not run: ours values {CASE} and 1 more"
    ]
    assert len(found_stale(known, *(record(status="not-claimed") for _ in both))) == 1


def test_a_cause_that_matches_nothing_is_stale(tmp_path):
    known = entries(tmp_path, ENTRY + B2, rows=[row()])
    assert found_stale(known, record(status="known")) == [
        "ours.toml, B2: no case of ours is filed under it"
    ]


def test_a_subject_of_a_cause_without_a_case_is_stale(tmp_path):
    text = ENTRY.replace('["ours"]', '["ours", "theirs"]')
    known = entries(tmp_path, text, rows=[row()])
    both = [record(status="known"), record(subject="theirs")]
    assert found_stale(known, *both) == ["ours.toml, B1: no case of theirs is filed under it"]
    gone = found_stale(known, both[0])
    assert gone == ["ours.toml, B1: no case of theirs is filed under it"]


def test_the_cases_of_a_subject_that_is_gone_are_stale(tmp_path):
    assert len(found_stale(entries(tmp_path), record(subject="theirs"))) == 1


def test_a_cause_of_a_package_that_its_subject_does_not_state_is_stale(tmp_path):
    known = entries(tmp_path, ENTRY.replace("torch =", "numpy ="))
    assert len(found_stale(known, record(status="fail"))) == 1


@pytest.mark.parametrize("rows", [None, []])
def test_absent_subjects_and_other_versions_are_left_alone(tmp_path, rows):
    known = entries(tmp_path, rows=rows)
    absent = record(status="not-installed", case="", check="load", versions={})
    assert found_stale(known, absent) == []
    assert found_stale(known, record(versions={"torch": "1.13"})) == []


def test_a_case_whose_record_is_missing_is_left_alone(tmp_path):
    lost = record(status="missing", device="", threads=None, versions={})
    assert found_stale(entries(tmp_path), lost) == []
    assert found_stale(entries(tmp_path), lost, record(case=OTHER)) == []
    assert found_stale(entries(tmp_path, rows=[]), lost) == []
    elsewhere = record(status="missing", case=OTHER, versions={})
    assert len(found_stale(entries(tmp_path), elsewhere, record(check="reset"))) == 1
