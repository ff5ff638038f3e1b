"""The `harness` command.

Exit status 0: everything holds; 1: something is broken; 2: the command cannot be run as asked.
Heavy imports (torch, pandas) wait until a command needs them.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import typer

from harness.cli import baseline, bench, check, fuzz, gate, history, kills, kv
from harness.cli import list as listing
from harness.cli.common import MISUSE, Misuse, say

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
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where a full disk behind a redirection can still be told
    except (Misuse, RecordsError, BaselineError, KnownFailuresError, HistoryError) as error:
        say(f"harness: {error}", err=True)
        sys.exit(MISUSE)
    except OSError as error:
        if error.filename is None:  # the files name themselves; only the output does not
            _forget_output()
        say(f"harness: {error.filename or 'output'}: {error.strerror or error}", err=True)
        sys.exit(MISUSE)
    except KeyboardInterrupt:
        sys.exit(130)


def _forget_output() -> None:
    """Let what is still unwritten go nowhere: Python would fail with it again as it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
