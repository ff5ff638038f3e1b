"""History: one Parquet file a run, in a folder or on any fsspec URL, queried by duckdb.

It answers what changed since the previous run, since when a check has been broken, and where run
times shifted.  It only raises alerts; the gate decides.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.results.finding import RED
from harness.results.folder import HISTORY
from harness.results.record import INTEGERS
from harness.results.steps import Step, last_step

if TYPE_CHECKING:
    import pandas as pd


SUFFIX = ".parquet"

#: What identifies a row, and all columns that are kept.
KEY = ("subject", "check", "case", "device")
COLUMNS = (
    "run",
    *KEY,
    "scheme",
    "status",
    "known",
    "first_bad",
    "figure",
    "bound",
    "margin",
    *INTEGERS,
    "seconds",
)
_RED = ", ".join(f"'{status}'" for status in sorted(RED))


class HistoryError(Exception):
    """The history cannot be read or written; the message names the store and the reason."""


@dataclass(frozen=True)
class Slower:
    """A shift in the seconds that a check of a subject takes.  run: the first run after it."""

    subject: str
    check: str
    run: str
    step: Step


class History:
    """The runs in a store.  Raises HistoryError for a store that cannot be opened."""

    def __init__(self, store: str = HISTORY) -> None:
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

    def runs(self) -> list[str]:
        """Ids of the runs in the store, oldest first."""
        if not self.files.exists(self.path):
            return []
        names = (str(name).rpartition("/")[2] for name in self.files.ls(self.path, detail=False))
        return sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))

    def add(self, frame: pd.DataFrame, run: str, *, red: bool, headline: str) -> None:
        """Store a run, replacing one with the same id.  Raises HistoryError."""
        import duckdb

        kept = frame.reindex(columns=list(COLUMNS)).astype({"status": str})
        kept["run"], kept["red"], kept["headline"] = run, red, headline
        with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
            made = Path(folder) / f"{run}{SUFFIX}"
            connection.register("kept", kept)
            connection.execute(f"COPY kept TO '{made}' (FORMAT parquet, COMPRESSION zstd)")
            try:
                self.files.makedirs(self.path, exist_ok=True)
                self.files.put(str(made), self._file(run))
            except OSError as error:
                raise HistoryError(f"--store {self.store} cannot be written: {error}") from error

    def prune(self, keep: int) -> list[str]:
        """Delete all but the last `keep` runs; return the ids of those deleted."""
        old = self.runs()[:-keep] if keep else self.runs()
        for run in old:
            self.files.rm(self._file(run))
        return old

    def nights(self, last: int = 14) -> pd.DataFrame:
        """One row a run: run, red, headline, records by status, seconds."""
        return self._ask(
            self.runs()[-last:],
            """SELECT run, any_value(red) AS red, any_value(headline) AS headline,
               count(*) FILTER (status = 'pass') AS pass, count(*) FILTER (status = 'known') AS
               known, count(*) FILTER (status IN (RED)) AS broken, sum(seconds) AS seconds
               FROM history GROUP BY run ORDER BY run""",
        )

    def changes(self) -> pd.DataFrame:
        """What differs between the last run and the one before: key, what, before, now.

        `what` is "status", "first_bad" or the name of an integer.  For a record that is in only
        one of the two runs, the other side is None.
        """
        runs = self.runs()[-2:]
        if len(runs) < 2:
            return self._ask(runs, "SELECT NULL AS what WHERE false")
        keys = ", ".join(f'"{name}"' for name in KEY)
        pick = f"SELECT {keys}, status, {', '.join(INTEGERS)}, first_bad FROM history WHERE run = "
        parts = [
            f"SELECT {keys}, '{name}' AS what, CAST(a.{name} AS VARCHAR) AS before, "
            f"CAST(b.{name} AS VARCHAR) AS now FROM a FULL JOIN b USING ({keys}) "
            f"WHERE a.{name} IS DISTINCT FROM b.{name}"
            for name in ("status", *INTEGERS, "first_bad")
        ]
        return self._ask(
            runs,
            f"WITH a AS ({pick} '{runs[0]}'), b AS ({pick} '{runs[1]}') "
            f"{' UNION ALL '.join(parts)} ORDER BY what <> 'status', {keys}",
        )

    def broken_since(self) -> pd.DataFrame:
        """Since which run each check that is broken in the last run has been so: key, since."""
        runs = self.runs()
        keys = ", ".join(f'"{name}"' for name in KEY)
        return self._ask(
            runs,
            f"""WITH marked AS (SELECT {keys}, run, status IN (RED) AS bad FROM history),
                fine AS (SELECT {keys}, max(run) AS run FROM marked WHERE NOT bad GROUP BY ALL)
                SELECT {keys}, min(m.run) AS since FROM marked m LEFT JOIN fine f USING ({keys})
                WHERE m.bad AND (f.run IS NULL OR m.run > f.run)
                GROUP BY ALL HAVING max(m.run) = '{runs[-1] if runs else ""}' ORDER BY {keys}""",
        )

    def steps(self, last: int = 60) -> list[Slower]:
        """The last shift in the seconds of each subject's checks, the largest change first."""
        runs = self.runs()[-last:]
        if not runs:
            return []
        rows = self._ask(
            runs,
            """SELECT subject, "check", run, sum(seconds) AS seconds FROM history
               WHERE seconds IS NOT NULL GROUP BY ALL ORDER BY subject, "check", run""",
        )
        out = []
        for _, series in rows.groupby(["subject", "check"]):
            step = last_step(series["seconds"].tolist())
            if step is not None:
                at = series.iloc[step.index]
                out.append(Slower(at["subject"], at["check"], at["run"], step))
        return sorted(out, key=lambda s: -abs(s.step.after - s.step.before))

    def _file(self, run: str) -> str:
        return f"{self.path}/{run}{SUFFIX}"

    def _ask(self, runs: Sequence[str], query: str) -> pd.DataFrame:
        import duckdb
        import pandas as pd

        if not runs:
            return pd.DataFrame()
        with duckdb.connect() as connection, self._readable(runs) as paths:
            listed = ", ".join(f"'{path}'" for path in paths)
            source = f"read_parquet([{listed}], union_by_name = true)"
            query = query.replace("(RED)", f"({_RED})").replace("FROM history", f"FROM {source}")
            try:
                answer: pd.DataFrame = connection.execute(query).df()
            except duckdb.Error as error:
                raise HistoryError(f"--store {self.store} cannot be read: {error}") from error
            return answer

    @contextmanager
    def _readable(self, runs: Sequence[str]) -> Iterator[list[str]]:
        """Local paths of these runs' files; files from a remote store are copied."""
        remote = [self._file(run) for run in runs]
        if _is_local(self.files):
            yield remote
            return
        with tempfile.TemporaryDirectory() as folder:
            self.files.get(remote, [f"{folder}/{run}{SUFFIX}" for run in runs])
            yield [f"{folder}/{run}{SUFFIX}" for run in runs]


def _is_local(files: Any) -> bool:
    protocols = files.protocol if isinstance(files.protocol, tuple) else (files.protocol,)
    return "file" in protocols
