"""The files of a history: one Parquet file a run, in a folder or on any fsspec URL.

A file gets its name once it is complete.  One that cannot be read costs its own run alone.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SUFFIX = ".parquet"

#: What a run id may be, since it names a file.
_RUN = re.compile(r"\w[\w.+-]{0,199}", re.ASCII)


class HistoryError(Exception):
    """The history cannot be read or written; the message names the store and the reason."""


class Store:
    """The runs in a folder or URL.  needed: columns without which a file is no run.

    Raises HistoryError for a store that cannot be opened.
    """

    def __init__(self, store: str, needed: Sequence[str]) -> None:
        try:
            import duckdb  # noqa: F401 - imported here to fail early if missing
            import fsspec
        except ModuleNotFoundError as absent:
            raise HistoryError(
                f"{absent.name} is not installed: pip install 'attention-harness[nightly]'"
            ) from absent
        try:
            self.files, self.path = fsspec.core.url_to_fs(store)
        except (ValueError, ImportError) as error:
            raise HistoryError(f"--store {store}: {error}") from error
        self.store = store
        self._needed = needed
        self._looked_at: dict[str, str] = {}

    def names(self) -> list[str]:
        """Ids of all runs of which there is a file, oldest first.  Raises HistoryError."""
        try:
            if not self.files.exists(self.path):
                return []
            listed = map(str, self.files.ls(self.path, detail=False))
            names = [name.rpartition("/")[2] for name in listed if name.endswith(SUFFIX)]
        except OSError as error:
            raise HistoryError(f"--store {self.store} cannot be read: {why(error)}") from error
        return sorted(name.removesuffix(SUFFIX) for name in names if not name.startswith("."))

    def unread(self) -> dict[str, str]:
        """Why a file cannot be read, by the id of its run."""
        names = self.names()
        self._look_at([run for run in names if run not in self._looked_at])
        return {run: self._looked_at[run] for run in names if self._looked_at[run]}

    def put(self, made: Path, run: str) -> None:
        """Copy a file into the store under a scratch name, and then rename it.

        Raises OSError; then nothing is left behind.
        """
        scratch = f"{self.path}/.{run}{SUFFIX}.part"
        self.files.makedirs(self.path, exist_ok=True)
        try:
            self.files.put(str(made), scratch)
            self.files.mv(scratch, self.file(run))
        except OSError:
            with suppress(OSError):
                self.files.rm(scratch)
            raise
        self._looked_at.pop(run, None)

    def remove(self, run: str) -> None:
        """Delete the file of a run.  Raises HistoryError."""
        try:
            self.files.rm(self.file(run))
        except OSError as error:
            raise HistoryError(f"--store {self.store} cannot be written: {why(error)}") from error

    def file(self, run: str) -> str:
        """The path of the file of a run.  Raises HistoryError for what can be no run's id."""
        if not _RUN.fullmatch(run):
            raise HistoryError(f"run must be letters, digits and '.+-', got {run[:80]!r}")
        return f"{self.path}/{run}{SUFFIX}"

    @contextmanager
    def readable(self, runs: Sequence[str]) -> Iterator[list[str]]:
        """Local paths of these runs' files; files from a remote store are copied.

        Those of a local store are linked, since duckdb reads "*" and "[" in a path as patterns.
        """
        with tempfile.TemporaryDirectory() as folder:
            paths = [f"{folder}/{n}{SUFFIX}" for n in range(len(runs))]
            held = [f"{self.path}/{run}{SUFFIX}" for run in runs]
            if _is_local(self.files):
                for path, target in zip(paths, held, strict=True):
                    Path(path).symlink_to(Path(target).resolve())
            elif held:
                self.files.get(held, paths)
            yield paths

    def _look_at(self, runs: Sequence[str]) -> None:
        """Read every value of these files once, and note why where that fails."""
        import duckdb

        if not runs:
            return
        needed = ", ".join(f'count("{name}")' for name in self._needed)
        with duckdb.connect() as connection, self.readable(runs) as paths:
            for run, path in zip(runs, paths, strict=True):
                source = f"read_parquet({quoted(path)})"
                try:
                    connection.execute(f"SELECT {needed}, max(hash(COLUMNS(*))) FROM {source}")
                    self._looked_at[run] = "" if _RUN.fullmatch(run) else "its name is no run's id"
                except duckdb.Error as error:
                    self._looked_at[run] = why(error).replace(path, f"{run}{SUFFIX}")


def quoted(text: str) -> str:
    """A text as a string of SQL."""
    return "'" + text.replace("'", "''") + "'"


def why(error: Exception) -> str:
    """What an error says in one line, without the SQL that duckdb prints below it."""
    return getattr(error, "strerror", None) or str(error).partition("\n")[0]


def _is_local(files: Any) -> bool:
    protocols = files.protocol if isinstance(files.protocol, tuple) else (files.protocol,)
    return "file" in protocols
