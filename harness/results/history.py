"""History: one Parquet file a run, in a folder or on any fsspec URL, queried by duckdb.

It answers what changed since the previous run, since when a check has been broken, and where run
times shifted.  It only raises alerts; the gate decides.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.results.finding import GRAVEST_FIRST, RED
from harness.results.folder import HISTORY
from harness.results.record import INTEGERS
from harness.results.steps import Step, last_step
from harness.results.store import SUFFIX, HistoryError, Store, quoted, why

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["History", "HistoryError", "Slower"]

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
#: Columns without which a file is no run.
_NEEDED = ("run", *KEY, "status", "seconds", "red", "headline")


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
        self._held = Store(store, _NEEDED)

    def runs(self) -> list[str]:
        """Ids of the runs in the store that can be read, oldest first."""
        unread = self.unread()
        return [run for run in self._held.names() if run not in unread]

    def unread(self) -> dict[str, str]:
        """Why a file cannot be read, by the id of its run: it costs that run alone."""
        return self._held.unread()

    def add(self, frame: pd.DataFrame, run: str, *, red: bool, headline: str) -> None:
        """Store a run, replacing one with the same id.

        The file gets its name once it is complete.  Raises HistoryError, and leaves nothing behind.
        """
        import duckdb

        self._held.file(run)
        kept = frame.reindex(columns=list(COLUMNS)).astype({"status": str})
        kept["run"], kept["red"], kept["headline"] = run, red, headline
        with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
            made = Path(folder) / f"{run}{SUFFIX}"
            connection.register("kept", kept)
            try:
                connection.execute(
                    f"COPY kept TO {quoted(str(made))} (FORMAT parquet, COMPRESSION zstd)"
                )
                self._held.put(made, run)
            except (OSError, duckdb.Error) as error:
                store = self._held.store
                raise HistoryError(f"--store {store} cannot be written: {why(error)}") from error

    def prune(self, keep: int) -> list[str]:
        """Delete all but the last `keep` runs; return the ids of those deleted."""
        names = self._held.names()
        old = names[:-keep] if keep else names
        for run in old:
            self._held.remove(run)
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
            f"WITH a AS ({pick} $before), b AS ({pick} $now) "
            f"{' UNION ALL '.join(parts)} ORDER BY what <> 'status', {keys}",
            before=runs[0],
            now=runs[1],
        )

    def broken_since(self) -> pd.DataFrame:
        """Since which run each check that is broken in the last run has been so.

        Columns: key, status now, since (id of a run), runs (how many since then).  What crashed or
        is missing comes first.
        """
        runs = self.runs()
        keys = ", ".join(f'"{name}"' for name in KEY)
        gravest = ", ".join(f"'{status}'" for status in GRAVEST_FIRST)
        return self._ask(
            runs,
            f"""WITH marked AS (SELECT {keys}, run, status, status IN (RED) AS bad FROM history),
                fine AS (SELECT {keys}, max(run) AS run FROM marked WHERE NOT bad GROUP BY ALL)
                SELECT {keys}, max_by(m.status, m.run) AS status, min(m.run) AS since,
                count(DISTINCT m.run) AS runs FROM marked m LEFT JOIN fine f USING ({keys})
                WHERE m.bad AND (f.run IS NULL OR m.run > f.run)
                GROUP BY {keys} HAVING max(m.run) = $last
                ORDER BY list_position([{gravest}], max_by(m.status, m.run)), {keys}""",
            last=runs[-1] if runs else "",
        )

    def integer_since(self, wanted: Iterable[tuple[str, str, str, str]]) -> dict[Any, str]:
        """The run since which an integer has had the value that it has in the last run.

        wanted: (subject, check, case, name of the integer), which are the keys of the answer.
        Those that the last run has no value for are left out.
        """
        import pandas as pd

        runs, out = self.runs(), {}
        names = list(dict.fromkeys(wanted))
        for integer in INTEGERS:
            picked = [name[:3] for name in names if name[3] == integer]
            if not picked or not runs:
                continue
            picked_frame = pd.DataFrame(picked, columns=["subject", "check", "case"])
            rows = self._ask(
                runs,
                f"""WITH held AS (SELECT h.subject, h."check", h."case", h.run, h.{integer} AS n
                    FROM history h JOIN picked USING (subject, "check", "case")),
                    now AS (SELECT * FROM held WHERE run = $last AND n IS NOT NULL),
                    other AS (SELECT subject, "check", "case", max(held.run) AS run FROM held
                    JOIN now USING (subject, "check", "case") WHERE held.n IS DISTINCT FROM now.n
                    GROUP BY ALL)
                    SELECT subject, "check", "case", min(held.run) AS since FROM held
                    JOIN now USING (subject, "check", "case")
                    LEFT JOIN other USING (subject, "check", "case")
                    WHERE other.run IS NULL OR held.run > other.run GROUP BY ALL""",
                picked=picked_frame,
                last=runs[-1],
            )
            for row in rows.itertuples(index=False):
                out[(*map(str, row[:3]), integer)] = str(row[3])
        return out

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

    def _ask(self, runs: Sequence[str], query: str, **given: Any) -> pd.DataFrame:
        """The answer to a query over these runs.  given: its parameters; frames become tables."""
        import duckdb
        import pandas as pd

        if not runs:
            return pd.DataFrame()
        tables = {name: value for name, value in given.items() if isinstance(value, pd.DataFrame)}
        values = {name: value for name, value in given.items() if name not in tables}
        with duckdb.connect() as connection, self._held.readable(runs) as paths:
            for name, table in tables.items():
                connection.register(name, table)
            source = f"read_parquet([{', '.join(map(quoted, paths))}], union_by_name = true)"
            query = query.replace("(RED)", f"({_RED})").replace("FROM history", f"FROM {source}")
            try:
                answer: pd.DataFrame = connection.execute(query, values or None).df()
            except duckdb.Error as error:
                store = self._held.store
                raise HistoryError(f"--store {store} cannot be read: {why(error)}") from error
            return answer
