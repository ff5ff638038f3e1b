"""Lowers the programs of subjects ahead of their checks: ``python -m harness.run.prelower``.

A check has a time limit, and lowering a program takes longer than running it by orders of
magnitude.  If the programs are in the cache already, this takes seconds.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

from harness.cases.case import Case
from harness.gate.short import Short
from harness.run import plan, registry
from harness.run.target import Target


@dataclass(frozen=True)
class Lowered:
    """The programs of one subject's model; error: what lowering one of them raised, if anything."""

    target: str
    model: str
    seconds: float
    error: str = ""


def prelower(
    targets: Iterable[str] | None = None, workers: int = 2, short: Short | None = None
) -> Iterator[Lowered]:
    """Lower the programs in the plans of `targets` (default: all registered); yield each result.

    short: only those of the short matrix.  A subject takes part if it has ``lowered(case)``.  What
    fails here fails again in its checks, where it is judged.  Raises registry.TargetError for a
    target that cannot be loaded.
    """
    short = short or Short()
    tasks = [task for target in targets or registry.names() for task in _tasks(target, short)]
    if not tasks:
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the workers import torch
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(_lower, *task, short) for task in tasks]):
            yield done.result()


def _tasks(target: str, short: Short) -> list[tuple[str, str]]:
    """(target, model) of every model for which a subject lowers programs."""
    try:
        loaded = registry.load(target)
    except registry.NotInstalled:
        return []
    if "lowered" not in loaded.offers:
        return []
    return [(target, model) for model in dict.fromkeys(c.model.name for c in _cases(loaded, short))]


def _lower(target: str, model: str, short: Short) -> Lowered:
    began = time.perf_counter()
    loaded = registry.load(target)
    error = ""
    try:
        for case in _cases(loaded, short):
            if case.model.name == model:
                loaded.subject().lowered(case)
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    return Lowered(target, model, time.perf_counter() - began, error)


def _cases(target: Target, short: Short) -> Iterator[Case]:
    return (case for check, case in plan.items(target) if short.takes(target.name, check, case.id))


def main(arguments: Sequence[str]) -> None:
    """Print one line for each model as soon as its programs are lowered."""
    for done in prelower(arguments or None):
        print(f"{done.seconds:6.1f} s  {done.target} {done.model}  {done.error}".rstrip())


if __name__ == "__main__":
    main(sys.argv[1:])
