"""Drawings of visible sets: query rows by key columns, expected next to recovered.

Only geometry is made here; the template turns it into SVG.  A run of equal cells is one rectangle
with grid lines drawn over it, which keeps a drawing near 1 kB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from harness.results.text import cut, spans

CELL = 12  # px; a letter is still readable, and two panels of 3 rings fit side by side
_LABEL = 36  # px left of the first column, for the query's position
_HEAD = 18  # px above the first row, for the key positions
_FOLD = 20  # runs of at least this many columns that are equal in every row are folded
_CONTEXT = 2  # columns at either end of such a run that are still drawn
_COLUMNS, _ROWS = 400, 40  # the most to draw: more can neither be read nor sent to anybody
_SAID = 2_000  # characters of a drawing in words

#: Letters in the wrong cells, so that they do not depend on colour alone.
LETTERS = {"extra": "+", "lost": "−", "future": "F"}


@dataclass(frozen=True)
class Row:
    """The keys that one query should see, and the keys that it does see."""

    query: int
    expected: frozenset[int]
    seen: frozenset[int]

    def kind(self, key: int) -> str:
        """ "seen", "extra", "future", "lost", or "" for a key that is correctly invisible."""
        if key in self.seen:
            return "seen" if key in self.expected else "future" if key > self.query else "extra"
        return "lost" if key in self.expected else ""


@dataclass(frozen=True)
class Panel:
    """One side.  paths: by kind, the outline of the cells.  letters: (x, y, kind, letter)."""

    title: str
    label: str
    paths: dict[str, str]
    letters: list[tuple[float, float, str, str]]


@dataclass(frozen=True)
class Drawing:
    """Both sides, on the same grid.

    keys, queries: (x or y, text) of the axis labels.  void, lines, own: outlines of the whole
    grid, of its lines and of the marks at the queries' own positions.  cut: there is more than the
    rows and columns that are drawn.
    """

    width: int
    height: int
    keys: list[tuple[float, str]]
    queries: list[tuple[float, str]]
    void: str
    lines: str
    own: str
    panels: list[Panel]
    cut: bool


@dataclass(frozen=True)
class _Column:
    """A key position, or a folded range up to `last` of positions equal in every row."""

    key: int
    last: int
    x: int
    width: int

    @property
    def folded(self) -> bool:
        return self.last != self.key

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


def draw(raw: Iterable[tuple[int, Sequence[int], Sequence[int]]]) -> Drawing:
    """The drawing of (query position, expected keys, recovered keys) rows; at least one."""
    given = [Row(query, frozenset(want), frozenset(have)) for query, want, have in raw]
    rows = given[:_ROWS]
    columns = _columns(rows)
    width = columns[-1].x + columns[-1].width
    bottom = _HEAD + CELL * len(rows)
    return Drawing(
        width=width + 1,
        height=bottom + 1,
        keys=[(c.middle, "…" if c.folded else str(c.key)) for c in _named(columns)],
        queries=[(_y(i) + CELL / 2, str(row.query)) for i, row in enumerate(rows)],
        void=f"M{_LABEL} {_HEAD}H{width}V{bottom}H{_LABEL}z",
        lines=_lines(columns, len(rows), bottom),
        own=_own(rows, columns),
        panels=[
            _panel("expected by the law", rows, columns, expected=True),
            _panel("recovered from the outputs", rows, columns, expected=False),
        ],
        cut=len(rows) < len(given) or len(columns) == _COLUMNS,
    )


def _columns(rows: Sequence[Row]) -> list[_Column]:
    """A column for every key up to the last that matters; long runs of equal ones are folded."""
    out: list[_Column] = []
    x = _LABEL
    for run in _alike(rows):
        for first, last in _fold(*run):
            width = CELL if first == last else 2 * CELL
            out.append(_Column(first, last, x, width))
            x += width
            if len(out) == _COLUMNS:
                return out
    return out


def _alike(rows: Sequence[Row]) -> Iterator[tuple[int, int]]:
    """(first, last) of runs of keys that are equal in every row.

    There are about as many as the rows have keys, whatever the positions are.
    """
    named = sorted({k for row in rows for k in (row.query, *row.expected, *row.seen)})
    end = min(0, named[0])
    for _, run in groupby(named, lambda key: [(row.kind(key), row.query == key) for row in rows]):
        first = last = None
        for key in run:
            if last is not None and key == last + 1:
                last = key
                continue
            if first is not None and last is not None:
                yield first, last
                end = last + 1
            if key > end:  # keys that no row has: invisible in all
                yield end, key - 1
            first = last = key
        if first is not None and last is not None:
            yield first, last
            end = last + 1


def _fold(first: int, last: int) -> list[tuple[int, int]]:
    if last - first + 1 < _FOLD:
        return [(key, key) for key in range(first, last + 1)]
    head = [(key, key) for key in range(first, first + _CONTEXT)]
    tail = [(key, key) for key in range(last - _CONTEXT + 1, last + 1)]
    return [*head, (first + _CONTEXT, last - _CONTEXT), *tail]


def _named(columns: Sequence[_Column]) -> list[_Column]:
    """The columns with a label: folds, and multiples of 4 not too close to the last label."""
    out: list[_Column] = []
    for column in columns:
        beyond = not out or column.x - (out[-1].x + out[-1].width) >= CELL
        if column.folded or (column.key % 4 == 0 and beyond):
            out.append(column)
    return out


def _panel(title: str, rows: Sequence[Row], columns: Sequence[_Column], *, expected: bool) -> Panel:
    paths: dict[str, str] = {}
    letters = []
    for i, row in enumerate(rows):
        shown = Row(row.query, row.expected, row.expected) if expected else row
        for kind, run in groupby(((shown.kind(c.key), c) for c in columns), itemgetter(0)):
            cells = [c for _, c in run]
            width = cells[-1].x + cells[-1].width - cells[0].x
            if kind:
                outline = f"M{cells[0].x} {_y(i)}h{width}v{CELL}h-{width}z"
                paths[kind] = paths.get(kind, "") + outline
            if kind in LETTERS:
                letters += [(c.middle, _y(i) + CELL / 2, kind, LETTERS[kind]) for c in cells]
    return Panel(title, _said(title, rows, expected=expected), paths, letters)


def _said(title: str, rows: Sequence[Row], *, expected: bool) -> str:
    """The panel in words, for readers who cannot see it."""
    verb = "should see" if expected else "sees"
    said = (
        f"query {row.query} {verb} keys {spans(row.expected if expected else row.seen)}"
        for row in rows
    )
    return cut(f"{title.capitalize()}: {'; '.join(said)}", _SAID)


def _lines(columns: Sequence[_Column], n_rows: int, bottom: int) -> str:
    """The grid lines that divide runs into cells."""
    right = columns[-1].x + columns[-1].width
    edges = [c.x for c in columns] + [right]
    down = "".join(f"M{x} {_HEAD}V{bottom}" for x in edges)
    return down + "".join(f"M{_LABEL} {_y(i)}H{right}" for i in range(n_rows + 1))


def _own(rows: Sequence[Row], columns: Sequence[_Column]) -> str:
    """A small square in the cell of each query's own position."""
    at = {c.key: c for c in columns}
    marks = [(at[row.query].x, _y(i)) for i, row in enumerate(rows) if row.query in at]
    side = CELL - 8
    return "".join(f"M{x + 4} {y + 4}h{side}v{side}h-{side}z" for x, y in marks)


def _y(row: int) -> int:
    return _HEAD + CELL * row
