"""What `harness check` prints: counts by check, then every broken check and how to repeat it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.report import status as looks
from harness.results.finding import RED, Status
from harness.results.groups import groups, leaders_first
from harness.results.record import Record, rows, to_frame
from harness.results.text import cut, number

if TYPE_CHECKING:
    import pandas as pd

#: Columns of the counts: passes first, then the other statuses, the worst first.
_COLUMNS = (Status.PASS, *(status for status in looks.LOOKS if status != Status.PASS))
_SHOWN = 20
_CLIPPED = 400  # characters of a message


def broken(records: Sequence[Record]) -> list[Record]:
    """The records whose status is red: failed, broken, fixed or missing."""
    return [record for record in records if record.status in RED]


def show(console: Console, subject: str, records: Sequence[Record]) -> None:
    """Print the counts, a table of the broken checks, and the first of each kind in full."""
    frame = to_frame(records)
    console.print(_counts(frame))
    bad = frame[frame["status"].isin(list(RED - {Status.MISSING}))]
    if len(bad):
        console.print(_broken_table(leaders_first(bad).head(_SHOWN)))
        if len(bad) > _SHOWN:
            console.print(f"and {len(bad) - _SHOWN} more; --json FILE holds all")
    for group in groups(bad)[:_SHOWN]:
        first, left = group.first, group.size - 1
        console.print(Text(f"{first.check} {first.case}", style="bold"), soft_wrap=True)
        console.print(Text(f"  {cut(first.message, _CLIPPED)}"), soft_wrap=True)
        console.print(Text(f"  {first.reproduce}", style="cyan"), soft_wrap=True)
        if left:
            more = f"  and {left} more cases of {group.checks}"
            console.print(Text(more, style="dim"), soft_wrap=True)
    style = "red" if len(bad) else "green"
    console.print(Text(_last_line(subject, records), style=style))


def _counts(frame: pd.DataFrame) -> Table:
    """One row per check, one column per status that occurs."""
    there = [looks.look(s) for s in _COLUMNS if (frame["status"] == s).any()]
    table = Table("check", box=None, pad_edge=False)
    for look in there:
        table.add_column(look.verb, justify="right")
    for check, statuses in frame.groupby("check", sort=False)["status"]:
        counts = Counter(looks.look(status) for status in statuses)
        cells = (Text(str(counts[look] or ""), style=look.colour) for look in there)
        table.add_row(str(check), *cells)
    return table


def _broken_table(bad: pd.DataFrame) -> Table:
    table = Table(box=None, pad_edge=False, title="\nBroken", title_justify="left")
    for name in ("check", "case", ""):
        table.add_column(name, overflow="fold")
    for name in ("first bad", "figure", "bound"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows(bad):
        numbers = (number(n, "-") for n in (row.first_bad, row.figure, row.bound))
        table.add_row(row.check, row.case, looks.look(row.status).verb, *numbers)
    return table


def _last_line(subject: str, records: Sequence[Record]) -> str:
    counts = Counter(record.status for record in records)
    bad, left = counts[Status.FAIL] + counts[Status.ERROR], counts[Status.MISSING]
    if not bad:
        return f"{subject}: all {counts[Status.PASS]} checks hold"
    tail = f", {left} not run: too many hung or died" if left else ""
    return f"{subject}: {bad} of {bad + counts['pass']} checks broken{tail}"
