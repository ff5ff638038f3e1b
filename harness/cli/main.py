"""The `harness` command.

Exit status 0: everything holds; 1: something is broken; 2: the command cannot be run as asked.
Heavy imports (torch, pandas) wait until a command needs them.
"""

from __future__ import annotations

import sys

import typer

from harness.cli import baseline, bench, check, fuzz, gate, history, kills, kv
from harness.cli import list as listing
from harness.cli.common import MISUSE, Misuse

app = typer.Typer(
    help="Conformance of windowed attention and its KV caches.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(check.check)
app.command("list")(listing.list_)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(gate.run)
app.command()(gate.gate)
app.command()(gate.merge)
app.command()(gate.report)
app.command()(kills.kills)
app.command()(bench.bench)
app.command()(fuzz.fuzz)
app.command()(kv.kv)
app.add_typer(baseline.app, name="baseline")
app.add_typer(history.app, name="history")


def main() -> None:
    """Entry point of the console script."""
    from harness.gate.baselines import BaselineError
    from harness.gate.known_files import KnownFailuresError
    from harness.results.folder import RecordsError
    from harness.results.history import HistoryError

    try:
        app()
    except (Misuse, RecordsError, BaselineError, KnownFailuresError, HistoryError) as error:
        typer.echo(f"harness: {error}", err=True)
        sys.exit(MISUSE)
    except OSError as error:
        if error.filename is None:
            raise
        typer.echo(f"harness: {error.filename}: {error.strerror}", err=True)
        sys.exit(MISUSE)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
