"""Where a query is cut: into pieces of a few rows, so that only their scores exist at a time.

The cost of a cut is counted in values per head.  While piece i of c_i rows is computed, its scores
exist twice, before and after the softmax, together with the rows of the output that are done.  At
the end all pieces of the output exist together with the tensor that they are joined into:

    peak = max(2 * keys * c_i + width * start_i, 2 * width * length)

With equal pieces the last one costs most, because most rows are done by then.  Pieces that get
smaller towards the end cost about the same; we call such pieces levelled.
"""

from __future__ import annotations

from itertools import accumulate, pairwise

#: Matrix units work in tiles of eight rows or more.  Levelled pieces are whole tiles, unless they
#: are so small that rounding would cost more than levelling gains.
TILE = 8
_SMALLEST_IN_TILES = 8 * TILE

Span = tuple[int, int]


def split(length: int, parts: int, keys: int | None = None, width: int | None = None) -> list[Span]:
    """(start, end) of `parts` pieces of `length` query rows; of single rows if there are fewer.

    keys, width: number of keys and head_dim of the values, if known.  The pieces are then levelled
    if that lowers the peak; otherwise they are equal to within one row.

    Raises ValueError for a length or parts below 1.
    """
    for name, value in (("length", length), ("parts", parts)):
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value!r}")
    parts = min(parts, length)
    equal = [length * (i + 1) // parts - length * i // parts for i in range(parts)]
    if keys is None or width is None:
        return _spans(equal)
    level = _level(length, parts, keys, width)
    lower = peak(_spans(level), keys, width) < peak(_spans(equal), keys, width)
    return _spans(level if lower else equal)


def peak(spans: list[Span], keys: int, width: int) -> int:
    """The cost of a cut, in values per head, as derived above."""
    working = max(2 * keys * (end - start) + width * start for start, end in spans)
    return max(working, 2 * width * spans[-1][1])


def _level(length: int, parts: int, keys: int, width: int) -> list[int]:
    """Sizes whose pieces all cost about the same."""
    tile = TILE if length >= parts * _SMALLEST_IN_TILES else 1
    low, high = 1, 2 * keys * length + width * length  # the least budget that suffices
    while low < high:
        budget = (low + high) // 2
        if sum(_sizes(budget, length, parts, keys, width, tile)) == length:
            high = budget
        else:
            low = budget + 1
    return _sizes(low, length, parts, keys, width, tile)


def _sizes(budget: int, length: int, parts: int, keys: int, width: int, tile: int) -> list[int]:
    """Rows of the largest pieces, at most `parts`, of which each costs no more than `budget`."""
    out: list[int] = []
    start = 0
    while start < length and len(out) < parts:
        affordable = (budget - width * start) // (2 * keys)
        size = min(affordable // tile * tile, length - start)
        if affordable >= length - start:
            size = length - start  # the last piece need not be whole tiles
        if size <= 0:
            break
        out.append(size)
        start += size
    return out


def _spans(sizes: list[int]) -> list[Span]:
    return list(pairwise(accumulate(sizes, initial=0)))
