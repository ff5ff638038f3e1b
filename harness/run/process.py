"""One child process of `harness check`, and the pipe on which it says what it does.

The subject runs in that process and may write to the pipe, close it, or keep it open.  Whatever
comes, reading takes linear time, bounded memory and no longer than it may.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from harness.results import ended
from harness.run import registry
from harness.run.child import MAX_LINE

_LAST_S = 5.0  # for a process to end that has closed its pipe
_STACK_S = 1.0  # for a process to say where it is
_TAIL = 1 << 16  # bytes of its output that are looked at


class GarbledError(Exception):
    """The child wrote something that is no message, or not the one that is due."""


class Child:
    """One `harness.run.child` process, from check number `first` on."""

    def __init__(
        self, target: str, selection: dict[str, str], first: int, output: IO[bytes]
    ) -> None:
        self._pipe, theirs = os.pipe()
        self._output = output
        arguments = [str(theirs), target, json.dumps(selection), str(first)]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-u", "-m", "harness.run.child", *arguments],
            pass_fds=(theirs,),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,  # so that its own children end with it
        )
        os.close(theirs)
        self._buffer = bytearray()

    def next(self, timeout: float) -> dict[str, Any] | None:
        """The next message; None once the pipe is closed.

        Raises TimeoutError, or GarbledError for a line that is too long or no message.
        """
        deadline = time.monotonic() + timeout
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > MAX_LINE:
                raise GarbledError(f"a line of more than {MAX_LINE:,} bytes")
            left = deadline - time.monotonic()
            # A pipe that is always ready must not keep the clock from being read.
            if left <= 0 or not select.select([self._pipe], [], [], left)[0]:
                raise TimeoutError
            chunk = os.read(self._pipe, 1 << 16)
            if not chunk:
                return None
            self._buffer += chunk
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return _message(line)

    def how_it_ended(self) -> str:
        """The signal or exit status, and the last line that the process wrote."""
        try:
            how = ended.exit_words(self._process.wait(timeout=_LAST_S))
        except subprocess.TimeoutExpired:
            how = "it closed the harness's pipe and lived on"
        lines = self._tail().strip().splitlines()
        return f"{how}; its last words: {lines[-1][:200]!r}" if lines else how

    def stack(self) -> str:
        """Where the process is, as faulthandler writes it; "" if it does not answer in a second."""
        before = os.fstat(self._output.fileno()).st_size
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + _STACK_S
        size = before
        while time.monotonic() < deadline:
            time.sleep(0.05)
            grown = os.fstat(self._output.fileno()).st_size
            if before < size == grown:  # it has finished
                return self._tail(before)
            size = grown
        return ""

    def end(self) -> None:
        """End the process and everything that it started."""
        import psutil

        with suppress(psutil.NoSuchProcess):  # those in sessions of their own, while it lives
            for child in psutil.Process(self._process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._pipe)

    def _tail(self, start: int = 0) -> str:
        """The end of what it wrote to stdout and stderr, from byte `start` on at the earliest."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), _TAIL, max(start, size - _TAIL)).decode(
            errors="replace"
        )


def _message(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise GarbledError(repr(line[:60].decode(errors="replace")))
    return message


def _environment() -> dict[str, str]:
    """The child's environment: one thread, and the path to this package if it is not installed.

    The child does not import from the working directory (`python -P`), where a folder `harness` or
    a file named like one of Python's modules would hide the real one.
    """
    out = {**os.environ, "OMP_NUM_THREADS": "1"}
    if not registry.installed():
        checkout = str(Path(__file__).parents[2])
        out["PYTHONPATH"] = os.pathsep.join(filter(None, (out.get("PYTHONPATH"), checkout)))
    return out
