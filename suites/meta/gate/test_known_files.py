"""A mistake in a file of known failures is one line that names file, entry and field."""

import re
from pathlib import Path

import pytest
from gate_data import CASE, ENTRY, RAISES, entries, row, write_known

from harness.gate.known import Place, Symptom
from harness.gate.known_files import KnownFailuresError, load, write

ROOT = Path(__file__).parents[3]
B2 = ENTRY.replace("[B1]", "[B2]")


def refusal(folder, text=ENTRY, **files):
    with pytest.raises(KnownFailuresError) as caught:
        entries(folder, text, **files)
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("what = ", "waht = ", "B1: unknown field 'waht'; allowed: subjects, what, why"),
        ('what = "queries see too much"', 'what = "  "', "B1: what must be a non-empty string"),
        ('what = "queries see too much"', "", "B1: what is missing"),
        ('why = "the mask is made before the update"', "why = 3", "B1: why must be a non-empty s"),
        ('link = "https://example.org/issues/1"', "", "B1: link is missing"),
        ('link = "https://example.org/issues/1"', 'link = "see chat"', "link must be a URL, got"),
        ('versions = { torch = "==2.*" }', "", "B1: versions is missing"),
        ('versions = { torch = "==2.*" }', "versions = {}", "B1: versions must be a table"),
        ('torch = "==2.*"', 'torch = "2.13"', "versions.torch must be a PEP 440 specifier, got"),
        ('subjects = ["ours"]', "subjects = []", "B1: subjects must be a list of strings, got []"),
        ('subjects = ["ours"]', 'subjects = "ours"', "B1: subjects must be a list of strings"),
        ('["values", "visibility"]', '"values"', "B1: checks must be a list of strings"),
        ('"visibility"', '"visibilty"', "no check is named 'visibilty'; allowed: visibility, va"),
        ('"silent"', '"loud"', "severity must be one of silent, error, bytes, refusal, got 'loud'"),
        ('"silent"', '["silent"]', "severity must be one of silent, error, bytes, refusal, got ["),
        (
            'severity = "silent"',
            'severity = "silent"\nmatch = ""',
            "B1: match must be a non-empty string",
        ),
        (
            'severity = "silent"',
            'severity = "silent"\nmatch = 3',
            "B1: match must be a non-empty string",
        ),
        ("[B1]", "first_bad = 3\n[B1]", "first_bad: must be a table, one per cause, got 3"),
        ("[B1]", "[[B1]]", "B1: must be a table, one per cause"),
        ("[B1]", "[B1", "ours.toml"),
        (ENTRY, ENTRY + ENTRY, "ours.toml"),
    ],
)
def test_a_wrong_cause_is_named_with_file_and_field(tmp_path, old, new, expected):
    assert old in ENTRY
    said = refusal(tmp_path, ENTRY.replace(old, new, 1))
    assert said.startswith("ours.toml")
    assert expected in said


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (row("B9"), "cause: ours.toml has no 'B9'; allowed: B1"),
        (row(subject="theirs"), "subject: the cause does not list 'theirs'; allowed: ours"),
        (row(check="reset"), "check: the cause does not list 'reset'; allowed: values, visibility"),
        (row(exception="MemoryError"), "exception: MemoryError is never a known failure"),
        (row(first_bad="soon"), "line 2: first_bad must be an integer >= 0, got 'soon'"),
        (row(first_bad=-1), "line 2: first_bad must be an integer >= 0, got '-1'"),
        (row(first_bad="1.5"), "line 2: first_bad must be an integer >= 0, got '1.5'"),
        ("B1,ours", "line 2: 2 columns, not 7"),
        (f"{row()}\n{row()}", "line 3: a second row for B1 ours values"),
        (f"{row()}\n{row(kind='lost')}", f"case: a second row for ours values {CASE}"),
    ],
)
def test_a_wrong_case_is_named_with_file_and_column(tmp_path, wrong, expected):
    said = refusal(tmp_path, rows=[wrong])
    assert said.startswith("ours.csv, ")
    assert expected in said


def test_a_case_under_two_causes_is_refused_and_both_are_named(tmp_path):
    said = refusal(tmp_path, ENTRY + B2)
    assert said == f"ours.csv: ours values {CASE} is filed under two causes, B1 and B2"
    write_known(tmp_path, package="first")
    second = refusal(tmp_path, B2)
    assert second == f"ours.csv: ours values {CASE} is filed under two causes, B1 and B2"


def test_an_id_is_used_once_in_all_files(tmp_path):
    write_known(tmp_path, package="first")
    assert refusal(tmp_path) == "first.toml and ours.toml: both have a cause 'B1'"


def test_cases_without_causes_are_refused(tmp_path):
    write_known(tmp_path)
    (tmp_path / "ours.toml").unlink()
    with pytest.raises(KnownFailuresError, match=r"ours\.toml has no 'B1'; allowed: none"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["ours.toml", "ours.csv"])
def test_a_file_that_is_no_text_is_named(tmp_path, name):
    write_known(tmp_path)
    (tmp_path / name).write_bytes(b"\xff\xfe")
    with pytest.raises(KnownFailuresError, match=re.escape(name)):
        load(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(KnownFailuresError, match=f"{re.escape(name)} cannot be read"):
        load(tmp_path)


def test_a_case_that_raises_needs_what_its_exception_says(tmp_path):
    said = refusal(tmp_path, rows=[row(exception="TypeError")])
    assert said == (
        "ours.toml, B1: match is missing, a part of the exception's message: "
        f"ours values {CASE} ends in TypeError"
    )
    assert len(entries(tmp_path, RAISES, rows=[row(exception="TypeError")])) == 1


def test_no_cause_excuses_a_subject_of_our_own():
    for cause in load(ROOT / "suites" / "known_failures"):
        ours = [name for name in cause.subjects if name.startswith("harness.")]
        assert not ours, f"{cause.id} of {cause.package}.toml: what we ship is repaired, not filed"


def test_folders_are_read_file_by_file(tmp_path):
    write_known(tmp_path, package="a")
    write_known(tmp_path, B2.replace('"ours"', '"theirs"'), rows=[], package="b")
    assert [(cause.package, cause.id) for cause in load(tmp_path)] == [("a", "B1"), ("b", "B2")]
    assert len(load(tmp_path, tmp_path / "none")) == 2
    assert load(tmp_path / "none") == []


def test_what_is_written_is_what_was_read(tmp_path):
    rows = [row(case="b", kind="lost-keys", first_bad=0), row(case="a", exception="TypeError")]
    (cause,) = entries(tmp_path, RAISES, rows=rows)
    assert cause.match == "no such slot"
    assert cause.cases[Place("ours", "values", "b")] == Symptom("lost-keys", "", 0)
    assert write([cause], tmp_path) == [tmp_path / "ours.csv"]
    lines = (tmp_path / "ours.csv").read_text(encoding="utf-8").split()
    assert lines[1:] == sorted(rows)
    assert write(load(tmp_path), tmp_path) == []
    cause.cases.clear()
    assert write([cause], tmp_path) == [tmp_path / "ours.csv"]
    assert not (tmp_path / "ours.csv").exists()


def test_the_files_of_this_repository_are_as_the_machine_writes_them(tmp_path):
    folder = ROOT / "suites" / "known_failures"
    causes = load(folder)
    written = write(causes, tmp_path)
    assert len(written) == len({cause.package for cause in causes})
    for path in written:
        assert path.read_bytes() == (folder / path.name).read_bytes()
    assert 0 < len(causes) <= 45
