"""`harness run`, `gate`, `merge` and `report`: the matrix, its verdict and its report."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.common import (
    BASELINES,
    BROKEN,
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


def run(
    context: typer.Context,
    out: Results = RESULTS,
    baselines: Baselines = BASELINES,
    known: Known = KNOWN,
    require: Required = [],  # noqa: B006 - typer copies it
    lower: Annotated[
        bool, typer.Option(help="Lower programs before a full run rather than inside its checks.")
    ] = True,
) -> None:
    """Run the suites over the whole matrix, then gate and report.  Takes pytest's arguments.

    Without such arguments, a partial run fails the gate.
    """
    suites = sorted(Path("suites").glob("test_*.py"))
    if not suites:
        raise Misuse("no suites/test_*.py here: run it in a checkout of attention-harness")
    require_folders(baselines, known)
    before = _run_id(out)
    given = any(Path(a.partition("::")[0]).exists() for a in context.args if not a.startswith("-"))
    paths = [] if given else [str(path) for path in suites]
    if lower and not context.args:
        _lower_programs()
    command = [sys.executable, "-m", "pytest", *paths, f"--harness-out={out}", *context.args]
    status = subprocess.run(command, check=False).returncode
    if _run_id(out) == before:
        if status in {4, 5}:  # pytest has printed why
            raise Misuse("pytest selected nothing" if status == 5 else "pytest refused its options")
        say(f"harness: pytest ended with status {status} before any check", err=True)
        raise typer.Exit(BROKEN)
    frame, verdict = _gate(out, baselines, known, require, whole=not context.args)
    _report(frame, verdict, out)
    raise typer.Exit(verdict.exit_status)


def gate(
    out: Results = RESULTS,
    baselines: Baselines = BASELINES,
    known: Known = KNOWN,
    require: Required = [],  # noqa: B006 - typer copies it
    whole: Annotated[bool, typer.Option("--whole", help="Fail if the run was partial.")] = False,
) -> None:
    """Judge the records of the last run, and write the files that CI reads next to them."""
    _, verdict = _gate(out, baselines, known, require, whole=whole)
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

    require_folders(baselines, known)
    try:
        merged = merging.merge(parts, out)
    except merging.MergeError as error:
        raise Misuse(str(error)) from error
    for shard in merged.absent:
        say(f"shard {shard} is missing", err=True)
    frame, verdict = _gate(out, baselines, known, require, whole=True)
    _report(frame, verdict, out)
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
        _report(frame, verdict, out)
    else:
        _picture(frame, picture)


def _gate(
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


def _lower_programs() -> None:
    """Lower all programs of the matrix now: a check's time limit would not be enough for it."""
    from harness.run.prelower import prelower

    began = time.monotonic()
    for n, done in enumerate(prelower(), 1):
        if done.error or done.seconds > 1:  # the others were in the cache
            said = done.error or f"{done.seconds:.0f} s"
            say(f"lowered {n}: {done.target} {done.model}, {said}", err=True)
    say(f"programs ready after {time.monotonic() - began:.0f} s", err=True)


def _report(frame: pd.DataFrame, verdict: Verdict, out: Path) -> None:
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


def _run_id(out: Path) -> str:
    from harness.results.folder import Folder, RecordsError

    try:
        return Folder(out).read_run().run
    except RecordsError:
        return ""
