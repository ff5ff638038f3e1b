"""Every planted defect of a router is shown by the scenarios that name it; sound routers pass."""

from __future__ import annotations

import pytest

from harness.defects.router_calls import ON_REQUEST, SCENARIOS, failures
from harness.defects.routing import ROUTERS, SOUND, VerdictById
from harness.schemes.band.routing import Router


@pytest.mark.parametrize("router", SOUND, ids=lambda r: r.__name__)
def test_a_sound_router_breaks_no_scenario(router: type[Router]) -> None:
    assert failures(router) == {}


@pytest.mark.parametrize("router", ROUTERS, ids=lambda r: r.__name__)
def test_a_defective_router_is_shown(router: type[Router]) -> None:
    broken = failures(router)
    missed = ROUTERS[router] - set(broken)
    assert not missed, f"{router.__name__} ({router.__doc__}) is shown by {broken}, not {missed}"


def test_the_table_names_scenarios_that_exist_and_describes_its_defects() -> None:
    assert set().union(*ROUTERS.values()) <= {*SCENARIOS, *ON_REQUEST}
    assert all(router.__doc__ for router in ROUTERS)
    # Every scenario except these two of plain traffic catches a defect.
    shown = set().union(*ROUTERS.values())
    assert {*SCENARIOS, *ON_REQUEST} - shown == {"packing", "other masks"}


def test_an_address_is_used_again_within_the_scenario() -> None:
    """Otherwise the scenario could not catch a table by id()."""
    broken = failures(VerdictById)["address used again"]
    assert "ROUTED" in broken
