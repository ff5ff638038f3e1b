"""What the documentation shows is what the code does: outputs, subjects, the kill table."""

from __future__ import annotations

import re
from importlib import metadata

import pytest
from doc_pages import ROOT, blocks, generator

from harness.checks import run_check
from harness.contract import kind_of
from harness.cover import kills
from harness.defects import DEFECTS, Defect
from harness.gate.short import read
from harness.results.finding import Status
from harness.run import plan

generate = generator()
SHORT = read(ROOT / "suites")

SHOWN = {
    name: said
    for path in generate.PAGES
    for name, said in generate.shown(path.read_text(encoding="utf-8")).items()
}


def _stable(text: str) -> str:
    """Without the last digits of measured figures, which differ from machine to machine."""
    masked = re.sub(r"\d+\.\d+(e-\d+)?|\d+e-\d+", "#", text)
    return re.sub(r" +", " ", masked)


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_outputs_are_true(name: str) -> None:
    said = generate.outputs.output(name)
    assert _stable(said) == _stable(SHOWN[name]), "run python docs/generate.py --outputs"


def test_another_position_or_count_would_be_seen() -> None:
    said = "values  a/b/float32/b1  fails  8  3.621  8.789e-06\n35 of 54 checks broken\n"
    assert _stable(said) == _stable(said.replace("3.621", "3.6215").replace("8.789e", "9e"))
    assert _stable(said) != _stable(said.replace("  8  ", "  9  "))
    assert _stable(said) != _stable(said.replace("35 of", "34 of"))


def test_the_example_itself_holds() -> None:
    said = generate.outputs.output("the example")
    assert re.search(r"^my-cache: all \d+ checks hold$", said, re.MULTILINE)


def test_subjects_are_read_from_their_sources_as_they_load() -> None:
    read = {subject.name: subject for subject in generate.subjects.subjects()}
    points = {point.name: point for point in metadata.entry_points(group="harness.subjects")}
    assert set(read) == set(points)
    for name in ("harness.sink", "harness.static.smart", "harness.banded.blocks", "torch.flex"):
        loaded = points[name].load()
        assert loaded.name == name
        assert read[name].schemes == loaded.schemes
        assert read[name].kind == kind_of(loaded)
        assert read[name].suite == getattr(loaded, "suite", "")
        assert read[name].what


def test_the_kill_table_holds_every_planted_defect() -> None:
    names = [defect.name.removeprefix("defect.") for defect in DEFECTS]
    assert sorted(generate.checks.kills()) == sorted(names), (
        "run harness kills, then python docs/generate.py --kills reports/latest/kills.json"
    )
    assert all(generate.checks.kills().values())
    assert {check for by in generate.checks.kills().values() for check in by} <= set(
        generate.checks.check_names()
    )


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_what_the_kill_table_says_is_what_the_short_matrix_proves(defect: Defect) -> None:
    """suites/meta/cover/ plants each defect, and holds the list to what catches it."""
    proved = {check for name, check in kills.listed(SHORT) if name == defect.name}
    assert set(generate.checks.kills()[defect.name.removeprefix("defect.")]) == proved


def test_the_operation_of_the_page_is_right() -> None:
    page = (generate.DOCS / "write-a-subject.md").read_text(encoding="utf-8")
    code = next(block.body for block in blocks(page) if "def attend" in block.body)
    space: dict[str, type] = {}
    exec(code, space)
    for check, case in plan.items(space["Masked"], models=["llama3-sink2"]):
        if case.schedule.name in {"chunk-w+1", "prefill-w+1"} and check != "peak_bytes":
            assert run_check(space["Masked"], check, case).status == Status.PASS, (check, case.id)
