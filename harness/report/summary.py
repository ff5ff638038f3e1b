"""The verdict as Markdown, for the summary page of a CI job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from harness.gate.verdict import Verdict
from harness.report import status as looks
from harness.report.markdown import code, prose
from harness.results.groups import groups
from harness.results.record import rows
from harness.results.text import cut, escaped, number

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 40  # rows; a CI summary holds 1 MiB, and the report and the records have the rest
_COMMAND = 2_000  # characters of a command: long enough to copy any of ours


def to_markdown(frame: pd.DataFrame, verdict: Verdict) -> str:
    """The verdict, then what broke and how to reproduce it, then the matrix."""
    sections = [
        _head(verdict),
        _broken(verdict.broken),
        _drift(verdict),
        _stale(verdict),
        _outside(verdict),
        _matrix(frame),
        _known(verdict),
        _absent(verdict),
    ]
    return escaped("\n\n".join(s for s in sections if s) + "\n", keep="\n")


def _head(verdict: Verdict) -> str:
    lines = [f"# Attention conformance: {verdict.colour}", "", prose(verdict.of), ""]
    lines += [*(f"- {prose(reason)}" for reason in verdict.reasons), ""] if verdict.red else []
    lines.append(f"{_counts(verdict.counts)}.")
    if not verdict.whole:
        lines += ["", "The run was not whole: this says nothing about the checks that it left out."]
    if verdict.without_baselines:
        lines += ["", "There are no baselines: no integer was compared."]
    if verdict.no_baseline:
        lines += [
            "",
            f"{verdict.no_baseline} records have integers but no baseline for these versions; "
            "`harness baseline update` adds them.",
        ]
    return "\n".join(lines)


def _broken(broken: pd.DataFrame) -> str:
    if broken.empty:
        return ""
    lines = [
        "## What broke",
        "",
        "| status | subject | check | case | first bad | figure | bound |",
        "|---|---|---|---|---:|---:|---:|",
    ]
    for row in rows(broken.head(_SHOWN)):
        numbers = (number(n, "-") for n in (row.first_bad, row.figure, row.bound))
        cells = (row.status, row.subject, row.check, row.case, *numbers)
        lines.append(f"| {' | '.join(map(prose, cells))} |")
    if len(broken) > _SHOWN:
        lines += ["", f"and {len(broken) - _SHOWN} more."]
    lines += ["", "To reproduce the first of each kind:", ""]
    for group in groups(broken)[:_SHOWN]:
        lines.append(f"- {code(group.first.message)}")
        lines.append(f"  {code(group.first.reproduce or group.first.item, _COMMAND)}")
    return "\n".join(lines)


def _drift(verdict: Verdict) -> str:
    if not verdict.drift:
        return ""
    lines = ["## Drift", "", "If these are intended, run `harness baseline update`.", ""]
    lines += [
        "| subject | check | case | integer | baseline | now |",
        "|---|---|---|---|---:|---:|",
    ]
    for d in verdict.drift[:_SHOWN]:
        was, now = ("-" if v is None else f"{v:,}" for v in (d.baseline, d.now))
        cells = (*map(prose, (d.subject, d.check, d.case, d.integer)), was, now)
        lines.append(f"| {' | '.join(cells)} |")
    if len(verdict.drift) > _SHOWN:
        lines += ["", f"and {len(verdict.drift) - _SHOWN} more."]
    return "\n".join(lines)


def _stale(verdict: Verdict) -> str:
    if not verdict.stale:
        return ""
    lines = ["## Stale known failures", ""]
    lines += [f"- {prose(str(found))}" for found in verdict.stale]
    return "\n".join(lines)


def _outside(verdict: Verdict) -> str:
    if not verdict.outside:
        return ""
    return "\n".join(["## Other tests that failed", "", *(f"- {code(t)}" for t in verdict.outside)])


def _matrix(frame: pd.DataFrame) -> str:
    """Subject by check, with counts by status."""
    by_cell = frame.groupby(["subject", "check"], sort=False)["status"]
    cells = {(str(s), str(c)): Counter(map(str, held)) for (s, c), held in by_cell}
    checks = [str(check) for check in frame["check"].unique() if check != "load"]
    lines = [
        "## Matrix",
        "",
        f"| subject | {' | '.join(map(prose, checks))} |",
        "|---|" + "---|" * len(checks),
    ]
    for subject in sorted({subject for subject, _ in cells}):
        row = [_counts(cells.get((subject, check), {})) for check in checks]
        if (subject, "load") in cells:
            row[:1] = [", ".join(cells[subject, "load"]).replace("-", " ")]
        lines.append(f"| {prose(subject)} | {' | '.join(row)} |")
    return "\n".join(lines)


def _known(verdict: Verdict) -> str:
    if not verdict.known:
        return ""
    lines = ["## Known failures", ""]
    for entry, count in verdict.known:
        records = "record" if count == 1 else "records"
        lines.append(
            f"- {prose(', '.join(entry.subjects))} [{prose(entry.id)}]({_link(entry.link)}), "
            f"{count} {records}: {prose(entry.reason)}"
        )
    return "\n".join(lines)


def _absent(verdict: Verdict) -> str:
    if not verdict.not_installed:
        return ""
    absent = (
        f"- {prose(name)}: {prose(why)}" for name, why in sorted(verdict.not_installed.items())
    )
    return "\n".join(["## Not installed", "", *absent])


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {status}" for status, n in looks.ordered(counts))


def _link(address: str) -> str:
    """The address without what would end a link of Markdown."""
    return quote(cut(address, _COMMAND), safe=":/?#[]@!$&'*+,;=%~")
