"""The matrix, subject by check, as one small self-contained SVG for the README.

The counts of all schemes are added up.  The picture depends on the records alone, so that the
same results give the same file.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from harness.report import matrix
from harness.report import status as looks
from harness.results.files import write_atomically
from harness.results.finding import NOT_RUN

if TYPE_CHECKING:
    import pandas as pd

_MARGIN = 20  # px around everything
_COLUMN, _ROW, _HEAD = 106, 30, 62  # px; the head holds the title and the names of the checks
_CHARACTER = 7.1  # px, the widest that a character of a subject's name is drawn


@dataclass(frozen=True)
class _Tile:
    x: float
    y: float
    status: str
    text: str
    said: str


def render(frame: pd.DataFrame) -> str:
    """The SVG of a completed frame.  Raises ValueError for a frame without records."""
    if frame.empty:
        raise ValueError("the frame holds no records: there is nothing to draw")
    cells, subjects, checks = _cells(frame)
    absent = {r.subject: r.status for r in matrix.unloaded(frame)}
    left = _MARGIN + round(_CHARACTER * max(len(s) for s in (*subjects, *absent))) + 14
    rows = {s: _HEAD + _ROW * i for i, s in enumerate(sorted({*subjects, *absent}))}
    columns = {c: left + _COLUMN * i for i, c in enumerate(checks)}
    tiles = [
        _Tile(columns[check], rows[subject], looks.lead(counts), _text(counts), _said(counts))
        for (subject, check), counts in cells.items()
    ]
    tiles += [
        _Tile(left, rows[s], status, looks.look(status).word, looks.look(status).word)
        for s, status in absent.items()
    ]
    env = Environment(
        loader=PackageLoader("harness.report", ""), autoescape=True, undefined=StrictUndefined
    )
    used = {tile.status for tile in tiles}
    return env.get_template("picture.svg.j2").render(
        width=max(left + _COLUMN * len(checks) + _MARGIN, 560),
        height=_HEAD + _ROW * len(rows) + 52,
        margin=_MARGIN,
        tile=(_COLUMN - 4, _ROW - 4),
        title=f"{len(rows)} subjects, {len(frame):,} records",
        columns=columns,
        rows=rows,
        tiles=tiles,
        legend=[(s, look) for s, look in looks.LOOKS.items() if s in used],
        LOOKS=looks.LOOKS,
    )


def write(frame: pd.DataFrame, out: Path) -> Path:
    """Write the SVG of a frame to the file `out`, and return it.

    Raises ValueError for a frame without records, OSError where the file cannot be written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, render(frame))
    return out


def _cells(
    frame: pd.DataFrame,
) -> tuple[dict[tuple[str, str], Counter[str]], list[str], list[str]]:
    """Counts by (subject, check) over all schemes; the subjects and the checks, in order."""
    cells: dict[tuple[str, str], Counter[str]] = {}
    tables = matrix.tables(frame)
    for table in tables:
        for line in table.lines.values():
            for check, cell in line.cells.items():
                cells.setdefault((line.subject, check), Counter()).update(cell.counts)
    return cells, list(dict.fromkeys(s for s, _ in cells)), tables[0].checks if tables else []


def _text(counts: Counter[str]) -> str:
    """The text of a tile: the count of its worst status, and how many ran."""
    status = looks.lead(counts)
    ran = sum(n for s, n in counts.items() if s not in NOT_RUN)
    if not ran:
        return looks.look(status).word
    return f"{counts[status]:,}" if counts[status] == ran else f"{counts[status]:,} of {ran:,}"


def _said(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {looks.look(s).word}" for s, n in looks.ordered(counts))
