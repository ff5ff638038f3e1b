"""One run at a time in a folder of results: a lock that ends with the process that holds it.

The operating system keeps the lock, so none is left behind by a process that was killed, or by a
machine that was switched off.  The file only tells who holds it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

FILE = ".lock"


class BusyError(Exception):
    """Another run writes to the folder; the message names it and what to do."""


class Lock:
    """The right to write to one folder of results; `with lock:` takes and releases it.

    path: the folder, made if need be.  option: the option that chooses another, for the message.
    """

    def __init__(self, path: Path, option: str) -> None:
        self.path = path
        self.option = option
        self._held: int | None = None

    @property
    def descriptor(self) -> tuple[int, ...]:
        """What a child inherits so that the lock lasts as long as the child does; may be empty."""
        return () if self._held is None else (self._held,)

    def take(self) -> None:
        """Take the lock, unless this process or the one that started it has it.

        Raises BusyError if another process has it.
        """
        if self._held is not None:
            return
        try:
            import fcntl
        except ModuleNotFoundError:  # not on Windows: two runs at once are then not noticed
            return
        self.path.mkdir(parents=True, exist_ok=True)
        held = os.open(self.path / FILE, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read(held)
            os.close(held)
            if (holder.get("pid"), holder.get("host")) != (os.getppid(), socket.gethostname()):
                raise BusyError(self._busy(holder)) from None
            return
        except OSError:  # a file system without locks
            os.close(held)
            return
        self._held = held
        said = {"pid": os.getpid(), "since": time.time(), "host": socket.gethostname()}
        os.ftruncate(held, 0)
        os.write(held, json.dumps(said).encode())

    def release(self) -> None:
        """Give the lock back; without it, do nothing."""
        if self._held is not None:
            with suppress(OSError):  # a full disk is no reason to keep it
                os.ftruncate(self._held, 0)
            os.close(self._held)
            self._held = None

    def __enter__(self) -> Lock:
        self.take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _busy(self, holder: dict[str, object]) -> str:
        pid, since, host = (holder.get(name) for name in ("pid", "since", "host"))
        who = [f"pid {pid or 'unknown'}"]
        if host not in (None, socket.gethostname()):
            who.append(f"on {host}")
        if isinstance(since, int | float):
            who.append(time.strftime("since %Y-%m-%d %H:%M:%S", time.localtime(since)))
        return (
            f"another run ({', '.join(who)}) writes to {self.path}; "
            f"wait for its end, or choose another folder with {self.option} DIR"
        )


def _read(held: int) -> dict[str, object]:
    """What the holder wrote; empty while it has not, or where something else is there."""
    with suppress(ValueError):
        said = json.loads(os.pread(held, 4096, 0))
        if isinstance(said, dict):
            return said
    return {}
