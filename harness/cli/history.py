"""`harness history`: what changed from run to run, in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.common import BASELINES, KNOWN, RESULTS, Baselines, Known, Results, console, say
from harness.results.folder import HISTORY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from harness.report.past import Kind
    from harness.results.history import History

app = typer.Typer(help="Runs that are kept: what changed, and since when.", no_args_is_help=False)

Store = Annotated[str, typer.Option(help="Folder or fsspec URL of the kept runs.")]
_SHOWN = 30  # kinds of change; of broken checks none is left out
#: What `Kind.cells` hold.
BROKEN_COLUMNS = ("subject", "check", "now", "since", "cases", "the first")
CHANGED_COLUMNS = ("subject", "check", "what", "before", "now", "cases", "the first")


@app.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    store: Store = HISTORY,
    last: Annotated[int, typer.Option(min=1, help="Runs to list.")] = 14,
) -> None:
    """List the last runs, what changed with the last one, and where run times jumped."""
    if context.invoked_subcommand is not None:
        return
    from harness.report import past

    history = _open(store)
    for name, why in history.unread().items():
        say(f"{name} cannot be read, and is left out: {why}", err=True)
    if not (runs := history.runs()):
        say(f"no runs in {store}; `harness history add` keeps one")
        return
    screen = console()
    _show_nights(screen, history, last)
    broken = past.broken_kinds(history.broken_since(), runs[-1])
    _show_table(screen, "Broken, and since which run", BROKEN_COLUMNS, broken, len(broken))
    changed = past.changed_kinds(history.changes())
    red = sum(kind.red for kind in changed)
    _show_table(screen, "Changed with the last run", CHANGED_COLUMNS, changed, max(red, _SHOWN))
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
    say(f"{run}: {len(frame)} records kept in {store}; {len(gone)} older runs deleted")


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


def _show_table(
    console: Console, title: str, columns: Sequence[str], kinds: Sequence[Kind], shown: int
) -> None:
    """Print a title and the first kinds, a row each; nothing if there are none."""
    from rich.table import Table

    if not kinds:
        return
    table = Table(box=None, pad_edge=False, title=f"\n{title}", title_justify="left")
    for name in columns:
        table.add_column(name, justify="right" if name == "cases" else "left", overflow="fold")
    for kind in kinds[:shown]:
        table.add_row(*kind.cells)
    console.print(table)
    if len(kinds) > shown:
        say(f"and {len(kinds) - shown} more kinds of change")
