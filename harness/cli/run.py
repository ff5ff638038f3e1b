"""`harness run`: the matrix, its verdict and its report."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.common import (
    BASELINES,
    BROKEN,
    KNOWN,
    RESULTS,
    Baselines,
    Known,
    Misuse,
    Required,
    Results,
    require_folders,
    say,
)
from harness.cli.gate import draw_report, gate_results
from harness.results.folder import ALL, SHORT

if TYPE_CHECKING:
    from harness.results.lock import Lock


def run(
    context: typer.Context,
    out: Results = RESULTS,
    baselines: Baselines = BASELINES,
    known: Known = KNOWN,
    require: Required = [],  # noqa: B006 - typer copies it
    all_: Annotated[
        bool,
        typer.Option("--all", help="Run the whole plan, as each night, not the short matrix."),
    ] = False,
    lower: Annotated[
        bool, typer.Option(help="Lower all programs first, not each before its checks.")
    ] = False,
) -> None:
    """Run the suites over the matrix, then gate and report.  Takes pytest's arguments.

    Without such arguments, a partial run fails the gate.  The short matrix shows every planted
    defect and every known failure that the whole plan shows, in a small part of its time.
    """
    from harness.results.lock import Lock

    suites = sorted(Path("suites").glob("test_*.py"))
    if not suites:
        raise Misuse("no suites/test_*.py here: run it in a checkout of attention-harness")
    require_folders(baselines, known)
    arguments = list(context.args)
    given = any(Path(a.partition("::")[0]).exists() for a in arguments if not a.startswith("-"))
    paths = [] if given else [str(path) for path in suites]
    given_all = ["--harness-all"] if all_ else []
    command = ["-m", "pytest", *paths, f"--harness-out={out}", *given_all, *arguments]
    with Lock(out, "--out") as lock:
        _run(command, out, lock, lower=lower, matrix=ALL if all_ else SHORT)
        frame, verdict = gate_results(out, baselines, known, require, whole=not arguments)
        draw_report(frame, verdict, out)
    raise typer.Exit(verdict.exit_status)


def _run(command: list[str], out: Path, lock: Lock, *, lower: bool, matrix: str) -> None:
    """Run pytest, and lower programs before it.  Raises Misuse or Exit if no check was to run."""
    from harness.results import origin
    from harness.results.folder import Folder, RunInfo
    from harness.results.recorder import new_run_id

    folder = Folder(out)
    # First of all, the last run is taken away: whatever ends this one, no old verdict stands.
    begun = RunInfo(new_run_id(), arguments=command[2:])
    origin.note(begun)
    folder.start(begun)
    if lower:
        _lower_programs(matrix)
    done = subprocess.run([sys.executable, *command], check=False, pass_fds=lock.descriptor)
    status = done.returncode
    if folder.read_run().run == begun.run:  # pytest did not come to its own beginning
        folder.write_run(replace(begun, exit_status=status))
    if folder.read_collected():
        return
    if status in {4, 5}:  # pytest has printed why
        raise Misuse("pytest selected nothing" if status == 5 else "pytest refused its options")
    say(f"harness: pytest ended with status {status} before any check", err=True)
    raise typer.Exit(BROKEN)


def _lower_programs(matrix: str) -> None:
    """Lower all programs of the matrix now, and say how far it is."""
    from harness.gate import short
    from harness.run.prelower import prelower

    listed = short.read(Path("suites")) if matrix == SHORT else None
    began = time.monotonic()
    for n, done in enumerate(prelower(short=listed), 1):
        if done.error or done.seconds > 1:  # the others were in the cache
            said = done.error or f"{done.seconds:.0f} s"
            say(f"lowered {n}: {done.target} {done.model}, {said}", err=True)
    say(f"programs ready after {time.monotonic() - began:.0f} s", err=True)
