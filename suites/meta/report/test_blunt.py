"""The table of blunt mistakes: what was written is read, and what was not is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.report import blunt
from harness.report.blunt import Blunt, Line

LINES = (
    Line("cache", "values", "zeros", "wrong-values (24 of 24)", vacuous=False),
    Line("cache", "values", "nan", "passes: VACUOUS", vacuous=True),
    Line("cache", "reset", "zeros", "not claimed", vacuous=False),
    Line("cache", "reset", "nan", "not-a-number (4 of 4)", vacuous=False),
)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert blunt.write(LINES, tmp_path).name == blunt.FILE
    assert blunt.read(tmp_path) == Blunt(LINES)


def test_a_row_is_a_body_and_a_check_and_a_cell_is_counted() -> None:
    table = Blunt(LINES)
    assert table.mistakes == ["zeros", "nan"]
    assert [(b, c, [x.said for x in cells]) for b, c, cells in table.rows] == [
        ("cache", "values", ["wrong-values (24 of 24)", "passes: VACUOUS"]),
        ("cache", "reset", ["not claimed", "not-a-number (4 of 4)"]),
    ]
    assert table.vacuous == 1


@pytest.mark.parametrize(
    "text",
    ["", "{", "7", "[7]", '[{"body": "cache"}]', json.dumps([LINES[0].__dict__ | {"vacuous": 3}])],
)
def test_what_is_no_table_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / blunt.FILE).write_text(text)
    assert blunt.read(tmp_path) is None


def test_a_table_with_a_hole_is_none(tmp_path: Path) -> None:
    blunt.write(LINES[:3], tmp_path)
    assert blunt.read(tmp_path) is None
