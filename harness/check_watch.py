"""What `harness check` and `harness list` show while and after they work."""

from __future__ import annotations

import json
import time
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from harness import check_table, isolation, registry
from harness.isolation import Progress


def watch(target: str, selection: dict[str, str], timeout: float, console: Console) -> Progress:
    """Follow the checks of a target to their end, with a bar or, without a terminal, in lines."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    progress = isolation.Progress()
    said = time.monotonic()
    quiet = not console.is_terminal
    with Bar(*columns, TimeElapsedColumn(), console=console, transient=True, disable=quiet) as bar:
        task = bar.add_task(f"loading {target}", total=None)
        for progress in isolation.run(target, selection, timeout):
            bad = len(check_table.broken(progress.done))
            note = f"{title(progress)}, {bad} broken" if bad else title(progress)
            done, total = len(progress.done), len(progress.planned)
            bar.update(task, description=note, completed=done, total=total)
            if quiet and time.monotonic() - said > 5:
                said = time.monotonic()
                typer.echo(f"{note}: {done}/{total}", err=True)
    return progress


def console() -> Console:
    """Of width 140 where there is no terminal."""
    console = Console(highlight=False)
    # Without a terminal rich assumes 80 columns and folds the ids that people copy.
    return console if console.is_terminal else Console(highlight=False, width=140)


def title(progress: Progress) -> str:
    """Name and version of the subject."""
    return f"{progress.subject} {progress.version}".strip()


def write_json(path: Path, target: str, progress: Progress) -> None:
    """Every record, with the target that they are of."""
    data = {
        "target": target,
        "subject": progress.subject,
        "version": progress.version,
        "records": [json.loads(record.to_json()) for record in progress.done],
    }
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")


def installed(name: str) -> tuple[str, str]:
    """Version and schemes of a registered subject, or why it has none."""
    try:
        subject = registry.load(name)
    except registry.NotInstalled as absent:
        return "-", str(absent)
    except registry.TargetError as broken:
        return "-", f"cannot be loaded: {broken}"
    return registry.version(subject), ", ".join(sorted(subject.schemes))
