"""Records, runs, verdicts, statuses and baselines."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from page_parts.source import ROOT, table


def fields(kind: str) -> Callable[[str], str]:
    """A maker of a dataclass's table, which keeps what the page says of each field.

    A field of which the page says nothing yet takes what the class's docstring says of it.
    """

    def make(before: str) -> str:
        said = dict(re.findall(r"^\| `(\w+)` \| (?:\\\||[^|])* \| (.*?) \|$", before, re.M))
        held = _dataclass(kind)
        rows = [
            [
                f"`{f.name}`",
                f"`{f.type}`".replace("|", "\\|"),
                said.get(f.name) or _said(held, f.name),
            ]
            for f in dataclasses.fields(held)
        ]
        return table(["field", "type", "meaning"], rows)

    return make


def _said(held: type, field: str) -> str:
    """What a docstring says of a field: "name: meaning." or "name: meaning;"."""
    found = re.search(rf"\b{field}: (.+?)(?=[.;](?:\s|$))", " ".join((held.__doc__ or "").split()))
    return found[1] if found else ""


def _dataclass(kind: str) -> type:
    from harness.gate.verdict import Verdict
    from harness.results.folder import RunInfo
    from harness.results.record import Record

    return {c.__name__: c for c in (Record, RunInfo, Verdict)}[kind]


def statuses() -> str:
    """The statuses, and which of them turn the gate red."""
    from harness.results.finding import RED, Status

    path = ROOT / "harness" / "results" / "finding.py"
    said = dict(re.findall(r'^    [A-Z_]+ = "([\w-]+)"\s*# (.+)$', path.read_text("utf-8"), re.M))
    rows = [
        [f"`{s}`", said.get(s, "the check ran and holds"), "red" if s in RED else ""]
        for s in Status
    ]
    return table(["status", "meaning", "gate"], rows)


def baseline_columns() -> str:
    """The columns of the baseline files."""
    from harness.gate import baselines, claims

    rows = [
        ["`<scheme>.csv`", ", ".join(baselines.KEY), ", ".join(baselines.INTEGERS)],
        [f"`{claims.FILE}`", ", ".join(claims.KEY), ", ".join(claims.VALUES)],
    ]
    return table(["file", "key", "integers"], rows)
