"""`harness short`: chooses the cases of the short matrix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.common import BROKEN, KNOWN, RESULTS, Known, Misuse, Results, say

if TYPE_CHECKING:
    import pandas as pd

    from harness.gate.known import Cause
    from harness.gate.short import Short

_SUITES = Path("suites")


def short(
    out: Results = RESULTS,
    known: Known = KNOWN,
    check: Annotated[
        bool, typer.Option("--check", help="Only say what the list leaves out; run nothing.")
    ] = False,
) -> None:
    """Choose the cases of the short matrix from the last run of the whole plan.

    It is the cheapest set that still shows every planted defect, every known failure and every pair
    of schedule, model, check and body.  Needs `harness run --all` before; takes some minutes.
    """
    from harness.gate import known_files
    from harness.gate import short as lists

    if not _SUITES.is_dir():
        raise Misuse("no suites/ here: run it in a checkout of attention-harness")
    causes, today = known_files.load(known), lists.read(_SUITES)
    if check:
        raise typer.Exit(_audit(causes, today))
    frame = _whole_plan(out)
    chosen = _choose(frame, causes, today)
    for line in _changes(today, chosen):
        say(line)
    say(f"{_share(frame, chosen)}; {lists.write(chosen, _SUITES)}")


def _audit(causes: list[Cause], today: Short) -> int:
    """Say what the list leaves out: the exit status."""
    from harness.cover import audit, short_list

    targets = list(short_list.targets(today.rows))
    left, lost = audit.unmet(targets, causes, today), list(audit.lost(targets, today))
    for need in left:
        say(f"not shown: {' '.join(need)}")
    for place in lost:
        say(f"not planned: {' '.join(place)}")
    rows = sum(map(len, today.rows.values()))
    say(f"{rows} rows, {len(left)} needs unmet, {len(lost)} rows without a planned case")
    return BROKEN if left or lost else 0


def _whole_plan(out: Path) -> pd.DataFrame:
    """The records of the last run.  Raises Misuse unless it was a whole run of the whole plan."""
    from harness.results.complete import completed
    from harness.results.folder import ALL, Folder
    from harness.results.record import to_frame

    folder = Folder(out)
    run = folder.read_run()
    if not run.whole or run.matrix != ALL or run.exit_status is None:
        raise Misuse(f"{out} holds no whole run of the whole plan; `harness run --all` makes it")
    return to_frame(completed(folder))


def _choose(frame: pd.DataFrame, causes: list[Cause], today: Short) -> Short:
    from harness.cover import kills, short_list
    from harness.defects import DEFECTS

    found: list[kills.Shown] = []
    for number, shown in enumerate(kills.shown(), 1):
        found += shown
        checks = ", ".join(sorted({one.check for one in shown})) or "nothing"
        say(f"{number} of {len(DEFECTS)}: {DEFECTS[number - 1].name} by {checks}", err=True)
    return short_list.compute(frame, causes, found, today)


def _changes(today: Short, chosen: Short) -> list[str]:
    """A line for each case that came or went."""
    was = {(name, *place): why for name, held in today.rows.items() for place, why in held.items()}
    now = {(name, *place): why for name, held in chosen.rows.items() for place, why in held.items()}
    came = [f"+ {' '.join(place)}: {why}" for place, why in now.items() if place not in was]
    return came + [f"- {' '.join(place)}" for place in was if place not in now]


def _share(frame: pd.DataFrame, chosen: Short) -> str:
    """How many cases the list takes of the plan, and how much of its time."""
    cases = frame[frame["case"] != ""]
    takes = [
        chosen.takes(*place)
        for place in zip(cases["subject"], cases["check"], cases["case"], strict=True)
    ]
    part = cases[takes]
    return (
        f"{len(part):,} of {len(cases):,} cases, "
        f"{part['seconds'].sum():.0f} of {cases['seconds'].sum():.0f} s"
    )
