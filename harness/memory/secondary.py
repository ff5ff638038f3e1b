"""Indicative figures: resident memory of a call or a process, and memray.  **Never gated**.

They see what the exact probe cannot (MKL's and oneDNN's own buffers, numpy), but no two runs agree:
resident memory moves by pages that the C library keeps or gives back, memray's by Python objects.
"""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Secondary:
    """Approximate bytes; None where this system or installation cannot tell.

    resident_peak_bytes: how far resident memory rose above its start (Linux).  A warm call may
    show 0, because it reuses pages that the process holds.  memray_peak_bytes: memray's high-water
    mark of the call, its Python objects included.
    """

    resident_peak_bytes: int | None
    memray_peak_bytes: int | None


def secondary(fn: Callable[[], object]) -> Secondary:
    """Call `fn` once for each figure that is available here."""
    return Secondary(_resident(fn), _memray(fn))


def peak_resident_bytes() -> int:
    """The largest resident size that this process has had, in bytes.

    Where the system keeps no high-water mark (outside Linux and Windows): the size now.
    """
    now = psutil.Process().memory_info()
    return max(int(now.rss), _high_water() or 0, int(getattr(now, "peak_wset", 0)))


def _resident(fn: Callable[[], object]) -> int | None:
    before = psutil.Process().memory_info().rss
    try:
        _CLEAR_REFS.write_text("5")  # sets the high-water mark back to what is resident now
    except OSError:  # not Linux, or not allowed in this container
        return None
    fn()
    high = _high_water()
    return None if high is None else max(0, high - before)


def _high_water() -> int | None:
    """The kernel's high-water mark of this process's resident size; None where it keeps none."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    marks = (line for line in lines if line.startswith("VmHWM:"))
    return next((int(line.split()[1]) * 1024 for line in marks), None)


def _memray(fn: Callable[[], object]) -> int | None:
    if importlib.util.find_spec("memray") is None:
        return None
    memray = importlib.import_module("memray")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "call.bin"
        with memray.Tracker(path):
            fn()
        with memray.FileReader(path) as reader:
            return int(reader.metadata.peak_memory)
