"""Where a query is cut: few rows at a time, so that the scores of few rows exist at a time.

The cost of a cut, in values per head.  While piece i of c rows is worked on, its scores exist
twice, before and after the softmax, beside the rows of the output that are done; at the end all
pieces of the output exist beside the whole that they are joined to:

    peak = max(2 * keys * c_i + width * start_i, 2 * width * length)

With equal pieces the last one is the dearest, because the most rows are done by then.  Pieces that
get smaller towards the end level that out.
"""

from __future__ import annotations

from itertools import accumulate, pairwise

#: Matrix units work in tiles of eight rows and more: a piece that is cut for its bytes keeps to
#: multiples, unless it is so small that rounding it would cost more than levelling gains.
TILE = 8
_SMALLEST_IN_TILES = 8 * TILE

Span = tuple[int, int]


def split(length: int, parts: int, keys: int | None = None, width: int | None = None) -> list[Span]:
    """(start, end) of each piece of a query of `length` rows: `parts` of them, or one per row.

    keys, width: number of keys and head_dim of the values, where they are known: then the pieces
    are levelled if that lowers the peak; equal ones, to a row, otherwise.

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
    """The largest pieces, at most `parts`, that cost no more than the budget."""
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
