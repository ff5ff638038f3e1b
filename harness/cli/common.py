"""What the commands share: misuse and exit statuses, options and default folders, the console."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.results.folder import LATEST
from harness.results.text import escaped

if TYPE_CHECKING:
    from rich.console import Console

#: Exit statuses: a check is broken; the command cannot be run as asked.
BROKEN, MISUSE = 1, 2

RESULTS = LATEST
BASELINES = Path("reports/baselines")
KNOWN = Path("suites/known_failures")

Results = Annotated[Path, typer.Option("--out", help="Folder of the records.")]
Baselines = Annotated[Path, typer.Option(help="Folder of the baselines.")]
Known = Annotated[Path, typer.Option(help="Folder of the known failures.")]
Required = Annotated[list[str], typer.Option("--require", help="Subject that must have run.")]


class Misuse(Exception):
    """A command cannot be run as asked; the message is one line."""


def require_folders(baselines: Path, known: Path) -> None:
    """Raise Misuse for a missing folder: the gate would compare with nothing."""
    for option, folder in (("--baselines", baselines), ("--known", known)):
        if not folder.is_dir():
            raise Misuse(
                f"{option}: no such folder: {folder}; `mkdir -p {shlex.quote(str(folder))}` makes "
                "an empty one"
            )


def require_writable(path: Path | None, option: str = "--json") -> None:
    """Raise Misuse if a result could not be written, before minutes of checks; leaves no file."""
    if path is None:
        return
    if path.is_dir():  # an empty path is a folder too
        raise Misuse(f"{option}: must be a file, got the folder {str(path)!r}")
    if not path.resolve().parent.is_dir():
        raise Misuse(f"{option}: no such folder: {path.resolve().parent}")
    there = path.exists()
    try:
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise Misuse(f"{option}: {path} cannot be written: {error.strerror}") from error
    if not there:
        path.unlink()


def console() -> Console:
    """The console of the commands; 140 columns wide where there is no terminal."""
    from harness.report.screen import screen

    return screen()


def say(text: object, *, err: bool = False, **style: Any) -> None:
    """Print one line.  What a subject, a test or a file put into it is shown, never obeyed."""
    typer.secho(escaped(str(text)), err=err, **style)
