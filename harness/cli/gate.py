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
)

if TYPE_CHECKING:
    import pandas as pd

    from harness.gate.verdict import Verdict
    from harness.report.past import Past


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
            typer.echo(f"shard {shard} is missing", err=True)
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
    (out / "summary.md").write_text(summary.to_markdown(frame, verdict), encoding="utf-8")
    (out / comment.FILE).write_text(comment.to_comment(verdict), encoding="utf-8")
    (out / "verdict.json").write_text(json.dumps(verdict.to_json(), indent=1), encoding="utf-8")
    junit.write(frame, verdict, out / "junit.xml")
    typer.secho(verdict.headline, fg="red" if verdict.red else "green", bold=True)
    for drift in verdict.drift[:10]:
        typer.echo(f"  drift: {drift}")
    if verdict.drift or verdict.no_baseline:
        typer.echo(
            f"  {len(verdict.drift)} drifted, {verdict.no_baseline} without a baseline; "
            "`harness baseline update` takes them over"
        )
    if verdict.no_claims:
        typer.echo(f"  no baseline of claims for: {', '.join(verdict.no_claims)}")
    for found in verdict.stale:
        typer.echo(f"  stale: {found}")
    for item in verdict.outside:
        typer.echo(f"  other test: {item}")
    typer.echo(f"  {out / 'summary.md'}")
    return frame, verdict


def draw_report(frame: pd.DataFrame, verdict: Verdict, out: Path) -> None:
    from harness.report.html import build
    from harness.results.folder import Folder

    run = Folder(out).read_run()
    typer.echo(f"  {build(frame, verdict, out / 'index.html', _past(frame), run)}")


def _picture(frame: pd.DataFrame, path: Path) -> None:
    """The picture that the README shows.  Raises Misuse where there is nothing to draw."""
    from harness.report import picture

    try:
        typer.echo(f"  {picture.write(frame, path)}")
    except ValueError as empty:
        raise Misuse(f"--picture: {empty}") from empty


def _past(frame: pd.DataFrame) -> Past | None:
    """The history, if this run is the last that it holds."""
    from harness.report.past import past
    from harness.results.history import History, HistoryError

    try:
        history = History()
        runs = history.runs()
        return past(history) if runs and runs[-1] in set(frame["run"]) else None
    except HistoryError:  # none is kept, or duckdb is not installed
        return None
