"""`harness check`: checks one implementation in a process of its own, and shows what broke."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.common import BROKEN, KNOWN, Misuse, console, require_writable, say
from harness.results.files import write_atomically
from harness.results.finding import Status

if TYPE_CHECKING:
    from rich.console import Console

    from harness.results.record import Record
    from harness.run.parent import Progress

_MIN_TIMEOUT_S, _MAX_TIMEOUT_S = 0.1, 86_400.0  # a day: timers do not take infinity


def check(
    target: Annotated[
        str, typer.Argument(help="file.py:Name, package.module:Name or a registered name.")
    ],
    scheme: Annotated[str | None, typer.Option(help="Only models of this scheme.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model, or family of models.")] = None,
    case: Annotated[
        str | None, typer.Option(help="Only this case, model/schedule/dtype/bN.")
    ] = None,
    only: Annotated[str | None, typer.Option("--check", help="Only this check.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write every record to this file.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Draw the report as this .html file.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for each check.")] = 60.0,
) -> None:
    """Check one implementation, in a process of its own."""
    from harness.cli import outputs
    from harness.report import terminal
    from harness.run import parent

    require_writable(json_file)
    outputs.require_places(junit, html)
    if not _MIN_TIMEOUT_S <= timeout <= _MAX_TIMEOUT_S:  # neither holds for NaN
        raise Misuse(
            f"--timeout must be a number of seconds from {_MIN_TIMEOUT_S:g} to "
            f"{_MAX_TIMEOUT_S:g}, got {timeout:g}"
        )
    screen = console()
    asked = {"scheme": scheme, "model": model, "case": case, "check": only}
    if empty := [f"--{name}" for name, value in asked.items() if value == ""]:
        raise Misuse(f"{empty[0]} is empty; leave it out to select everything")
    selection = {name: value for name, value in asked.items() if value is not None}
    try:
        progress = watch(target, selection, timeout, screen)
    except parent.RefusedError as refused:
        raise Misuse(str(refused)) from refused
    if json_file is not None:
        write_json(json_file, target, progress)
    outputs.write(progress.done, junit, html)
    terminal.show(screen, title(progress), progress.done)
    for line in _known_causes(terminal.broken(progress.done)):
        screen.print(line, style="yellow", soft_wrap=True)
    if not any(r.status != "not-claimed" for r in progress.done):
        raise Misuse(f"{progress.subject} claims none of these cases: nothing was checked")
    raise typer.Exit(BROKEN if terminal.broken(progress.done) else 0)


def watch(target: str, selection: dict[str, str], timeout: float, console: Console) -> Progress:
    """Run the checks of a target, with a progress bar or, without a terminal, with lines."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    from harness.report import terminal
    from harness.run import parent

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    progress = parent.Progress()
    said = time.monotonic()
    quiet = not console.is_terminal
    with Bar(*columns, TimeElapsedColumn(), console=console, transient=True, disable=quiet) as bar:
        task = bar.add_task(f"loading {target}", total=None)
        for progress in parent.run(target, selection, timeout):
            bad = len(terminal.broken(progress.done))
            note = f"{title(progress)}, {bad} broken" if bad else title(progress)
            done, total = len(progress.done), len(progress.planned)
            bar.update(task, description=note, completed=done, total=total)
            if quiet and time.monotonic() - said > 5:
                said = time.monotonic()
                say(f"{note}: {done}/{total}", err=True)
    return progress


def _known_causes(broken: Sequence[Record]) -> Iterator[str]:
    """A line for each known failure of a released package that explains broken checks.

    The checks still count as broken here: whoever checks an implementation wants to know.
    """
    from harness.gate import known, known_files

    if not broken or not KNOWN.is_dir():
        return
    try:
        causes = known_files.load(KNOWN)
    except known_files.KnownFailuresError as error:
        yield f"known failures: {error}"
        return
    judged = [known.judge(replace(record), causes) for record in broken]
    explained = Counter(record.known for record in judged if record.status == Status.KNOWN)
    for cause in causes:
        if count := explained[cause.id]:
            yield f"known, {count} of {len(broken)}: {cause.id}: {cause.what} {cause.link}"


def title(progress: Progress) -> str:
    """Name and version of the subject."""
    return f"{progress.subject} {progress.version}".strip()


def write_json(path: Path, target: str, progress: Progress) -> None:
    """Write every record, with the target that they belong to."""
    data = {
        "target": target,
        "subject": progress.subject,
        "version": progress.version,
        "records": [json.loads(record.to_json()) for record in progress.done],
    }
    write_atomically(path, json.dumps(data, indent=1))
