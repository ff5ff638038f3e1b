"""Known failures are strict: what is not exactly the described failure stays a failure."""

import pytest
from gate_data import CASE, ENTRY, entries, record

from harness.checks import CHECKS
from harness.gate.known import KnownFailuresError, judge, load, stale
from harness.results.finding import NAMES

RAISES = ENTRY + 'raises = "RuntimeError"\n'


def test_a_described_failure_is_known(tmp_path):
    judged = judge(record(status="fail"), entries(tmp_path))
    assert (judged.status, judged.known) == ("known", "B1")


def test_a_known_failure_that_passes_is_fixed(tmp_path):
    judged = judge(record(), entries(tmp_path))
    assert (judged.status, judged.known) == ("fixed", "B1")
    assert "remove" in judged.message


def test_a_case_that_is_not_claimed_is_neither(tmp_path):
    assert judge(record(status="not-claimed"), entries(tmp_path)).status == "not-claimed"


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": "theirs"},
        {"check": "reset"},
        {"case": "mistral/chunk-4/float16/b1"},
        {"case": "mistral/prefill-w/float32/b1"},
        {"versions": {"torch": "3.0"}},
        {"versions": {}},
    ],
)
def test_other_subjects_checks_cases_and_versions_are_not_covered(tmp_path, changes):
    assert judge(record(status="fail", **changes), entries(tmp_path)).status == "fail"
    assert judge(record(**changes), entries(tmp_path)).status == "pass"


def test_another_first_bad_position_is_another_failure(tmp_path):
    known = entries(tmp_path, ENTRY + "first_bad = 12\n")
    assert judge(record(status="fail", first_bad=12), known).status == "known"
    other = judge(record(status="fail", first_bad=11), known)
    assert other.status == "fail"
    assert "12" in other.message
    assert "11" in other.message


def test_another_message_is_another_failure(tmp_path):
    known = entries(tmp_path, ENTRY + 'match = "shape"\n')
    assert judge(record(status="fail", message="bad shape"), known).status == "known"
    assert judge(record(status="fail", message="bad dtype"), known).status == "fail"


def test_an_exception_is_known_only_by_its_type(tmp_path):
    known = entries(tmp_path, RAISES)
    raised = record(status="error", exception="RuntimeError")
    assert judge(raised, known).status == "known"
    assert judge(record(status="error", exception="TypeError"), known).status == "error"
    assert judge(record(status="fail"), known).status == "fail"


def test_an_error_is_not_covered_by_an_entry_that_names_no_exception(tmp_path):
    raised = record(status="error", exception="RuntimeError")
    assert judge(raised, entries(tmp_path)).status == "error"


@pytest.mark.parametrize("text", [ENTRY, RAISES])
def test_crashes_and_hangs_are_never_known(tmp_path, text):
    died = record(status="error", kind="died", message="the process died in mid-check: signal 9")
    assert judge(died, entries(tmp_path, text)).status == "error"


def test_exhausted_memory_is_never_known(tmp_path):
    raised = record(status="error", exception="RuntimeError", kind="out-of-memory")
    assert judge(raised, entries(tmp_path, RAISES)).status == "error"


def test_the_entry_that_fits_is_taken_where_two_cover(tmp_path):
    second = ENTRY.replace('"B1"', '"B2"') + "first_bad = 3\n"
    known = entries(tmp_path, ENTRY + "first_bad = 2\n" + second)
    assert judge(record(status="fail", first_bad=3), known).known == "B2"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('id = "B1"', "", "id is missing"),
        ('id = "B1"', 'id = ""', "id must be a text"),
        ("reason = ", "raeson = ", "unknown field 'raeson'"),
        ('reason = "the mask is made before the update"', 'reason = "  "', "reason must be"),
        ('reason = "the mask is made before the update"', "", "reason is missing"),
        ('link = "https://example.org/issues/1"', "", "link is missing"),
        ('link = "https://example.org/issues/1"', 'link = "see chat"', "link must be a URL"),
        ('versions = { torch = "==2.*" }', "", "versions is missing"),
        ('versions = { torch = "==2.*" }', "versions = {}", "versions must be a table"),
        ('torch = "==2.*"', 'torch = "2.13"', "versions.torch must be a PEP 440"),
        ('cases = ["mistral/chunk-*/float32/b1"]', "cases = []", "cases must be a list"),
        ('checks = ["values", "visibility"]', 'checks = "values"', "checks must be a list"),
        ('"visibility"', '"visibilty"', "no check is named 'visibilty'; allowed: visibility, va"),
        ("[[failure]]", "first_bad = true\n[[failure]]", "only [[failure]]"),
        ("[[failure]]", "[[failure]]\nfirst_bad = true", "first_bad must be an integer"),
        ("[[failure]]", "[[failure]]\nfirst_bad = -1", "first_bad must be an integer"),
        ("[[failure]]", '[[failure]]\nraises = "MemoryError"', "never a known failure"),
        ("[[failure]]", "[[failure", "ours.toml"),
    ],
)
def test_a_wrong_entry_is_named_with_file_and_field(tmp_path, old, new, expected):
    assert old in ENTRY
    with pytest.raises(KnownFailuresError) as caught:
        entries(tmp_path, ENTRY.replace(old, new, 1))
    assert "ours.toml" in str(caught.value)
    assert expected in str(caught.value)


def test_the_names_of_checks_are_those_of_the_checks():
    assert tuple(CHECKS) == NAMES


def test_a_folder_in_place_of_a_file_is_named(tmp_path):
    (tmp_path / "ours.toml").mkdir()
    with pytest.raises(KnownFailuresError, match=r"ours\.toml cannot be read"):
        load(tmp_path)


def test_an_id_is_used_once(tmp_path):
    with pytest.raises(KnownFailuresError, match="'B1' is used more than once"):
        entries(tmp_path, ENTRY + ENTRY)


def test_a_folder_is_read_file_by_file(tmp_path):
    entries(tmp_path, subject="a")
    entries(tmp_path, subject="b")
    assert [entry.subject for entry in load(tmp_path)] == ["a", "b"]
    assert load(tmp_path / "none") == []


def test_an_entry_that_matches_nothing_is_stale(tmp_path):
    known = entries(tmp_path)
    assert stale(known, [record(status="known")]) == []
    assert stale(known, [record(case="mistral/prefill-w/float32/b1")]) == known
    assert stale(known, [record(status="not-claimed")]) == known


def test_an_entry_of_a_subject_that_is_gone_is_stale(tmp_path):
    known = entries(tmp_path)
    assert stale(known, [record(subject="theirs")]) == known


def test_an_entry_that_names_an_unstated_package_is_stale(tmp_path):
    known = entries(tmp_path, ENTRY.replace("torch =", "numpy ="))
    assert stale(known, [record(status="fail")]) == known


def test_entries_of_absent_subjects_and_other_versions_are_left_alone(tmp_path):
    known = entries(tmp_path)
    absent = record(status="not-installed", case="", check="load", versions={})
    assert stale(known, [absent]) == []
    assert stale(known, [record(versions={"torch": "1.13"})]) == []


def test_globs_do_not_read_a_case_as_a_folder(tmp_path):
    known = entries(tmp_path, ENTRY.replace("mistral/chunk-*/float32/b1", "mistral/*"))
    assert CASE.startswith("mistral/")
    assert judge(record(status="fail"), known).status == "known"
