"""Eviction, the scheme that the sink ring replaces: the law, its bytes, its rewinds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from sink_feeds import feed, laws_rows, layers, shape

from harness.law import Layer
from harness.reference import oracle, tolerance
from harness.reference.decoder import rope_tables, rotate
from harness.schemes.sink.evict import ReRotatingSinkEvict, SinkEvict


@given(layers, st.integers(1, 5), st.lists(st.integers(1, 25), min_size=1, max_size=8), st.data())
def test_eviction_at_original_positions_follows_the_law(
    layer: Layer, batch: int, sizes: list[int], data: st.DataObject
) -> None:
    assert layer.window is not None
    cache = SinkEvict(layer, shape(), batch)
    slot = 2 * 2 * 4 * 8
    for n in sizes:
        start = cache.held.length
        assert feed(cache, n) == laws_rows(layer, start, n)
        assert cache.nbytes() == cache.k.shape[2] * slot
        assert cache.k.shape[2] <= layer.sink + layer.window + batch - 2
        target = data.draw(st.integers(0, cache.held.length))
        missing = layer.visible(target) - {target} - set(cache.k[0, 0, :, 0].tolist())
        if missing:
            with pytest.raises(ValueError, match="overwritten"):
                cache.rewind(target)
        else:
            cache.rewind(target)


@given(layers, st.integers(1, 3), st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_re_rotation_counts_positions_in_the_cache(
    layer: Layer, batch: int, sizes: list[int]
) -> None:
    """Scores are those of keys and queries rotated at their places in the cache."""
    assume(layer.window is not None)
    cache = ReRotatingSinkEvict(layer, shape(), batch)
    generator = torch.Generator().manual_seed(sum(sizes))
    q, k = torch.randn(2, 1, 2, sum(sizes), 4, generator=generator, dtype=torch.float64)
    start, evictions = 0, 0
    for n in sizes:
        at = torch.arange(start, start + n)
        rotated = rotate(k[:, :, at], *rope_tables(at, 4, torch.float64))
        offset = cache.offset
        original = torch.cat((cache._positions(), at))
        keys, values, mask = cache.update(rotated, k[:, :, at])
        places = torch.where(original < layer.sink, original, original - offset)
        queries = rotate(q[:, :, at], *rope_tables(at - offset, 4, torch.float64))
        exact = rotate(k[:, :, original], *rope_tables(places, 4, torch.float64))
        got, want = (oracle.attention(queries, x, values, mask) for x in (keys, exact))
        evictions += int(cache.offset > offset)
        bound = tolerance.row_bound(want, want, mask.sum(-1), 4, 1 + evictions)
        assert (tolerance.row_error(got, want) <= bound).all()
        start += n
