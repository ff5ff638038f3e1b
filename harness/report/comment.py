"""The verdict as a short comment on a pull request, which each run replaces.

The first line is an invisible mark, by which a workflow finds its own comment and replaces the
text.  `LINK` is a placeholder for the address of the full report, which only the workflow knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from harness.gate.drift import CLAIMS
from harness.report import markdown
from harness.report import status as looks
from harness.report.markdown import code, prose
from harness.results.finding import Status
from harness.results.groups import groups
from harness.results.record import rows
from harness.results.text import cut, escaped, number

if TYPE_CHECKING:
    import pandas as pd

    from harness.gate.drift import Drift
    from harness.gate.verdict import Verdict
    from harness.results.record import Row

FILE = "comment.md"
MARK = "<!-- attention-harness: conformance -->"
LINK = "REPORT_URL"

#: GitHub allows 65,536 characters; people read far fewer.
LONGEST = 20_000
_KINDS = 10  # the most kinds of failure, drifted integers or other tests to list


def to_comment(verdict: Verdict) -> str:
    """The text: mark, verdict, what broke, what changed since the baseline, link to the report."""
    parts = [
        f"{MARK}\n## Attention conformance: {verdict.colour}",
        "\n".join(_verdict(verdict)),
        "\n".join(_broken(verdict.broken)),
        "\n".join(_changed(verdict)),
        f"[The full report]({LINK}) is an artifact of this run: its `index.html` opens offline.",
    ]
    return escaped(_fit([part for part in parts if part]), keep="\n")


def _fit(parts: list[str]) -> str:
    """The parts as one text; all but the last are cut, by whole lines, to what fits."""
    *body, last = parts
    lines = "\n\n".join(body).split("\n")
    left = LONGEST - len(last) - len("\n\nCut.\n\n\n")
    kept: list[str] = []
    for line in lines:
        left -= len(line) + 1
        if left < 0:
            kept += ["", "Cut."]
            break
        kept.append(line)
    return "\n".join([*kept, "", last, ""])


def _verdict(verdict: Verdict) -> Iterator[str]:
    counts = looks.ordered(verdict.counts)
    yield prose(verdict.of)
    yield ""
    reasons = "; ".join(map(prose, verdict.reasons))
    yield f"**{reasons or 'every check that ran holds, or is a known failure'}**"
    yield ""
    yield ", ".join(f"{n:,} {status.replace('-', ' ')}" for status, n in counts) + "."
    if not verdict.whole:
        yield "The run was not whole: this says nothing about what it left out."
    if verdict.without_baselines:
        yield "There are no baselines: no integer was compared."


def _broken(broken: pd.DataFrame) -> Iterator[str]:
    """One line for each kind of failure, and the command that repeats its first case."""
    found = groups(broken)
    if not found:
        return
    yield from ("### What broke", "", "| | subject | check | cases | first bad | message |")
    yield "|---|---|---|---:|---:|---|"
    shown = found[:_KINDS]
    for group in shown:
        r, count = group.first, f"{group.size:,}{group.where}"
        bad, says = number(r.first_bad), code(r.message) if r.message else ""
        checks = prose(group.checks)
        yield f"| {r.status} | {code(r.subject)} | {checks} | {count} | {bad} | {says} |"
    if len(found) > len(shown):
        yield f"\nand {len(found) - len(shown):,} more kinds."
    yield "\nTo repeat the first of each:\n\n```"
    yield from (
        cut((group.first.reproduce or group.first.item).replace("```", "'''"), markdown.LONGEST)
        for group in shown
    )
    yield "```"


def _changed(verdict: Verdict) -> Iterator[str]:
    """Differences from the committed baselines, claims and known failures; other failed tests."""
    lines = [
        *_listed(map(_drifted, verdict.drift)),
        *_listed(
            f"{code(r.subject)} {r.check}: known failure {code(r.known)} passes"
            for r in _fixed(verdict.broken)
        ),
        *_listed(f"{code(e.subject)} {code(e.id)} matches nothing any more" for e in verdict.stale),
        *_listed(f"other test: {code(test)}" for test in verdict.outside),
    ]
    if verdict.no_baseline:
        lines.append(f"- {verdict.no_baseline:,} records with integers have no baseline yet")
    if verdict.no_claims:
        lines.append(f"- no baseline of claims yet: {code(', '.join(verdict.no_claims))}")
    if lines:
        yield from ("### Changed since the baseline", "", *lines)
    if verdict.drift or verdict.no_baseline or verdict.no_claims:
        yield "\nIf this is intended, run `harness baseline update` and commit the files."


def _drifted(drift: Drift) -> str:
    was, now = ("none" if v is None else f"{v:,}" for v in (drift.baseline, drift.now))
    by = ""
    if drift.baseline is not None and drift.now is not None:
        by = f" ({drift.now - drift.baseline:+,})"
    what = "claims" if drift.integer == CLAIMS else f"{code(drift.case)} {drift.integer}"
    return f"{code(drift.subject)} {drift.check} {what}: {was} → {now}{by}"


def _fixed(broken: pd.DataFrame) -> Iterator[Row]:
    """One record of each known failure that passed."""
    fixed = broken[broken["status"] == Status.FIXED.value]
    return rows(fixed.drop_duplicates(["subject", "known"]))


def _listed(texts: Iterable[str]) -> Iterator[str]:
    held = list(texts)
    yield from (f"- {text}" for text in held[:_KINDS])
    if len(held) > _KINDS:
        yield f"- and {len(held) - _KINDS:,} more"
