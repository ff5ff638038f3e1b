"""The second table of `harness kills`: blunt mistakes, and mistakes under one condition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from harness.report.line_file import read_lines, write_lines

FILE = "blunt.json"


@dataclass(frozen=True)
class Line:
    """One cell: a body, the check or the step that meets it, the mistake, and what came of it.

    vacuous: nothing speaks against the mistake, and there is no reason for that.
    """

    body: str
    check: str
    mistake: str
    said: str
    vacuous: bool


@dataclass(frozen=True)
class Blunt:
    """The whole table."""

    lines: tuple[Line, ...]

    @property
    def vacuous(self) -> int:
        """The number of cells that prove nothing."""
        return sum(line.vacuous for line in self.lines)

    @property
    def mistakes(self) -> list[str]:
        """The columns."""
        return list(dict.fromkeys(line.mistake for line in self.lines))

    @property
    def rows(self) -> Iterator[tuple[str, str, list[Line]]]:
        """(body, check, cells in the order of the columns)."""
        cells: dict[tuple[str, str], dict[str, Line]] = {}
        for line in self.lines:
            cells.setdefault((line.body, line.check), {})[line.mistake] = line
        for (body, check), found in cells.items():
            yield body, check, [found[mistake] for mistake in self.mistakes]


def run(workers: int = 2) -> Iterator[Line]:
    """Plant every blunt mistake, body by body."""
    from harness.defects.blunt import BLUNTS

    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for lines in pool.map(_lines, range(len(BLUNTS))):
            yield from lines


def _lines(index: int) -> list[Line]:
    import torch

    from harness.defects import vacuous
    from harness.defects.blunt import BLUNTS

    torch.set_num_threads(1)
    return [
        Line(cell.body, cell.check, cell.mistake, str(cell), cell.is_vacuous)
        for cell in vacuous.cells(BLUNTS[index])
    ]


def missed(workers: int = 2) -> Iterator[str]:
    """The conditions under which a wrong body passes, without a reason."""
    from harness.defects import conditions

    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for body, found in zip(
            conditions.BODIES, pool.map(_missed, conditions.BODIES), strict=True
        ):
            yield from (f"{body}: {condition}" for condition in found)


def _missed(body: str) -> list[str]:
    import torch

    from harness.defects import conditions

    torch.set_num_threads(1)
    return [
        str(condition)
        for condition in conditions.CONDITIONS
        if not conditions.reason(body, condition) and not conditions.caught(body, condition)
    ]


def write(lines: Sequence[Line], folder: Path) -> Path:
    """Write the table to a folder of results; return the file's path."""
    return write_lines(lines, folder / FILE)


def read(folder: Path) -> Blunt | None:
    """The table in a folder of results; None if there is none or it cannot be read."""
    lines = read_lines(folder / FILE, _from_json)
    if lines is None:
        return None
    found = Blunt(lines)
    try:
        list(found.rows)
    except KeyError:  # a table with holes is none
        return None
    return found


def _from_json(line: Any) -> Line:
    """The line that was written.  Raises ValueError or TypeError for anything else."""
    made = Line(**line)
    if not all(type(v) is (bool if k == "vacuous" else str) for k, v in asdict(made).items()):
        raise ValueError("a line holds four texts and a truth")
    return made
