"""Campaigns: seed ranges out to workers, finds in, until the time is over.

A task is a function of (target, model, seed) alone, so that one that dies with its worker is run
again and nothing is lost.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

from harness.fuzz.machine import Find

#: Histories of one task: seconds of work, so that the clock is looked at often enough.
EXAMPLES = 25

#: A task that has killed this many workers is a find itself.
TRIES = 3


@dataclass(frozen=True)
class Task:
    """One seed of one target's model."""

    target: str
    model: str
    seed: int


@dataclass(frozen=True)
class Done:
    """A task with what it found.  examples: histories that were run; tries: workers it took."""

    task: Task
    find: Find | None
    examples: int
    tries: int = 1


def tasks(targets: Sequence[str], models: Sequence[str], first_seed: int = 0) -> Iterator[Task]:
    """Endless: every model of every target for one seed, then for the next.

    Raises registry.TargetError, or ValueError for a model that none of the targets takes.
    """
    from harness.contract import kind_of
    from harness.run import plan, registry

    pairs = []
    for target in targets:
        subject = registry.load(target)
        if kind_of(subject) == "attention":
            raise ValueError(f"{target} is an attention operation: it has no state to fuzz")
        planned = dict.fromkeys(case.model.name for _, case in plan.items(subject))
        pairs += [
            (target, name) for name in planned if name in models or (not models and _small(name))
        ]
    if not pairs:
        raise ValueError(f"none of {', '.join(targets)} takes --model {', '.join(models)}")
    for seed in itertools.count(first_seed):
        for target, model in pairs:
            yield Task(target, model, seed)


def _small(model: str) -> bool:
    """True for whole models with a window of a few tokens: wide ones take their time."""
    from harness.cases.models import TINY

    found = TINY.get(model)
    return found is not None and (found.window or found.chunk or 8) < 32


def run_task(task: Task, tries: int = 1) -> Done:
    """Search one seed."""
    import torch

    from harness.cases.models import tiny
    from harness.fuzz.machine import search
    from harness.run import registry

    torch.set_num_threads(1)
    subject = registry.load(task.target)
    find, examples = search(subject, tiny(task.model), task.seed, EXAMPLES)
    return Done(task, find, examples, tries)


def died(task: Task) -> Done:
    """What is said of a task that no worker survived."""
    message = f"the process died {TRIES} times on seed {task.seed}"
    return Done(task, Find(task.target, "crash", task.model, message), 0, TRIES)


def local(stream: Iterator[Task], seconds: float, workers: int = 2) -> Iterator[Done]:
    """Run tasks in processes of this machine until the time is over; those begun are ended."""
    end = time.monotonic() + seconds
    again: list[tuple[Task, int]] = []
    while True:
        try:
            yield from _pool(stream, end, workers, again)
            return
        except BrokenProcessPool:  # `again` holds what was under way
            continue


def _pool(
    stream: Iterator[Task], end: float, workers: int, again: list[tuple[Task, int]]
) -> Iterator[Done]:
    """One pool's life.  What was under way when it broke is left in `again`."""
    running: dict[Future[Done], tuple[Task, int]] = {}
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        while True:
            # After a death one at a time, so that the guilty task is told from its neighbours.
            room = 1 if again else workers
            while len(running) < room and (again or time.monotonic() < end):
                task, tries = again.pop(0) if again else (next(stream, None), 1)
                if task is None:  # a stream that ends, as a list of cases to run again does
                    end = 0.0
                    break
                running[pool.submit(run_task, task, tries)] = (task, tries)
            if not running:
                return
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                if future.exception() is not None and isinstance(
                    future.exception(), BrokenProcessPool
                ):
                    lost = list(running.values())
                    alone = len(lost) == 1
                    for task, tries in lost:
                        if alone and tries >= TRIES:
                            yield died(task)
                        else:
                            again.append((task, tries + 1 if alone else tries))
                    raise BrokenProcessPool
                del running[future]
                yield future.result()


def keep(done: Done, path: Path) -> None:
    """Add a find to a file of JSON lines."""
    if done.find is not None:
        with path.open("a", encoding="utf-8") as out:
            out.write(json.dumps({**asdict(done.find), "seed": done.task.seed}) + "\n")
