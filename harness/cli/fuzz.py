"""`harness fuzz`: runs random histories against the law, here or on a Ray cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.common import BROKEN, RESULTS, Misuse, say

if TYPE_CHECKING:
    from harness.fuzz.campaign import Done, Task

#: The prefix of our own subjects, in which nothing should be found.  In released packages the known
#: failures would be found at once.
_OURS = "harness."
_SAID_EVERY_S = 10.0


def fuzz(
    targets: Annotated[
        list[str] | None,
        typer.Argument(help="Targets, as for `harness check`. Default: this package's own."),
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only this model (repeatable).")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="How long to search.")] = 60.0,
    hours: Annotated[
        float, typer.Option(min=0, help="How long to search, in hours, instead of --seconds.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    ray: Annotated[str, typer.Option(help='Address of a Ray cluster, or "local".')] = "",
    finds: Annotated[Path, typer.Option(help="File to which finds are added.")] = RESULTS
    / "finds.jsonl",
) -> None:
    """Search random histories (feed, reset, rewind, copy) for one that breaks the law.

    Each find is minimised and named as a case: `harness check TARGET --case CASE` reproduces it.
    """
    from harness.run.registry import NotInstalled, TargetError

    try:
        from harness.fuzz import campaign
    except ModuleNotFoundError as absent:
        if absent.name != "hypothesis":
            raise
        raise Misuse(
            "hypothesis is not installed: pip install 'attention-harness[fuzz]'"
        ) from absent
    try:
        stream = campaign.tasks(list(targets or _ours()), list(model or ()), seed)
        stream = _checked(stream)
    except (TargetError, NotInstalled, ValueError) as error:
        raise Misuse(str(error)) from error
    finds.parent.mkdir(parents=True, exist_ok=True)
    limit = seconds if not hours else hours * 3600
    found, examples, said = set(), 0, time.monotonic()
    for done in _engine(stream, limit, ray):
        examples += done.examples
        if (
            done.find is not None
            and (key := (done.task.target, done.find.check, done.find.case)) not in found
        ):
            found.add(key)
            campaign.keep(done, finds)
            say(f"{done.find.subject}: {done.find.check} breaks: {done.find.message}")
            say(
                f"  harness check {done.task.target} --case {done.find.case} "
                f"--check {done.find.check}"
            )
        if time.monotonic() - said > _SAID_EVERY_S:
            said = time.monotonic()
            say(f"{examples} histories, {len(found)} finds, seed {done.task.seed}", err=True)
    say(f"{examples} histories, {len(found)} finds")
    raise typer.Exit(BROKEN if found else 0)


def _engine(stream: Iterator[Task], seconds: float, ray: str) -> Iterator[Done]:
    if not ray:
        from harness.fuzz.campaign import local

        return local(stream, seconds)
    from harness.fuzz.on_ray import on_ray

    return on_ray(stream, seconds, ray)


def _checked(stream: Iterator[Task]) -> Iterator[Task]:
    """The same stream, with its first task already made, so that errors are raised here."""
    import itertools

    return itertools.chain([next(stream)], stream)


def _ours() -> list[str]:
    """The names of our own caches and decoders that need no released package."""
    from harness.run import registry

    out = []
    for name in registry.names():
        if name.startswith(_OURS):
            try:
                target = registry.load(name)
            except registry.NotInstalled:
                continue
            if target.body != "attention" and not target.package:
                out.append(name)
    return out
