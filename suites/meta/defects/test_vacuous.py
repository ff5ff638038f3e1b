"""No check lets a blunt mistake pass without a reason."""

from __future__ import annotations

import pytest

from harness.defects import vacuous
from harness.defects.blunt import BODIES, MISTAKES


@pytest.fixture(scope="module")
def cells() -> list[vacuous.Cell]:
    return list(vacuous.table())


def test_no_cell_is_vacuous(cells: list[vacuous.Cell]) -> None:
    assert [f"{c.body} {c.check} {c.mistake}" for c in cells if c.is_vacuous] == []


def test_a_reason_stands_only_where_nothing_is_red(cells: list[vacuous.Cell]) -> None:
    used = {(c.body, c.check, c.mistake) for c in cells if not c.red and not c.not_claimed}
    assert set(vacuous.REASONS) == used


def test_every_mistake_is_planted_in_every_body_under_every_check_of_it(
    cells: list[vacuous.Cell],
) -> None:
    assert {(c.body, c.mistake) for c in cells} == {(b, m) for b in BODIES for m in MISTAKES}
    assert len(cells) == len({(c.body, c.check, c.mistake) for c in cells})


def test_what_claims_nothing_never_passes(cells: list[vacuous.Cell]) -> None:
    of_it = [c for c in cells if c.mistake == "claims nothing"]
    assert of_it
    assert all(c.passed == c.red == 0 for c in of_it)


def test_nan_is_called_nan(cells: list[vacuous.Cell]) -> None:
    kinds = {kind for c in cells if c.mistake == "nan" for kind in c.kinds}
    assert kinds == {"not-a-number", "bytes-too-few"}
