"""The `harness` command.

Exit status 0: everything holds; 1: something is broken; 2: it cannot be run as asked.  Heavy
imports (torch, pandas) wait until a command needs them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness import cli_bench, cli_fuzz, cli_history, cli_kv

if TYPE_CHECKING:
    import pandas as pd

    from harness.gate.verdict import Verdict
    from harness.report.past import Past

_BROKEN, _MISUSE = 1, 2
_MIN_TIMEOUT_S, _MAX_TIMEOUT_S = 0.1, 86_400.0  # a day: timers take no infinity

app = typer.Typer(
    help="Conformance of windowed attention and its KV caches.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
baseline = typer.Typer(help="The exact integers of earlier runs.", no_args_is_help=True)
app.add_typer(baseline, name="baseline")
app.add_typer(cli_history.app, name="history")
app.command()(cli_bench.bench)
app.command()(cli_fuzz.fuzz)
app.command()(cli_kv.kv)

Results = Annotated[Path, typer.Option("--out", help="Folder of the records.")]
Baselines = Annotated[Path, typer.Option(help="Folder of the baselines.")]
Known = Annotated[Path, typer.Option(help="Folder of the known failures.")]
Required = Annotated[list[str], typer.Option("--require", help="Subject that must have run.")]

_RESULTS = Path("reports/latest")
_BASELINES = Path("reports/baselines")
_KNOWN = Path("suites/known_failures")


class Misuse(Exception):
    """A command cannot be run as asked; the message is one line."""


def main() -> None:
    """Entry point of the console script."""
    from harness.gate.baselines import BaselineError
    from harness.gate.folder import RecordsError
    from harness.gate.history import HistoryError
    from harness.gate.known import KnownFailuresError

    try:
        app()
    except (Misuse, RecordsError, BaselineError, KnownFailuresError, HistoryError) as error:
        typer.echo(f"harness: {error}", err=True)
        sys.exit(_MISUSE)
    except OSError as error:
        if error.filename is None:
            raise
        typer.echo(f"harness: {error.filename}: {error.strerror}", err=True)
        sys.exit(_MISUSE)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command()
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
    timeout: Annotated[float, typer.Option(help="Seconds for each check.")] = 60.0,
) -> None:
    """Check one implementation, in a process of its own."""
    from harness import check_table, check_watch, isolation

    require_writable(json_file)
    if not _MIN_TIMEOUT_S <= timeout <= _MAX_TIMEOUT_S:  # neither holds for NaN
        raise Misuse(
            f"--timeout must be a number of seconds from {_MIN_TIMEOUT_S:g} to "
            f"{_MAX_TIMEOUT_S:g}, got {timeout:g}"
        )
    console = check_watch.console()
    asked = {"scheme": scheme, "model": model, "case": case, "check": only}
    if empty := [f"--{name}" for name, value in asked.items() if value == ""]:
        raise Misuse(f"{empty[0]} is empty; leave it out to select everything")
    selection = {name: value for name, value in asked.items() if value is not None}
    try:
        progress = check_watch.watch(target, selection, timeout, console)
    except isolation.RefusedError as refused:
        raise Misuse(str(refused)) from refused
    if json_file is not None:
        check_watch.write_json(json_file, target, progress)
    check_table.show(console, check_watch.title(progress), progress.done)
    if not any(r.status != "not-claimed" for r in progress.done):
        raise Misuse(f"{progress.subject} claims none of these cases: nothing was checked")
    raise typer.Exit(_BROKEN if check_table.broken(progress.done) else 0)


@app.command("list")
def list_() -> None:
    """Subjects, models and schedules."""
    from rich.table import Table
    from rich.text import Text

    from harness import check_watch, registry, schedules
    from harness.models import TINY

    console = check_watch.console()
    subjects = Table("subject", "version", "schemes", box=None, pad_edge=False)
    for name in registry.names():
        subjects.add_row(name, *check_watch.installed(name))
    models = Table("model", "scheme", "layers", "window", "sink", box=None, pad_edge=False)
    for m in TINY.values():
        turn = f"chunk {m.chunk}" if m.chunk else str(m.window or "-")
        models.add_row(m.name, m.scheme, str(m.n_layers), turn, str(m.sink or "-"))
    makers = (schedules.standard, schedules.resets, schedules.rewinds, schedules.byte_runs)
    names = [schedule.name for make in makers for schedule in make(8)]
    console.print(subjects)
    console.print()
    console.print(models)
    console.print(Text(f"\nschedules: {', '.join(names)}"))


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def run(
    context: typer.Context,
    out: Results = _RESULTS,
    baselines: Baselines = _BASELINES,
    known: Known = _KNOWN,
    require: Required = [],  # noqa: B006 - typer copies it
    lower: Annotated[
        bool, typer.Option(help="Lower programs before a run of everything; else in its checks.")
    ] = True,
) -> None:
    """Run the suites over the whole matrix, then gate and report.  Takes pytest's arguments.

    Without such arguments a run that was not whole is red.
    """
    suites = sorted(Path("suites").glob("test_*.py"))
    if not suites:
        raise Misuse("no suites/test_*.py here: run it in a checkout of attention-harness")
    _require_folders(baselines, known)
    before = _run_id(out)
    given = any(Path(a.partition("::")[0]).exists() for a in context.args if not a.startswith("-"))
    paths = [] if given else [str(path) for path in suites]
    if lower and not context.args:
        _lower_programs()
    command = [sys.executable, "-m", "pytest", *paths, f"--harness-out={out}", *context.args]
    status = subprocess.run(command, check=False).returncode
    if _run_id(out) == before:
        if status in {4, 5}:  # pytest has said why
            raise Misuse("pytest selected nothing" if status == 5 else "pytest refused its options")
        typer.echo(f"harness: pytest ended with status {status} before any check", err=True)
        raise typer.Exit(_BROKEN)
    frame, verdict = _gate(out, baselines, known, require, whole=not context.args)
    _report(frame, verdict, out)
    raise typer.Exit(verdict.exit_status)


@app.command()
def gate(
    out: Results = _RESULTS,
    baselines: Baselines = _BASELINES,
    known: Known = _KNOWN,
    require: Required = [],  # noqa: B006 - typer copies it
    whole: Annotated[bool, typer.Option("--whole", help="Red unless the run was whole.")] = False,
) -> None:
    """Give the verdict over the records of the last run; writes files for CI beside them."""
    _, verdict = _gate(out, baselines, known, require, whole=whole)
    raise typer.Exit(verdict.exit_status)


@app.command()
def merge(
    parts: Annotated[list[Path], typer.Argument(help="Folders of results: shards, or suites.")],
    out: Results = _RESULTS,
    baselines: Baselines = _BASELINES,
    known: Known = _KNOWN,
    require: Required = [],  # noqa: B006 - typer copies it
) -> None:
    """Put runs that ran in parts together, then gate and report."""
    from harness.gate import merge as merging

    _require_folders(baselines, known)
    try:
        merged = merging.merge(parts, out)
    except merging.MergeError as error:
        raise Misuse(str(error)) from error
    for shard in merged.absent:
        typer.echo(f"shard {shard} is not there", err=True)
    frame, verdict = _gate(out, baselines, known, require, whole=True)
    _report(frame, verdict, out)
    raise typer.Exit(verdict.exit_status)


@app.command()
def report(
    out: Results = _RESULTS,
    baselines: Baselines = _BASELINES,
    known: Known = _KNOWN,
) -> None:
    """Draw the HTML report of the last run."""
    from harness.gate import verdict as verdicts

    _require_folders(baselines, known)
    _report(*verdicts.read(out, baselines, known), out)


@app.command()
def kills(out: Results = _RESULTS) -> None:
    """Plant every defect, and keep the table of what catches it for the report."""
    from harness.report import kills as table

    rows = []
    for row in table.run():
        rows.append(row)
        caught = ", ".join(check for check, _, _ in row.checks) or "nothing"
        typer.echo(f"{row.name}: caught by {caught}")
    typer.echo(f"{sum(bool(r.checks) for r in rows)} of {len(rows)}; {table.write(rows, out)}")
    raise typer.Exit(0 if all(row.checks for row in rows) else _BROKEN)


@baseline.command()
def update(
    out: Results = _RESULTS,
    baselines: Baselines = _BASELINES,
) -> None:
    """Take over the integers of the last run that drifted or are new."""
    from harness.gate import baselines as files
    from harness.gate import verdict as verdicts
    from harness.gate.folder import Folder

    folder, rows = Folder(out), files.read(baselines)
    info = folder.read_run()
    if strays := verdicts.strays(folder):
        raise Misuse(f"{out} holds records that are not of its run: {'; '.join(strays)}")
    done = rows.update(verdicts.completed(folder), whole=info.whole and info.exit_status in {0, 1})
    touched = files.write(rows, baselines)
    typer.echo(f"{done.added} rows added, {done.changed} changed, {done.dropped} dropped")
    if done.claims:
        typer.echo(f"{done.claims} counts of claims changed")
    for path in touched:
        typer.echo(f"  {path}")
    for record in done.refused:
        typer.echo(f"refused, {record.status}: {record.subject} {record.check} {record.case}")
    raise typer.Exit(_BROKEN if done.refused else 0)


def _gate(
    out: Path, baselines: Path, known: Path, require: list[str], *, whole: bool
) -> tuple[pd.DataFrame, Verdict]:
    """Judge the records in `out`, write what CI reads beside them, and print the verdict."""
    from harness.gate import comment, junit, summary
    from harness.gate import verdict as verdicts

    _require_folders(baselines, known)
    frame, verdict = verdicts.read(out, baselines, known, require, need_whole=whole)
    (out / "summary.md").write_text(summary.to_markdown(frame, verdict), encoding="utf-8")
    (out / comment.FILE).write_text(comment.to_comment(verdict), encoding="utf-8")
    (out / "verdict.json").write_text(json.dumps(verdict.to_json(), indent=1), encoding="utf-8")
    junit.write(frame, verdict, out / "junit.xml")
    typer.secho(verdict.headline, fg="red" if verdict.red else "green", bold=True)
    for drift in verdict.drift[:10]:
        typer.echo(f"  drift: {drift}")
    if verdict.drift or verdict.no_baseline:
        typer.echo(
            f"  {len(verdict.drift)} drifted, {verdict.no_baseline} without a baseline; "
            "`harness baseline update` takes them over"
        )
    if verdict.no_claims:
        typer.echo(f"  without a count of claims: {', '.join(verdict.no_claims)}")
    for entry in verdict.stale:
        typer.echo(f"  stale: {entry.subject}.toml, {entry.id}")
    for item in verdict.outside:
        typer.echo(f"  other test: {item}")
    typer.echo(f"  {out / 'summary.md'}")
    return frame, verdict


def _lower_programs() -> None:
    """Lower what the whole matrix will run: within a check it would count as the check's time."""
    from harness.export.prelower import prelower

    began = time.monotonic()
    for n, done in enumerate(prelower(), 1):
        if done.error or done.seconds > 1:  # the others were in the cache
            said = done.error or f"{done.seconds:.0f} s"
            typer.echo(f"lowered {n}: {done.target} {done.model}, {said}", err=True)
    typer.echo(f"programs ready after {time.monotonic() - began:.0f} s", err=True)


def _require_folders(baselines: Path, known: Path) -> None:
    """A folder that is not there would gate nothing."""
    for option, folder in (("--baselines", baselines), ("--known", known)):
        if not folder.is_dir():
            raise Misuse(f"{option}: no such folder: {folder}")


def require_writable(path: Path | None) -> None:
    """Find out before minutes of checks that their result can be written; leaves no file."""
    if path is None:
        return
    if path.is_dir():  # also what an empty path is
        raise Misuse(f"--json: must be a file, got the folder {str(path)!r}")
    if not path.resolve().parent.is_dir():
        raise Misuse(f"--json: no such folder: {path.resolve().parent}")
    there = path.exists()
    try:
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise Misuse(f"--json: {path} cannot be written: {error.strerror}") from error
    if not there:
        path.unlink()


def _report(frame: pd.DataFrame, verdict: Verdict, out: Path) -> None:
    from harness.report.html import build

    typer.echo(f"  {build(frame, verdict, out / 'index.html', _past(frame))}")


def _past(frame: pd.DataFrame) -> Past | None:
    """What the history says, if it was kept up to this very run."""
    from harness.gate.history import History, HistoryError
    from harness.report.past import past

    try:
        history = History()
        runs = history.runs()
        return past(history) if runs and runs[-1] in set(frame["run"]) else None
    except HistoryError:  # none is kept, or duckdb is not there: the page says nothing of it
        return None


def _run_id(out: Path) -> str:
    from harness.gate.folder import Folder, RecordsError

    try:
        return Folder(out).read_run().run
    except RecordsError:
        return ""


if __name__ == "__main__":
    main()
