"""The kill table: which check catches which planted defect, kept as a file beside the records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

from harness.results.record import write_atomically

FILE = "kills.json"


@dataclass(frozen=True)
class Row:
    """A defect, what it does, and (check, cases broken, cases run) of the checks that catch it."""

    name: str
    what: str
    checks: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Kills:
    """The whole table."""

    rows: tuple[Row, ...]

    @property
    def caught(self) -> int:
        """Defects that some check catches."""
        return sum(bool(row.checks) for row in self.rows)


def run(workers: int = 2) -> Iterator[Row]:
    """Plant every defect and see what catches it, one row at a time."""
    from harness.defects import DEFECTS

    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_row, range(len(DEFECTS)))


def _row(index: int) -> Row:
    import torch

    from harness.defects import DEFECTS, kill

    torch.set_num_threads(1)
    defect = DEFECTS[index]
    done = kill(defect)
    checks = ((check, *done.checks[check]) for check in done.caught_by)
    return Row(defect.name.removeprefix("defect."), defect.what, tuple(checks))


def write(rows: Sequence[Row], folder: Path) -> Path:
    """Keep the table in a folder of results."""
    path = folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps([asdict(row) for row in rows], indent=1))
    return path


def read(folder: Path) -> Kills | None:
    """The table of a folder of results; None where none was made, or it cannot be read."""
    try:
        rows = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return Kills(
            tuple(
                Row(row["name"], row["what"], tuple((c, b, n) for c, b, n in row["checks"]))
                for row in rows
            )
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
