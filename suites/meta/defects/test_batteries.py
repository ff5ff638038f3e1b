"""Defects of the router and of the sliced-Q pass stand in the kill table beside the others."""

from __future__ import annotations

import pytest

from harness.defects import DEFECTS, batteries
from harness.defects.routing import ROUTERS
from harness.defects.sliced_q import FAULTS
from harness.report import kills


def test_every_defect_of_a_battery_is_planted_and_says_who_must_show_it() -> None:
    planted = batteries.planted()
    assert len(planted) == len(ROUTERS) + len(FAULTS)
    assert len({d.name for d in planted} | {d.name for d in DEFECTS}) == len(planted) + len(DEFECTS)
    assert all(d.what and d.caught_by for d in planted)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("router.BothSides", ("bands", "lengths")),
        ("sliced_q.OffByOne", (batteries.ANSWERS,)),
    ],
)
def test_a_row_shows_expected_beside_found(name: str, expected: tuple[str, ...]) -> None:
    names = [d.name for d in batteries.planted()]
    row = kills._row(len(DEFECTS) + names.index(name))
    assert (row.name, row.expected) == (name, expected)
    assert row.is_caught
    assert set(expected) <= {part for part, broken, run in row.checks if 0 < broken <= run}


def test_a_battery_whose_package_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(batteries.PACKAGES, "router", "no_such_package")
    assert batteries.absent() == {"router": "no_such_package"}
    assert {d.name.partition(".")[0] for d in batteries.planted()} == {"sliced_q"}
