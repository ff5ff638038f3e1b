"""Where a query is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.schemes.sliced_q.chunks import TILE, peak, split

lengths, parts = st.integers(1, 5000), st.integers(1, 64)


@given(lengths, parts, st.none() | st.integers(1, 5000), st.sampled_from([1, 64, 256]))
def test_pieces_cover_every_row_once_and_in_order(
    length: int, count: int, keys: int | None, width: int
) -> None:
    spans = split(length, count, keys, width)
    assert [row for start, end in spans for row in range(start, end)] == list(range(length))
    assert len(spans) <= min(count, length)
    assert all(start < end for start, end in spans)


@given(lengths, parts, st.integers(1, 5000), st.sampled_from([1, 64, 256]))
def test_levelled_pieces_never_cost_more_than_equal_ones(
    length: int, count: int, keys: int, width: int
) -> None:
    equal = split(length, count)
    assert max(e - s for s, e in equal) - min(e - s for s, e in equal) <= 1
    assert peak(split(length, count, keys, width), keys, width) <= peak(equal, keys, width)


def test_long_queries_get_smaller_pieces_of_whole_tiles() -> None:
    sizes = [end - start for start, end in split(2048, 16, 2048, 64)]
    assert len(sizes) == 16
    assert sizes == sorted(sizes, reverse=True)
    assert all(size % TILE == 0 for size in sizes)
    assert sizes[0] > sizes[-1]


@pytest.mark.parametrize(("length", "count", "name"), [(0, 4, "length"), (4, 0, "parts")])
def test_what_cannot_be_cut_is_refused(length: int, count: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
        split(length, count)
