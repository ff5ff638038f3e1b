"""What `harness check` prints: counts by check, and for each broken check where, how much, how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.gate.records import Record, figure_text

_BROKEN = ("fail", "error", "missing")
_WORDS = {
    "pass": "holds",
    "fail": "fails",
    "error": "broke",
    "missing": "not run",
    "not-claimed": "not claimed",
}
_STYLES = {"pass": "green", "fail": "red", "error": "red", "missing": "red"}
_SHOWN = 20


def broken(records: Sequence[Record]) -> list[Record]:
    """The records of checks that do not hold."""
    return [record for record in records if record.status in _BROKEN]


def show(console: Console, subject: str, records: Sequence[Record]) -> None:
    """Print the counts, then the broken checks, the first of each kind in front."""
    console.print(_counts(records))
    bad = _leaders_first([r for r in broken(records) if r.status != "missing"])
    if bad:
        console.print(_broken_table(bad[:_SHOWN]))
        for record in bad[:_SHOWN]:
            console.print(Text(_title(record), style="bold"), soft_wrap=True)
            console.print(Text(f"  {_cut(record.message)}"), soft_wrap=True)
            console.print(Text(f"  {record.reproduce}", style="cyan"), soft_wrap=True)
        if len(bad) > _SHOWN:
            console.print(f"and {len(bad) - _SHOWN} more; --json FILE holds all")
    console.print(Text(_last_line(subject, records), style="red" if bad else "green"))


def _counts(records: Sequence[Record]) -> Table:
    by_check: dict[str, Counter[str]] = {}
    for record in records:
        by_check.setdefault(record.check, Counter())[record.status] += 1
    there = [s for s in _WORDS if any(counts[s] for counts in by_check.values())]
    table = Table("check", box=None, pad_edge=False)
    for status in there:
        table.add_column(_WORDS[status], justify="right")
    for check, counts in by_check.items():
        cells = (Text(str(counts[s] or ""), style=_STYLES.get(s, "yellow")) for s in there)
        table.add_row(check, *cells)
    return table


def _broken_table(bad: Sequence[Record]) -> Table:
    table = Table(box=None, pad_edge=False, title="\nBroken", title_justify="left")
    for name, justify in (("check", "left"), ("case", "left"), ("", "left")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for name in ("first bad", "figure", "bound"):
        table.add_column(name, justify="right", no_wrap=True)
    for record in bad:
        first = "-" if record.first_bad is None else str(record.first_bad)
        numbers = (first, figure_text(record.figure), figure_text(record.bound))
        table.add_row(record.check, record.case, _WORDS[record.status], *numbers)
    return table


def _leaders_first(bad: Sequence[Record]) -> list[Record]:
    """One of each check and status before the rest, so that a cut list names every kind."""
    leaders = {(r.check, r.status): r for r in reversed(bad)}
    first = [r for r in bad if r is leaders[r.check, r.status]]
    return first + [r for r in bad if r is not leaders[r.check, r.status]]


def _title(record: Record) -> str:
    return f"{record.check} {record.case}"


def _last_line(subject: str, records: Sequence[Record]) -> str:
    counts = Counter(record.status for record in records)
    bad, left = counts["fail"] + counts["error"], counts["missing"]
    if not bad:
        return f"{subject}: all {counts['pass']} checks hold"
    tail = f", {left} not run: too many hung or died" if left else ""
    return f"{subject}: {bad} of {bad + counts['pass']} checks broken{tail}"


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 400 else flat[:397] + "..."
