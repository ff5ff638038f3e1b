"""`harness gate`, `merge` and `report`: the verdict on a run, and its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.common import (
    BASELINES,
    KNOWN,
    RESULTS,
    Baselines,
    Known,
    Misuse,
    Required,
    Results,
    require_folders,
    say,
)
from harness.results.files import write_together

if TYPE_CHECKING:
    import pandas as pd

    from harness.gate.verdict import Verdict
    from harness.report.past import Past

_SHOWN = 10  # broken checks, and drifted integers
_CLIPPED = 200  # characters of a message


def gate(
    out: Results = RESULTS,
    baselines: Baselines = BASELINES,
    known: Known = KNOWN,
    require: Required = [],  # noqa: B006 - typer copies it
    whole: Annotated[bool, typer.Option("--whole", help="Fail if the run was partial.")] = False,
) -> None:
    """Judge the records of the last run, and write the files that CI reads next to them."""
    _, verdict = gate_results(out, baselines, known, require, whole=whole)
    raise typer.Exit(verdict.exit_status)


def merge(
    parts: Annotated[list[Path], typer.Argument(help="Folders of results: shards, or suites.")],
    out: Results = RESULTS,
    baselines: Baselines = BASELINES,
    known: Known = KNOWN,
    require: Required = [],  # noqa: B006 - typer copies it
) -> None:
    """Combine the parts of a run, then gate and report."""
    from harness.results import merge as merging
    from harness.results.lock import Lock

    require_folders(baselines, known)
    with Lock(out, "--out"):
        try:
            merged = merging.merge(parts, out)
        except merging.MergeError as error:
            raise Misuse(str(error)) from error
        for shard in merged.absent:
            say(f"shard {shard} is missing", err=True)
        frame, verdict = gate_results(out, baselines, known, require, whole=True)
        draw_report(frame, verdict, out)
    raise typer.Exit(verdict.exit_status)


def report(
    out: Results = RESULTS,
    baselines: Baselines = BASELINES,
    known: Known = KNOWN,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the matrix as an SVG in this file instead.")
    ] = None,
) -> None:
    """Draw the HTML report of the last run."""
    from harness.gate import verdict as verdicts

    require_folders(baselines, known)
    frame, verdict = verdicts.read(out, baselines, known)
    if picture is None:
        draw_report(frame, verdict, out)
    else:
        _picture(frame, picture)


def gate_results(
    out: Path, baselines: Path, known: Path, require: list[str], *, whole: bool
) -> tuple[pd.DataFrame, Verdict]:
    """Judge the records in `out`, write the files that CI reads next to them, print the verdict."""
    from harness.gate import verdict as verdicts
    from harness.report import comment, junit, summary

    require_folders(baselines, known)
    frame, verdict = verdicts.read(out, baselines, known, require, need_whole=whole)
    write_together(
        {
            out / "summary.md": summary.to_markdown(frame, verdict),
            out / comment.FILE: comment.to_comment(verdict),
            out / "verdict.json": json.dumps(verdict.to_json(), indent=1),
            out / "junit.xml": junit.to_xml(frame, verdict),
        }
    )
    _show(verdict)
    say(f"  {out / 'summary.md'}")
    return frame, verdict


def _show(verdict: Verdict) -> None:
    """Print which run it was, the verdict, and the first of what makes it red."""
    say(verdict.of)
    say(verdict.headline, fg="red" if verdict.red else "green", bold=True)
    _show_broken(verdict)
    for drift in verdict.drift[:_SHOWN]:
        say(f"  drift: {drift}")
    if verdict.without_baselines:
        say("  no baselines: no integer was compared", fg="yellow")
    if verdict.drift or verdict.no_baseline:
        say(
            f"  {len(verdict.drift)} drifted, {verdict.no_baseline} without a baseline; "
            "`harness baseline update` takes them over"
        )
    if verdict.no_claims:
        say(f"  no baseline of claims for: {', '.join(verdict.no_claims)}")
    for found in verdict.stale:
        say(f"  stale: {found}")
    for item in verdict.outside:
        say(f"  other test: {item}")


def _show_broken(verdict: Verdict) -> None:
    """The first broken checks, one of each kind before a second of any, and how to repeat them."""
    from harness.results.record import rows
    from harness.results.text import cut

    for row in rows(verdict.broken.head(_SHOWN)):
        at = "" if row.first_bad is None else f", first bad position {row.first_bad}"
        what = " ".join(filter(None, (row.subject, row.check, row.case)))
        say(f"  {row.status}: {what}{at}: {cut(row.message, _CLIPPED)}")
        say(f"    {row.reproduce or row.item}")
    if (left := len(verdict.broken) - _SHOWN) > 0:
        say(f"  and {left} more broken checks")


def draw_report(frame: pd.DataFrame, verdict: Verdict, out: Path) -> None:
    from harness.report.html import build
    from harness.results.folder import Folder

    run = Folder(out).read_run()
    past, unread = _past(frame, verdict)
    for name, why in unread.items():
        say(f"  history: {name} cannot be read, and is left out: {why}", err=True)
    say(f"  {build(frame, verdict, out / 'index.html', past, run, unread)}")


def _picture(frame: pd.DataFrame, path: Path) -> None:
    """The picture that the README shows.  Raises Misuse where there is nothing to draw."""
    from harness.report import picture

    try:
        say(f"  {picture.write(frame, path)}")
    except ValueError as empty:
        raise Misuse(f"--picture: {empty}") from empty


def _past(frame: pd.DataFrame, verdict: Verdict) -> tuple[Past | None, dict[str, str]]:
    """The history, if this run is the last that it holds; and what cannot be read of it."""
    from harness.report.past import past
    from harness.results.folder import HISTORY
    from harness.results.history import History, HistoryError

    if not Path(HISTORY).is_dir():  # none is kept
        return None, {}
    try:
        history = History()
        runs = history.runs()
        held = past(history, verdict.drift) if runs and runs[-1] in set(frame["run"]) else None
        return held, history.unread()
    except HistoryError as error:
        return None, {HISTORY: str(error)}
