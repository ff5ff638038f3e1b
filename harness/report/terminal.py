"""What `harness check` prints: counts by check, then every broken check and how to repeat it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.report import status as looks
from harness.report.explain import HINT, Explained, explained, reads_like_a_limit
from harness.results.finding import RED, Status
from harness.results.groups import leaders_first
from harness.results.record import Record, rows, to_frame
from harness.results.text import cut, holding, number

if TYPE_CHECKING:
    import pandas as pd

#: Columns of the counts: passes first, then the other statuses, the worst first.
_COLUMNS = (Status.PASS, *(status for status in looks.LOOKS if status != Status.PASS))
_SHOWN = 20
_CLIPPED = 400  # characters of a message


def broken(records: Sequence[Record]) -> list[Record]:
    """The records whose status is red: failed, broken, fixed or missing."""
    return [record for record in records if record.status in RED]


def show(console: Console, subject: str, records: Sequence[Record], *, stopped: str = "") -> None:
    """Print the counts, a table of the broken checks, and what each kind of failure says.

    stopped: why not all of the planned checks ran, and how many did not.
    """
    frame = to_frame(records)
    console.print(_counts(frame))
    bad = frame[frame["status"].isin(list(RED - {Status.MISSING}))]
    told = explained(bad)
    if len(bad) and len(told) == 1 and told[0].same and len(bad) > 1:
        console.print(f"\nall {len(bad)} broken checks: the same\n")
    elif len(bad):
        console.print(_broken_table(leaders_first(bad).head(_SHOWN)))
        if len(bad) > _SHOWN:
            console.print(f"and {len(bad) - _SHOWN} more; --json FILE holds all")
    for each in told[:_SHOWN]:
        _explain(console, each, whole=len(records) == 1)
    style = "red" if len(bad) else "yellow" if stopped else "green"
    console.print(Text(_last_line(subject, records, stopped), style=style))


def _explain(console: Console, each: Explained, *, whole: bool) -> None:
    """One failure in full.  whole: where one check was asked for, its message is not cut."""
    first = each.first
    message = " ".join(first.message.split()) if whole else cut(first.message, _CLIPPED)
    console.print(Text(f"{first.check} {first.case}", style="bold"), soft_wrap=True)
    console.print(Text(f"  {message}"), soft_wrap=True)
    if each.limit:
        console.print(Text(f"  {HINT}", style="yellow"), soft_wrap=True)
    console.print(Text(f"  {first.reproduce}", style="cyan"), soft_wrap=True)
    if len(message) == _CLIPPED and not whole:
        console.print(Text("  (cut here; this command shows all of it)", style="dim"))
    if others := each.others():
        console.print(Text(f"  {others}", style="dim"))


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
        word = "refuses" if reads_like_a_limit(row) else looks.look(row.status).verb
        table.add_row(row.check, row.case, word, *numbers)
    return table


def _last_line(subject: str, records: Sequence[Record], stopped: str) -> str:
    counts = Counter(record.status for record in records)
    bad, left = counts[Status.FAIL] + counts[Status.ERROR], counts[Status.MISSING]
    tail = f"; {stopped}" if stopped else ""
    if not bad:
        held = counts[Status.PASS]
        return f"{subject}: {holding(held, all_of_them=not stopped)}{tail}"
    tail += f", {left} not run: too many hung or died" if left else ""
    return f"{subject}: {bad} of {bad + counts[Status.PASS]} checks broken{tail}"
