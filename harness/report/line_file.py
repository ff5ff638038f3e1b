"""The lines of a table as a JSON file next to the records."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from harness.results.files import write_atomically

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


def write_lines(lines: Sequence[DataclassInstance], path: Path) -> Path:
    """Write one object a line of the table, and make the file's folder; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps([asdict(line) for line in lines], indent=1))
    return path


def read_lines(path: Path, made: Callable[[Any], T]) -> tuple[T, ...] | None:
    """The lines of a file, each made by `made` from its object.

    None if there is no file or it cannot be read, or `made` raises ValueError, KeyError or
    TypeError for what was never written.
    """
    try:
        return tuple(map(made, json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
