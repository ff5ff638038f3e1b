"""`harness baseline`: what earlier runs found, integers and known failures, kept up to date."""

from __future__ import annotations

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
    Results,
    say,
)

if TYPE_CHECKING:
    import pandas as pd

    from harness.results.folder import RunInfo

app = typer.Typer(help="What earlier runs found, kept up to date.", no_args_is_help=True)


@app.callback()
def baseline() -> None:
    """What earlier runs found: exact integers, and the cases of known failures."""


@app.command()
def update(
    out: Results = RESULTS,
    baselines: Baselines = BASELINES,
    known: Known = KNOWN,
    cause: Annotated[
        str | None,
        typer.Option(help="File the broken records of the last run under this known failure."),
    ] = None,
    subject: Annotated[
        list[str] | None, typer.Option(help="With --cause: only this subject (repeatable).")
    ] = None,
    check: Annotated[
        list[str] | None, typer.Option(help="With --cause: only this check (repeatable).")
    ] = None,
    case: Annotated[
        list[str] | None,
        typer.Option(help="With --cause: only cases that match this glob (repeatable)."),
    ] = None,
) -> None:
    """Take over what the last run changed: integers, and how the cases of known failures fail.

    A new failure stays red until --cause files it under a known failure.
    """
    frame, run = _last_run(out)
    selection = {"subject": subject or [], "check": check or [], "case": case or []}
    if cause is not None:
        _file(cause, frame, known, selection)
    elif any(selection.values()):
        name = next(name for name, given in selection.items() if given)
        raise Misuse(f"--{name} needs --cause, the known failure to file under")
    else:
        _update(frame, run, baselines, known)


def _last_run(out: Path) -> tuple[pd.DataFrame, RunInfo]:
    """The records of the last run.  Raises Misuse if the folder also holds those of another."""
    from harness.results import complete
    from harness.results.folder import Folder
    from harness.results.record import to_frame

    folder = Folder(out)
    run = folder.read_run()
    if strays := complete.strays(folder):
        raise Misuse(f"{out} holds records of another run: {'; '.join(strays)}")
    return to_frame(complete.completed(folder)), run


def _update(frame: pd.DataFrame, run: RunInfo, baselines: Path, known: Path) -> None:
    from harness.gate import baselines as files
    from harness.gate import known_files, known_update
    from harness.results.folder import ALL

    held, causes = files.read(baselines), known_files.load(known)
    whole = run.whole and run.exit_status in {0, 1}
    refiled = known_update.update(causes, frame, whole=whole and run.matrix == ALL)
    done = held.update(refiled.frame, whole=whole, matrix=run.matrix)
    touched = [*files.write(held, baselines), *known_files.write(causes, known)]
    say(f"{done.added} rows added, {done.changed} changed, {done.dropped} dropped")
    if done.claims:
        say(f"{done.claims} counts of claims changed")
    if refiled.moved or refiled.dropped:
        say(f"{refiled.moved} cases of known failures moved, {refiled.dropped} dropped")
    for path in touched:
        say(f"  {path}")
    for record in done.refused:
        say(f"refused, {record.status}: {record.subject} {record.check} {record.case}")
    raise typer.Exit(BROKEN if done.refused else 0)


def _file(cause: str, frame: pd.DataFrame, known: Path, selection: dict[str, list[str]]) -> None:
    from harness.gate import known_files, known_update

    causes = known_files.load(known)
    try:
        filed = known_update.file_under(
            cause,
            causes,
            frame,
            subjects=selection["subject"],
            checks=selection["check"],
            cases=selection["case"],
        )
    except known_update.CannotFile as error:
        raise Misuse(str(error)) from error
    say(f"{len(filed.added)} cases filed under {cause}")
    for path in known_files.write(causes, known):
        say(f"  {path}")
    for place in filed.refused:
        say(f"refused, never a known failure (crash, hang or no memory): {' '.join(place)}")
    raise typer.Exit(BROKEN if filed.refused else 0)
