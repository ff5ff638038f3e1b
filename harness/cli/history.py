"""`harness history`: what changed from run to run, in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.common import BASELINES, KNOWN, RESULTS, Baselines, Known, Results, console
from harness.results.folder import HISTORY

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from harness.results.history import History

app = typer.Typer(help="Runs that are kept: what changed, and since when.", no_args_is_help=False)

Store = Annotated[str, typer.Option(help="Folder or fsspec URL of the kept runs.")]
_SHOWN = 30


@app.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    store: Store = HISTORY,
    last: Annotated[int, typer.Option(min=1, help="Runs to list.")] = 14,
) -> None:
    """List the last runs, what changed with the last one, and where run times jumped."""
    if context.invoked_subcommand is not None:
        return
    history = _open(store)
    if not history.runs():
        typer.echo(f"no runs in {store}; `harness history add` keeps one")
        return
    screen = console()
    _show_nights(screen, history, last)
    _show_table(screen, "Broken, and since which run", history.broken_since())
    _show_table(screen, "Changed with the last run", history.changes())
    for slower in history.steps():
        step = slower.step
        screen.print(
            f"alert: {slower.subject} {slower.check} takes {step.after:.2f} s since {slower.run}, "
            f"{step.before:.2f} s before ({step.ratio:.2f} times as long)",
            style="yellow",
        )


@app.command()
def add(
    store: Store = HISTORY,
    out: Results = RESULTS,
    baselines: Baselines = BASELINES,
    known: Known = KNOWN,
    keep: Annotated[int, typer.Option(min=1, help="Runs to keep; older ones are deleted.")] = 400,
) -> None:
    """Keep the run whose records are in --out."""
    from harness.gate import verdict as verdicts
    from harness.results.folder import Folder

    history = _open(store)
    frame, verdict = verdicts.read(out, baselines, known)
    run = Folder(out).read_run().run
    history.add(frame, run, red=verdict.red, headline=verdict.headline)
    gone = history.prune(keep)
    typer.echo(f"{run}: {len(frame)} records kept in {store}; {len(gone)} older runs deleted")


def _open(store: str) -> History:
    from harness.results.history import History

    return History(store)


def _show_nights(console: Console, history: History, last: int) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("run", "verdict", box=None, pad_edge=False)
    for name in ("pass", "known", "broken", "seconds"):
        table.add_column(name, justify="right")
    for row in history.nights(last).to_dict("records"):
        verdict = Text("red", style="red") if row["red"] else Text("green", style="green")
        counts = (str(row[name]) for name in ("pass", "known", "broken"))
        table.add_row(str(row["run"]), verdict, *counts, f"{row['seconds']:.0f}")
    console.print(table)


def _show_table(console: Console, title: str, rows: pd.DataFrame) -> None:
    """Print a title and the first rows; nothing if there are none."""
    from rich.table import Table

    if rows.empty:
        return
    table = Table(*map(str, rows.columns), box=None, pad_edge=False, title=f"\n{title}")
    table.title_justify = "left"
    for row in rows.head(_SHOWN).itertuples(index=False):
        table.add_row(*("-" if value is None else str(value) for value in row))
    console.print(table)
    if len(rows) > _SHOWN:
        console.print(f"and {len(rows) - _SHOWN} more")
