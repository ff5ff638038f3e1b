"""The verdict as a comment on a pull request: one that is kept up to date, and short.

The first line is a mark that no reader sees: a workflow finds its own comment by it and writes the
new text over the old.  `LINK` stands where the address of the whole report belongs, which only
the workflow knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from harness.gate.drift import CLAIMS
from harness.report import status as looks
from harness.results.finding import Status
from harness.results.groups import groups
from harness.results.record import rows
from harness.results.text import cut, number

if TYPE_CHECKING:
    import pandas as pd

    from harness.gate.drift import Drift
    from harness.gate.verdict import Verdict
    from harness.results.record import Row

FILE = "comment.md"
MARK = "<!-- attention-harness: conformance -->"
LINK = "REPORT_URL"

#: GitHub takes 65,536 characters; who reads a comment takes far fewer.
LONGEST = 20_000
_KINDS = 10  # kinds of failure, drifted integers, other tests that are listed
_CLIPPED = 300  # characters of a message or a case


def to_comment(verdict: Verdict) -> str:
    """The text: mark, verdict, what broke, what changed since the baseline, where the rest is."""
    parts = [
        f"{MARK}\n## Attention conformance: {verdict.colour}",
        "\n".join(_verdict(verdict)),
        "\n".join(_broken(verdict.broken)),
        "\n".join(_changed(verdict)),
        f"[The whole report]({LINK}) is an artifact of this run: `index.html` opens offline.",
    ]
    return _fit([part for part in parts if part])


def _fit(parts: list[str]) -> str:
    """The parts, those in the middle cut by whole lines where they are longer than a comment."""
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
    yield f"**{'; '.join(verdict.reasons) or 'every check that ran holds, or is a known failure'}**"
    yield ""
    yield ", ".join(f"{n:,} {status.replace('-', ' ')}" for status, n in counts) + "."
    if not verdict.whole:
        yield "The run was not whole: this says nothing of what it left out."


def _broken(broken: pd.DataFrame) -> Iterator[str]:
    """One line for each kind of failure, with the line that runs its first again."""
    found = groups(broken)
    if not found:
        return
    yield from ("### What broke", "", "| | subject | check | cases | first bad | says |")
    yield "|---|---|---|---:|---:|---|"
    shown = found[:_KINDS]
    for r, count in shown:
        bad, says = number(r.first_bad), _code(r.message) if r.message else ""
        yield f"| {r.status} | {_code(r.subject)} | {r.check} | {count:,} | {bad} | {says} |"
    if len(found) > len(shown):
        yield f"\nand {len(found) - len(shown):,} more kinds."
    yield "\nThe first of each again:\n\n```"
    yield from (_flat(group.first.reproduce or group.first.item) for group in shown)
    yield "```"


def _changed(verdict: Verdict) -> Iterator[str]:
    """What is not as the committed files say: baselines, claims, known failures."""
    lines = [
        *_listed(map(_drifted, verdict.drift)),
        *_listed(
            f"{_code(r.subject)} {r.check}: known failure {_code(r.known)} passes"
            for r in _fixed(verdict.broken)
        ),
        *_listed(
            f"{_code(e.subject)} {_code(e.id)} matches nothing any more" for e in verdict.stale
        ),
        *_listed(f"other test: {_code(test)}" for test in verdict.outside),
    ]
    if verdict.no_baseline:
        lines.append(f"- {verdict.no_baseline:,} records with integers have no baseline yet")
    if verdict.no_claims:
        lines.append(f"- no count of claims yet: {_code(', '.join(verdict.no_claims))}")
    if lines:
        yield from ("### Changed since the baseline", "", *lines)
    if verdict.drift or verdict.no_baseline or verdict.no_claims:
        yield "\nIf it is meant: `harness baseline update`, and commit the files."


def _drifted(drift: Drift) -> str:
    was, now = ("none" if v is None else f"{v:,}" for v in (drift.baseline, drift.now))
    by = ""
    if drift.baseline is not None and drift.now is not None:
        by = f" ({drift.now - drift.baseline:+,})"
    what = "claims" if drift.integer == CLAIMS else f"{_code(drift.case)} {drift.integer}"
    return f"{_code(drift.subject)} {drift.check} {what}: {was} → {now}{by}"


def _fixed(broken: pd.DataFrame) -> Iterator[Row]:
    """One record of each known failure that passed."""
    fixed = broken[broken["status"] == Status.FIXED.value]
    return rows(fixed.drop_duplicates(["subject", "known"]))


def _listed(texts: Iterable[str]) -> Iterator[str]:
    held = list(texts)
    yield from (f"- {text}" for text in held[:_KINDS])
    if len(held) > _KINDS:
        yield f"- and {len(held) - _KINDS:,} more"


def _code(text: str) -> str:
    """Text that nothing in it can turn into markup, or into a call for somebody."""
    return f"`{_flat(text).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def _flat(text: str) -> str:
    """On one line, cut where it would swamp the comment."""
    return cut(text.replace("```", "'''"), _CLIPPED)
