"""Lowered programs on disk, found by what they were made from.

Lowering takes seconds to minutes, running takes milliseconds.  The key of a program is everything
that it depends on: the sources that build and lower it (see `harness.export.sources`), geometry,
shapes, the seed of the weights, versions, backend.  None of that needs the graph, so a hit exports
nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The variable that names the folder of the cache; by default it is in the user's cache folder.
FOLDER_VARIABLE = "HARNESS_CACHE_DIR"

#: Entries that no run has asked for in this many days are deleted when another is written.
KEEP_DAYS = 30

_SUFFIX = ".program"


@dataclass(frozen=True)
class Entry:
    """A lowered program, and facts that were found while it was made, as JSON can hold them."""

    payload: bytes
    facts: dict[str, Any]


def default_folder() -> Path:
    """$HARNESS_CACHE_DIR, or attention-harness/programs in the user's cache folder."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME")
    base = Path(caches) if caches else Path("~/.cache").expanduser()
    return base / "attention-harness" / "programs"


class ProgramCache:
    """A folder of entries.

    Processes may share it: an entry appears complete or not at all, and a process that asks for one
    that another is making waits for it.  A damaged entry is made again.  A folder that cannot be
    written to costs time, and raises no error.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_folder() if folder is None else folder

    def get(self, name: str, key: Mapping[str, object], build: Callable[[], Entry]) -> Entry:
        """The entry of a key, from the folder or from `build`.

        name: the start of the file's name, for people to find it.  key: values that JSON can hold.
        """
        path = self.path(name, key)
        found = _read(path)
        if found is None and _elsewhere:
            _elsewhere[-1]()
            found = _read(path)
        if found is None:
            with _turn(path):
                found = _read(path)  # another process may have made it by now
                return self._make(path, key, build) if found is None else found
        with suppress(OSError):
            os.utime(path)
        return found

    def path(self, name: str, key: Mapping[str, object]) -> Path:
        """The file of a key."""
        return self.folder / f"{name}-{_digest(_json(key))[:24]}{_SUFFIX}"

    def _make(self, path: Path, key: Mapping[str, object], build: Callable[[], Entry]) -> Entry:
        made = build()
        with suppress(OSError):
            _write(path, made, key)
            self._prune()
        return made

    def _prune(self) -> None:
        oldest = time.time() - KEEP_DAYS * 86_400
        for path in self.folder.glob(f"*{_SUFFIX}"):
            with suppress(OSError):  # another process may have been faster
                if path.stat().st_mtime < oldest:
                    path.unlink()


#: What makes missing entries in another process, the innermost last.
_elsewhere: list[Callable[[], None]] = []


@contextmanager
def made_elsewhere(make: Callable[[], None]) -> Iterator[None]:
    """Call `make` for each entry that is missing here; what it does not leave is built as usual."""
    _elsewhere.append(make)
    try:
        yield
    finally:
        _elsewhere.pop()


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Wait until no other process is making this entry, if the system can lock files.

    The lock ends with its process, however that ends.  Without it two processes may make the same
    entry, which does no harm.
    """
    with ExitStack() as stack:
        with suppress(ImportError, OSError):
            import fcntl

            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.with_suffix(".lock")
            file = stack.enter_context(lock.open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
            stack.callback(lock.unlink, missing_ok=True)
        yield


def _read(path: Path) -> Entry | None:
    """The entry in a file; None if there is none, or if the file is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    checksum, _, rest = data.partition(b"\n")
    if _digest(rest).encode() != checksum:
        return None
    head, _, payload = rest.partition(b"\n")
    facts: dict[str, Any] = json.loads(head)["facts"]
    return Entry(payload, facts)


def _write(path: Path, entry: Entry, key: Mapping[str, object]) -> None:
    """Write a line of checksum, a line of facts and key (for people), then the program."""
    rest = _json({"facts": entry.facts, "key": key}) + b"\n" + entry.payload
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_digest(rest).encode() + b"\n" + rest)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
