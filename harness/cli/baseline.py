"""`harness baseline`: the exact integers of earlier runs."""

from __future__ import annotations

import typer

from harness.cli.common import BASELINES, BROKEN, RESULTS, Baselines, Misuse, Results

app = typer.Typer(help="The exact integers of earlier runs.", no_args_is_help=True)


@app.callback()
def baseline() -> None:
    """The exact integers of earlier runs."""


@app.command()
def update(
    out: Results = RESULTS,
    baselines: Baselines = BASELINES,
) -> None:
    """Take over the integers of the last run that drifted or are new."""
    from harness.gate import baselines as files
    from harness.results import complete
    from harness.results.folder import Folder

    folder, rows = Folder(out), files.read(baselines)
    info = folder.read_run()
    if strays := complete.strays(folder):
        raise Misuse(f"{out} holds records that are not of its run: {'; '.join(strays)}")
    done = rows.update(complete.completed(folder), whole=info.whole and info.exit_status in {0, 1})
    touched = files.write(rows, baselines)
    typer.echo(f"{done.added} rows added, {done.changed} changed, {done.dropped} dropped")
    if done.claims:
        typer.echo(f"{done.claims} counts of claims changed")
    for path in touched:
        typer.echo(f"  {path}")
    for record in done.refused:
        typer.echo(f"refused, {record.status}: {record.subject} {record.check} {record.case}")
    raise typer.Exit(BROKEN if done.refused else 0)
