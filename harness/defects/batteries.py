"""Planted defects that are not subjects: those of the router and of the sliced-Q pass.

Each kind is judged by a battery of its own instead of by the checks.  If the package that a battery
needs is not installed, its defects are not planted, and `absent` names it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

#: Batteries by the package that each needs.
PACKAGES = {"router": "transformers", "sliced_q": "coremltools"}
#: What the sliced-Q battery judges: the numbers that a sliced program returns.
ANSWERS = "answers"


@dataclass(frozen=True)
class BatteryDefect:
    """A defect and its battery.

    caught_by: the parts of the battery that must catch it.  judge: runs the battery, and returns
    (broken, run) for each part.
    """

    name: str
    what: str
    caught_by: tuple[str, ...]
    judge: Callable[[], dict[str, tuple[int, int]]]


def planted() -> list[BatteryDefect]:
    """The defects of every battery that can be run here."""
    makers = {"router": _routers, "sliced_q": _sliced_q}
    return [defect for kind, make in makers.items() if kind not in absent() for defect in make()]


def absent() -> dict[str, str]:
    """Batteries that cannot be run here, with the missing package of each."""
    return {kind: package for kind, package in PACKAGES.items() if find_spec(package) is None}


def _routers() -> list[BatteryDefect]:
    from harness.defects.routing import ROUTERS

    return [
        BatteryDefect(
            f"router.{router.__name__}",
            _doc(router),
            tuple(sorted(scenarios)),
            partial(_scenarios, router),
        )
        for router, scenarios in ROUTERS.items()
    ]


def _scenarios(router: Any) -> dict[str, tuple[int, int]]:
    from harness.defects.router_calls import ON_REQUEST, SCENARIOS, failures

    broken = failures(router)
    return {name: (int(name in broken), 1) for name in (*SCENARIOS, *ON_REQUEST)}


def _sliced_q() -> list[BatteryDefect]:
    from harness.defects.sliced_q import FAULTS

    return [
        BatteryDefect(f"sliced_q.{fault.__name__}", _doc(fault), (ANSWERS,), partial(_forms, fault))
        for fault in FAULTS
    ]


def _forms(fault: Any) -> dict[str, tuple[int, int]]:
    from harness.defects.sliced_q import BATTERY, planted, problems

    return {ANSWERS: (len(list(problems(planted(fault)))), len(BATTERY))}


def _doc(patch: type[object]) -> str:
    return " ".join((patch.__doc__ or "").split())
