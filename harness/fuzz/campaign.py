"""Campaigns: give seeds to workers and collect their finds until the time is over.

A task depends on (target, model, seed) alone.  One that dies with its worker is run again, so
nothing is lost.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from math import inf
from multiprocessing import get_context
from pathlib import Path

from harness.fuzz.machine import Find

#: Histories in one task: a few seconds of work, so that the clock is checked often enough.
EXAMPLES = 25

#: A task that has killed this many workers counts as a find itself.
TRIES = 3


@dataclass(frozen=True)
class Task:
    """One seed to search, for one model of one target."""

    target: str
    model: str
    seed: int


@dataclass(frozen=True)
class Done:
    """A finished task.

    find: what it found, if anything.  examples: histories that were run.  tries: how many workers
    the task was given to.
    """

    task: Task
    find: Find | None
    examples: int
    tries: int = 1


def tasks(targets: Sequence[str], models: Sequence[str], first_seed: int = 0) -> Iterator[Task]:
    """An endless stream: every model of every target for one seed, then for the next seed.

    models: only these; if empty, the small ones.  Raises registry.TargetError for an unknown
    target, and ValueError for an attention operation, for a model that no target takes, and if
    there is no small one.
    """
    from harness.run import plan, registry

    pairs, taken = [], dict[str, None]()
    for target in targets:
        loaded = registry.load(target)
        if loaded.body == "attention":
            raise ValueError(f"{target} is an attention operation: it has no state to fuzz")
        planned = dict.fromkeys(case.model.name for _, case in plan.items(loaded))
        taken |= planned
        pairs += [
            (target, name) for name in planned if name in models or (not models and _small(name))
        ]
    whole = [name for name in taken if "." not in name]  # single layers may be named, too
    allowed = f"those that {', '.join(targets)} can be fuzzed on: {', '.join(whole) or 'none'}"
    for name in models:
        if name not in taken:
            raise ValueError(f"--model must be one of {allowed}; got {name!r}")
    if not pairs:
        raise ValueError(f"no small model among {allowed}; name one with --model")
    for seed in itertools.count(first_seed):
        for target, model in pairs:
            yield Task(target, model, seed)


def _small(model: str) -> bool:
    """True for tiny models that turn over below 32 tokens: longer histories take too long."""
    from harness.cases.models import TINY

    found = TINY.get(model)
    return found is not None and found.turn < 32


def run_task(task: Task, tries: int = 1, until: float = inf) -> Done:
    """Search one seed, on one thread; until: on this machine's `time.monotonic`."""
    import torch

    from harness.cases.models import tiny
    from harness.fuzz.machine import search
    from harness.run import registry

    torch.set_num_threads(1)
    subject = registry.load(task.target).subject
    find, examples = search(subject, tiny(task.model), task.seed, EXAMPLES, until)
    return Done(task, find, examples, tries)


def died(task: Task) -> Done:
    """The find for a task that killed every worker it was given to."""
    message = f"the process died {TRIES} times on seed {task.seed}"
    return Done(task, Find(task.target, "crash", task.model, message), 0, TRIES)


def local(stream: Iterator[Task], seconds: float, workers: int = 2) -> Iterator[Done]:
    """Run tasks in processes on this machine until the time is over.

    A task that has begun by then runs no other history, but finishes to minimise what it found.
    """
    end = time.monotonic() + seconds
    again: list[tuple[Task, int]] = []
    while True:
        try:
            yield from _pool(stream, end, workers, again)
            return
        except BrokenProcessPool:  # `again` holds the tasks that were running
            continue


def _pool(
    stream: Iterator[Task], end: float, workers: int, again: list[tuple[Task, int]]
) -> Iterator[Done]:
    """Run tasks in one pool.  If a worker dies, the tasks that were running are put in `again`.

    Raises BrokenProcessPool if a worker dies.
    """
    running: dict[Future[Done], tuple[Task, int]] = {}
    until = end
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        while True:
            # After a death, run one task at a time to see which one kills its worker.
            room = 1 if again else workers
            while len(running) < room and (again or time.monotonic() < end):
                task, tries = again.pop(0) if again else (next(stream, None), 1)
                if task is None:  # the stream can be finite, such as a list of tasks to repeat
                    end = 0.0
                    break
                running[pool.submit(run_task, task, tries, until)] = (task, tries)
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
    """Append the find of a task, if it has one, to a file of JSON lines."""
    if done.find is not None:
        with path.open("a", encoding="utf-8") as out:
            out.write(json.dumps({**asdict(done.find), "seed": done.task.seed}) + "\n")
