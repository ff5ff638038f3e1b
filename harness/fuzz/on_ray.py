"""A campaign on a Ray cluster: the same tasks, but Ray schedules and retries them.

The cluster's machines need this package and the targets' packages installed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from harness.fuzz.campaign import TRIES, Done, Task, died, run_task


def on_ray(stream: Iterator[Task], seconds: float, address: str) -> Iterator[Done]:
    """Run tasks on the cluster at `address` until the time is over.

    Tasks that have begun by then are finished.  "local" starts a cluster of two workers on this
    machine.  Ray retries a task whose worker dies.  Raises ConnectionError if there is no cluster.
    """
    import ray

    if address == "local":
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    else:
        ray.init(address=address, log_to_driver=False)
    try:
        yield from _run(stream, time.monotonic() + seconds)
    finally:
        ray.shutdown()


def _run(stream: Iterator[Task], end: float) -> Iterator[Done]:
    import ray

    remote = ray.remote(num_cpus=1, max_retries=TRIES - 1)(run_task)
    slots = max(1, int(ray.cluster_resources().get("CPU", 1)))
    running: dict[object, Task] = {}
    while True:
        while len(running) < slots and time.monotonic() < end:
            task = next(stream, None)
            if task is None:
                end = 0.0
                break
            running[remote.remote(task)] = task
        if not running:
            return
        finished, _ = ray.wait(list(running), num_returns=1)
        for reference in finished:
            task = running.pop(reference)
            try:
                yield ray.get(reference)
            except ray.exceptions.WorkerCrashedError:
                yield died(task)
