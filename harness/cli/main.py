"""The `harness` command.

Exit status 0: everything holds; 1: something is broken; 2: the command cannot be run as asked; 130
and 143: ended by ^C or SIGTERM.  Heavy imports (torch, pandas) wait until a command needs them.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from harness import __version__
from harness.cli import baseline, bench, check, fuzz, gate, history, kills, kv, short, signals
from harness.cli import list as listing
from harness.cli import run as running
from harness.cli.common import MISUSE, Misuse, say

_CLOSED = "standard output was closed before everything was written"


class _Group(TyperGroup):
    """Tells what cannot be written in one line, before the libraries below end the process."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and write all that it printed.  Raises Misuse."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except signals.Terminated as ended:  # typer would end it with the status of ^C
            raise typer.Exit(signals.TERMINATED) from ended
        except SystemExit as ended:  # rich does this where it cannot write
            if isinstance(ended.__context__, BrokenPipeError):
                raise Misuse(_CLOSED) from ended
            raise
        except BrokenPipeError as closed:
            raise Misuse(_CLOSED) from closed
        except OSError as error:
            # The files name themselves; only the output does not.
            where = error.filename or "output"
            raise Misuse(f"{where}: {error.strerror or error}") from error


app = typer.Typer(
    cls=_Group,
    help="Conformance of windowed attention and its KV caches.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_PASSES_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
#: The commands as the help lists them, those of a newcomer first: name, function, examples.
_COMMANDS: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
    (
        "check",
        check.check,
        (
            "harness check my_cache.py:Mine",
            "harness check my_cache.py:Mine --model gemma3 -x --json records.json",
            "harness check harness.sink --case mistral-w9/chunk-4/float32/b1 --check visibility",
        ),
    ),
    ("list", listing.list_, ("harness list",)),
    (
        "kv",
        kv.kv,
        (
            "harness kv gemma-3-27b --context 131072",
            "harness kv config.json --context 32768 --runtime llama.cpp",
        ),
    ),
    (
        "run",
        running.run,
        (
            "harness run",
            "harness run --all",
            "harness run --subject my_cache.py:Mine",
            "harness run -k gemma4",
        ),
    ),
    ("gate", gate.gate, ("harness gate --whole", "harness gate --require executorch.static")),
    ("report", gate.report, ("harness report",)),
    ("merge", gate.merge, ("harness merge parts/*",)),
    (
        "fuzz",
        fuzz.fuzz,
        ("harness fuzz my_cache.py:Mine --seconds 300", "harness fuzz harness.sink --hours 8"),
    ),
    ("kills", kills.kills, ("harness kills",)),
    ("short", short.short, ("harness short", "harness short --check")),
    ("bench", bench.bench, ("harness bench decode", "harness bench routing --json figures.json")),
)
for _name, _function, _examples in _COMMANDS:
    app.command(
        _name,
        # \b: click keeps the lines of this paragraph as they are.
        epilog="\b\nExamples:\n" + "\n".join(f"  {line}" for line in _examples),
        context_settings=_PASSES_ON if _function is running.run else None,
    )(_function)
app.add_typer(
    baseline.app,
    name="baseline",
    epilog="\b\nExample:\n  harness baseline update --cause short-cache",
)
app.add_typer(history.app, name="history", epilog="\b\nExample:\n  harness history add")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"attention-harness {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Conformance of windowed attention and its KV caches."""
    del version


def main() -> None:
    """Entry point of the console script."""
    if sys.stdout is None:  # python starts without it where it is closed
        sys.stderr.write("harness: standard output is closed\n")
        sys.exit(MISUSE)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a subject says may be no valid text
            stream.reconfigure(errors="backslashreplace")
    with signals.handled():
        status = _status()
    _close_output()
    sys.exit(status)


def _status() -> int:
    """Run the command: its exit status."""
    from harness.gate.baselines import BaselineError
    from harness.gate.known_files import KnownFailuresError
    from harness.results.folder import RecordsError
    from harness.results.history import HistoryError
    from harness.results.lock import BusyError

    one_line = (Misuse, RecordsError, BaselineError, KnownFailuresError, HistoryError, BusyError)
    try:
        app()
    except one_line as error:
        say(f"harness: {error}", err=True)
        return MISUSE
    except SystemExit as ended:  # how typer ends every command
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except signals.Terminated:
        return signals.TERMINATED
    except KeyboardInterrupt:
        return signals.INTERRUPTED
    return 0


def _close_output() -> None:
    """Where the last words cannot be written, throw them away: Python would complain at its end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
