"""How files are written: whole or not at all, and the error names the file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step: a reader sees the old or the new text, never a part.

    A device or a pipe is written to as it is.  Raises OSError, which names the file; then the old
    text is still there, and no scratch file is left.
    """
    write_together({path: text})


def write_together(files: Mapping[Path, str]) -> None:
    """Replace several files: no name is touched before the text of each is on the disk.

    Raises OSError as `write_atomically` does.
    """
    scratches: list[tuple[Path, Path]] = []
    try:
        for path, text in files.items():
            with _names(path):
                target = path.resolve()  # a symbolic link stays a link
                if target.exists() and not target.is_file():
                    _write(target, text)  # /dev/null must not become a file
                else:
                    scratches.append((_scratch(target), target))
                    _write(scratches[-1][0], text)
        while scratches:
            scratch, target = scratches[0]
            with _names(target):
                os.replace(scratch, target)
            del scratches[0]
    finally:
        for scratch, _ in scratches:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)


def _scratch(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace") as out:
        out.write(text)


@contextmanager
def _names(path: Path) -> Iterator[None]:
    """Let an OSError name `path`: a full disk names no file, and a scratch file says nothing."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
