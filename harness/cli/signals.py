"""SIGTERM ends a command as ^C does: with all that it started, what it knows shown, and status 143.

`timeout`, `docker stop` and a cancelled CI job send SIGTERM to one process, while ^C in a terminal
reaches all of them.  So the others are ended here.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Exit statuses by convention: 128 and the number of the signal.
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
_GRACE_S = 3.0  # for a process to end by itself before it is killed


class Terminated(KeyboardInterrupt):
    """SIGTERM came.  No `except Exception` catches it, and what handles ^C handles it."""


@contextmanager
def handled() -> Iterator[None]:
    """Within this context SIGTERM ends the processes that this one started, then raises.

    Raises Terminated.  Does nothing outside the main thread, where Python allows no handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminated(number: int, frame: FrameType | None) -> None:
        del number, frame
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
        end_children()
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_children() -> None:
    """End every process that this one started, and those that they started.

    Parents first: pytest would take the death of a worker for a crash of the check in it.
    """
    import psutil

    children = psutil.Process().children(recursive=True)
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for child in children:
            try:
                end(child)
            except psutil.NoSuchProcess:
                continue
        _, children = psutil.wait_procs(children, timeout=_GRACE_S)
