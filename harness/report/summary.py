"""The verdict as Markdown, for the summary page of a CI job."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from harness.gate.verdict import Verdict
from harness.results.finding import Status
from harness.results.record import Record, figure_text, from_frame

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 40  # a CI summary holds 1 MiB; past this the report and the records tell the rest


def to_markdown(frame: pd.DataFrame, verdict: Verdict) -> str:
    """Verdict first, then what broke and how to reproduce it, then the matrix."""
    sections = [
        _head(verdict),
        _broken(from_frame(verdict.broken)),
        _drift(verdict),
        _stale(verdict),
        _outside(verdict),
        _matrix(from_frame(frame)),
        _known(verdict),
        _absent(verdict),
    ]
    return "\n\n".join(s for s in sections if s) + "\n"


def _head(verdict: Verdict) -> str:
    lines = [f"# Attention conformance: {verdict.colour}", ""]
    lines += [*(f"- {reason}" for reason in verdict.reasons), ""] if verdict.red else []
    lines.append(f"{_counts(Counter(verdict.counts))}.")
    if not verdict.whole:
        lines += ["", "The run was not whole: this says nothing of the checks that it left out."]
    if verdict.no_baseline:
        lines += [
            "",
            f"{verdict.no_baseline} records have integers and no baseline for these versions; "
            "`harness baseline update` takes them over.",
        ]
    return "\n".join(lines)


def _broken(broken: list[Record]) -> str:
    if not broken:
        return ""
    lines = [
        "## What broke",
        "",
        "| status | subject | check | case | first bad | figure | bound |",
        "|---|---|---|---|---:|---:|---:|",
    ]
    for record in broken[:_SHOWN]:
        first = "-" if record.first_bad is None else str(record.first_bad)
        cells = (record.status, record.subject, record.check, record.case, first)
        numbers = (figure_text(record.figure), figure_text(record.bound))
        lines.append(f"| {' | '.join(_cell(c) for c in (*cells, *numbers))} |")
    if len(broken) > _SHOWN:
        lines += ["", f"and {len(broken) - _SHOWN} more."]
    lines += ["", "Reproduce, the first of each kind:", ""]
    for record in _one_of_each(broken):
        lines.append(f"- {_line(record.message)}")
        lines.append(f"  `{record.reproduce or record.item}`")
    return "\n".join(lines)


def _drift(verdict: Verdict) -> str:
    if not verdict.drift:
        return ""
    lines = ["## Drift", "", "`harness baseline update` takes these over, if they are meant.", ""]
    lines += [
        "| subject | check | case | integer | baseline | now |",
        "|---|---|---|---|---:|---:|",
    ]
    for d in verdict.drift[:_SHOWN]:
        was, now = ("-" if v is None else f"{v:,}" for v in (d.baseline, d.now))
        lines.append(f"| {d.subject} | {d.check} | {d.case} | {d.integer} | {was} | {now} |")
    if len(verdict.drift) > _SHOWN:
        lines += ["", f"and {len(verdict.drift) - _SHOWN} more."]
    return "\n".join(lines)


def _stale(verdict: Verdict) -> str:
    if not verdict.stale:
        return ""
    lines = ["## Stale known failures", ""]
    lines += [f"- {found}" for found in verdict.stale]
    return "\n".join(lines)


def _outside(verdict: Verdict) -> str:
    if not verdict.outside:
        return ""
    return "\n".join(["## Other tests that failed", "", *(f"- `{t}`" for t in verdict.outside)])


def _matrix(records: list[Record]) -> str:
    """Subject by check, with counts by status."""
    cells: dict[tuple[str, str], Counter[str]] = {}
    for record in records:
        cells.setdefault((record.subject, record.check), Counter())[record.status] += 1
    checks = list(dict.fromkeys(check for _, check in cells if check != "load"))
    lines = ["## Matrix", "", f"| subject | {' | '.join(checks)} |", "|---|" + "---|" * len(checks)]
    for subject in sorted({subject for subject, _ in cells}):
        row = [_counts(cells.get((subject, check))) for check in checks]
        if (subject, "load") in cells:
            row[:1] = [", ".join(cells[subject, "load"]).replace("-", " ")]
        lines.append(f"| {subject} | {' | '.join(row)} |")
    return "\n".join(lines)


def _known(verdict: Verdict) -> str:
    if not verdict.known:
        return ""
    lines = ["## Known failures", ""]
    for entry, count in verdict.known:
        records = "record" if count == 1 else "records"
        lines.append(
            f"- {', '.join(entry.subjects)} [{entry.id}]({entry.link}), {count} {records}: "
            f"{_line(entry.reason)}"
        )
    return "\n".join(lines)


def _absent(verdict: Verdict) -> str:
    if not verdict.not_installed:
        return ""
    absent = (f"- {name}: {why}" for name, why in sorted(verdict.not_installed.items()))
    return "\n".join(["## Not installed", "", *absent])


def _counts(counts: Counter[str] | None) -> str:
    if not counts:
        return ""
    order = [s.value for s in Status]
    return ", ".join(f"{counts[s]} {s}" for s in sorted(counts, key=order.index))


def _one_of_each(broken: list[Record]) -> list[Record]:
    kinds: dict[tuple[str, str, str], Record] = {}
    for record in broken:
        kinds.setdefault((record.subject, record.check, record.status), record)
    return list(kinds.values())[:_SHOWN]


def _cell(text: str) -> str:
    return text.replace("|", "\\|") or "-"


def _line(text: str) -> str:
    """Text on one line, cut where it would swamp the page."""
    flat = " ".join(text.split())
    return flat if len(flat) <= 300 else flat[:297] + "..."
