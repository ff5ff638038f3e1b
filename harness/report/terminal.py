"""What `harness check` prints: counts by check, and for each broken check where, how much, how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.results.record import Record, figure_text

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
    """Print the counts, the broken checks as a table, and the first of each kind in full."""
    console.print(_counts(records))
    bad = [r for r in broken(records) if r.status != "missing"]
    kinds = _kinds(bad)
    if bad:
        others = [r for _, *alike in kinds for r in alike]
        table = [first for first, *_ in kinds] + others  # so that a cut table names every kind
        console.print(_broken_table(table[:_SHOWN]))
        if len(bad) > _SHOWN:
            console.print(f"and {len(bad) - _SHOWN} more; --json FILE holds all")
    for first, *alike in kinds[:_SHOWN]:
        console.print(Text(_title(first), style="bold"), soft_wrap=True)
        console.print(Text(f"  {_cut(first.message)}"), soft_wrap=True)
        console.print(Text(f"  {first.reproduce}", style="cyan"), soft_wrap=True)
        if alike:
            console.print(Text(f"  and {len(alike)} more cases of {first.check}", style="dim"))
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
    for name in ("check", "case", ""):
        table.add_column(name, overflow="fold")
    for name in ("first bad", "figure", "bound"):
        table.add_column(name, justify="right", no_wrap=True)
    for record in bad:
        first = "-" if record.first_bad is None else str(record.first_bad)
        numbers = (first, figure_text(record.figure), figure_text(record.bound))
        table.add_row(record.check, record.case, _WORDS[record.status], *numbers)
    return table


def _kinds(bad: Sequence[Record]) -> list[list[Record]]:
    """Records by check and status, in the order of the first of each."""
    out: dict[tuple[str, str], list[Record]] = {}
    for record in bad:
        out.setdefault((record.check, record.status), []).append(record)
    return list(out.values())


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
