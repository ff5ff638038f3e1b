"""The kill table: which check catches which planted defect, in a file next to the records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.report.line_file import read_lines, write_lines

if TYPE_CHECKING:
    from harness.defects import Defect
    from harness.defects.batteries import BatteryDefect

FILE = "kills.json"


@dataclass(frozen=True)
class Row:
    """A defect, what it does, and (check, cases broken, cases run) of the checks that catch it.

    The router and the sliced-Q pass have their own tests, whose parts take the place of checks.

    expected: the checks that must catch it.
    """

    name: str
    what: str
    checks: tuple[tuple[str, int, int], ...]
    expected: tuple[str, ...] = ()

    @property
    def missed_by(self) -> tuple[str, ...]:
        """The checks that must catch it but do not."""
        found = {check for check, _, _ in self.checks}
        return tuple(check for check in self.expected if check not in found)

    @property
    def is_caught(self) -> bool:
        """True if at least one check catches it, and every check that must."""
        return bool(self.checks) and not self.missed_by


@dataclass(frozen=True)
class Kills:
    """The whole table."""

    rows: tuple[Row, ...]

    @property
    def caught(self) -> int:
        """The number of defects that are caught, by every check that must catch them."""
        return sum(row.is_caught for row in self.rows)


def run(workers: int = 2) -> Iterator[Row]:
    """Plant every defect and see what catches it, one row at a time."""
    from harness.defects import DEFECTS
    from harness.defects.batteries import planted

    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_row, range(len(DEFECTS) + len(planted())))


def _row(index: int) -> Row:
    """The row of one defect.  Defects in subjects come first, then those in batteries."""
    import torch

    from harness.defects import DEFECTS, kill
    from harness.defects.batteries import planted

    torch.set_num_threads(1)
    if index < len(DEFECTS):
        defect = DEFECTS[index]
        return _row_of(defect, kill(defect).checks)
    other = planted()[index - len(DEFECTS)]
    return _row_of(other, other.judge())


def _row_of(defect: Defect | BatteryDefect, found: Mapping[str, tuple[int, int]]) -> Row:
    checks = tuple((name, broken, run) for name, (broken, run) in found.items() if broken)
    return Row(defect.name.removeprefix("defect."), defect.what, checks, defect.caught_by)


def write(rows: Sequence[Row], folder: Path) -> Path:
    """Write the table to a folder of results; return the file's path."""
    return write_lines(rows, folder / FILE)


def read(folder: Path) -> Kills | None:
    """The table in a folder of results; None if there is none or it cannot be read."""
    rows = read_lines(folder / FILE, _from_json)
    return None if rows is None else Kills(rows)


def _from_json(row: Any) -> Row:
    """The row that was written.  Raises ValueError, KeyError or TypeError for anything else."""
    checks = tuple((check, broken, run) for check, broken, run in row["checks"])
    texts = [row["name"], row["what"], *row["expected"], *(check for check, _, _ in checks)]
    counts = [n for _, *pair in checks for n in pair]
    if not (all(type(t) is str for t in texts) and all(type(n) is int for n in counts)):
        raise ValueError("a row holds names, a text and counts")
    return Row(row["name"], row["what"], checks, tuple(row["expected"]))
