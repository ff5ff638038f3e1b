"""`harness check`: checks one implementation in a process of its own, and shows what broke."""

from __future__ import annotations

import json
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

    from harness.cli.watch import Outcome
    from harness.results.record import Record

_MIN_TIMEOUT_S, _MAX_TIMEOUT_S = 0.1, 86_400.0  # a day: timers do not take infinity


def check(
    target: Annotated[
        str, typer.Argument(help="file.py:Name, package.module:Name or a registered name.")
    ],
    scheme: Annotated[str | None, typer.Option(help="Only models of this scheme.")] = None,
    model: Annotated[
        list[str], typer.Option(help="Only this model, or family of models (repeatable).")
    ] = [],  # noqa: B006 - typer copies it
    case: Annotated[
        str | None,
        typer.Option(
            help="Only this case, model/schedule/dtype/bN, such as mistral-w9/chunk-4/float32/b1."
        ),
    ] = None,
    only: Annotated[str | None, typer.Option("--check", help="Only this check.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write every record to this file.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Draw the report as this .html file.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for each check.")] = 60.0,
    max_failures: Annotated[
        int | None, typer.Option(min=1, help="Stop at this many broken checks.")
    ] = None,
    stop: Annotated[
        bool, typer.Option("-x", "--exitfirst", help="Stop at the first broken check.")
    ] = False,
) -> None:
    """Check one implementation, in a process of its own.

    ^C shows what is known by then.
    """
    from harness.cli import outputs
    from harness.cli.watch import watch
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
    asked = {"scheme": scheme, "model": ",".join(model) or None, "case": case, "check": only}
    if "" in model:
        raise Misuse("--model is empty; leave it out to select everything")
    if empty := [f"--{name}" for name, value in asked.items() if value == ""]:
        raise Misuse(f"{empty[0]} is empty; leave it out to select everything")
    selection = {name: value for name, value in asked.items() if value is not None}
    try:
        outcome = watch(target, selection, timeout, screen, 1 if stop else max_failures)
    except parent.RefusedError as refused:
        raise Misuse(str(refused)) from refused
    try:
        _show(outcome, screen)
    finally:  # where the table cannot be shown, the files are all there is
        if json_file is not None:
            write_json(json_file, target, outcome)
        outputs.write(outcome.progress.done, junit, html)
    done = outcome.progress.done
    if outcome.status is not None:
        raise typer.Exit(outcome.status)
    if not any(r.status != "not-claimed" for r in done):
        raise Misuse(f"{outcome.progress.subject} claims none of these cases: nothing was checked")
    raise typer.Exit(BROKEN if terminal.broken(done) else 0)


def _show(outcome: Outcome, screen: Console) -> None:
    """Print the tables, and the known failures that explain them."""
    from harness.report import terminal

    done = outcome.progress.done
    if not done:
        say(f"{outcome.stopped} before a check had ended", err=True)
        return
    stopped = f"{outcome.stopped}, {outcome.left} not run" if outcome.stopped else ""
    terminal.show(screen, outcome.title, done, stopped=stopped)
    for line in _known_causes(terminal.broken(done)):
        screen.print(line, style="yellow", soft_wrap=True, markup=False)


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


def write_json(path: Path, target: str, outcome: Outcome) -> None:
    """Write every record, with the target that they belong to.  Raises Misuse.

    partial: true if some of the planned checks did not run.
    """
    progress = outcome.progress
    data = {
        "target": target,
        "subject": progress.subject,
        "version": progress.version,
        "partial": bool(outcome.stopped),
        "planned": len(progress.planned),
        "records": [json.loads(record.to_json()) for record in progress.done],
    }
    try:
        write_atomically(path, json.dumps(data, indent=1))
    except OSError as error:
        raise Misuse(f"--json: {path} cannot be written: {error.strerror}") from error
