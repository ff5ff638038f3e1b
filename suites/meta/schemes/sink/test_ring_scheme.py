"""The sink ring's own interface: where keys lie, what each query sees, how long a chunk may be."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ring_caches import LAW, RING, SINK, WINDOW, cache_of, held
from sink_feeds import feed, laws_rows, layers, shape, states

from harness.law import Layer
from harness.schemes.sink.ring import SinkRing, ring_bytes


def test_sinks_stay_in_their_slots_through_many_wraps() -> None:
    cache = cache_of()
    for _ in range(SINK + 5 * RING):
        feed(cache, 1)
    assert held(cache)[:SINK] == [0, 1, 2, 3]
    assert cache.cells.k[0, 0, :SINK, 0].tolist() == [0, 1, 2, 3]
    assert cache.cells.v[0, 1, :SINK, 2].tolist() == [0, -1, -2, -3]


def test_the_first_window_token_takes_the_first_ring_slot() -> None:
    cache = cache_of()
    feed(cache, SINK + 1)
    assert held(cache) == [0, 1, 2, 3, 4, *(-1,) * 15]


def test_a_token_overwrites_the_one_a_ring_before() -> None:
    cache = cache_of()
    feed(cache, SINK + RING)
    assert held(cache) == list(range(20))
    feed(cache, 1)
    assert held(cache) == [0, 1, 2, 3, 20, *range(5, 20)]


def test_a_chunk_wraps_inside() -> None:
    cache = cache_of(8)
    for n in (8, 8, 8):
        assert feed(cache, n) == laws_rows(LAW, cache.held.length - n, n)
    assert held(cache) == [0, 1, 2, 3, 20, 21, 22, 23, *range(8, 20)]


def test_a_chunk_goes_over_the_border_from_sinks_to_ring() -> None:
    cache = cache_of(6)
    feed(cache, 2)
    feed(cache, 6)
    assert held(cache)[:8] == list(range(8))


def test_without_sinks_it_is_a_plain_ring() -> None:
    layer = Layer(window=WINDOW)
    cache = cache_of(layer=layer)
    for start in range(3 * RING):
        assert feed(cache, 1) == laws_rows(layer, start, 1)
    feed(cache, 1)
    assert held(cache)[0] == 3 * RING


def test_a_never_written_slot_is_invisible() -> None:
    keys, _, mask = cache_of(3).update(*states(0, 3))
    assert keys.shape == (1, 2, SINK + RING, 4)
    assert mask.shape == (3, SINK + RING)
    assert not mask[:, 3:].any()


def test_the_mask_after_the_update_is_causal_inside_the_chunk() -> None:
    _, _, mask = cache_of(4).update(*states(0, 4))
    assert mask[:, :4].equal(torch.ones(4, 4).tril().bool())


def test_a_query_sees_the_sinks_and_its_window_only() -> None:
    cache = cache_of()
    feed(cache, 40)
    assert feed(cache, 1) == [frozenset({0, 1, 2, 3, *range(33, 41)})]


# ── chunks: how long one may be ─────────────────────────────────────────────────────────────────


def test_a_first_chunk_of_the_whole_cache_is_fine() -> None:
    cache = cache_of(SINK + RING, long_chunks=False)
    assert feed(cache, SINK + RING) == laws_rows(LAW, 0, SINK + RING)
    assert feed(cache, 1) == laws_rows(LAW, SINK + RING, 1)


def test_a_chunk_too_long_is_refused_with_its_numbers_and_changes_nothing() -> None:
    cache = cache_of(10, long_chunks=False)
    feed(cache, 20)
    before = [b.clone() for b in cache.cells.buffers()]
    match = "at position 20 must have at most 9 tokens, got 10: a ring of 16 slots must keep 7"
    with pytest.raises(ValueError, match=match):
        cache.update(*states(20, 10))
    assert all(a.equal(b) for a, b in zip(before, cache.cells.buffers(), strict=True))
    assert feed(cache, 9) == laws_rows(LAW, 20, 9)


def test_a_long_prompt_leaves_no_more_behind_than_its_ring() -> None:
    cache, written = cache_of(), []
    cache.cells.register_forward_pre_hook(lambda _, args: written.append(args[2].tolist()))
    before = cache.nbytes()
    assert feed(cache, 500) == laws_rows(LAW, 0, 500)
    # Each slot only once: no one promises which of two values a scatter leaves in a slot.
    assert written == [[0, 1, 2, 3, *range(484, 500)]]
    assert cache.nbytes() == before == ring_bytes(LAW, shape(), RING)
    assert feed(cache, 1) == laws_rows(LAW, 500, 1)


@given(layers, st.integers(0, 9), st.integers(0, 40))
def test_room_is_the_longest_chunk_that_stays_right(layer: Layer, spare: int, start: int) -> None:
    """One more token overwrites a key before it is read, or writes a slot twice."""
    assert layer.window is not None
    cells = SinkRing(layer, shape(), layer.window + spare)

    def right(n: int) -> bool:
        for slot in (cells.k, cells.v):
            slot.zero_()
        cells.positions.fill_(-1)
        for at in range(start):
            cells(*states(at, 1), torch.tensor([at]))
        chunk = torch.arange(start, start + n)
        slots = torch.where(
            chunk < layer.sink, chunk, layer.sink + (chunk - layer.sink) % cells.ring
        )
        if len(torch.unique(slots)) < n:
            return False
        keys, _, mask = cells(*states(start, n), chunk)
        return all(
            set(keys[0, 0, row, 0].tolist()) == layer.visible(q)
            for q, row in enumerate(mask, start)
        )

    room = cells.room(start)
    assert right(room)
    assert not right(room + 1)


@given(layers, st.integers(0, 9), st.lists(st.integers(1, 30), min_size=1, max_size=12), st.data())
def test_any_run_of_chunks_and_rewinds_sees_what_the_law_says(
    layer: Layer, spare: int, sizes: list[int], data: st.DataObject
) -> None:
    assert layer.window is not None
    cache = cache_of(5, layer, layer.window + spare)
    for n in sizes:
        start = cache.held.length
        assert feed(cache, n) == laws_rows(layer, start, n)
        target = data.draw(st.integers(0, cache.held.length))
        missing = layer.visible(target) - {target} - set(held(cache))
        if missing:
            with pytest.raises(ValueError, match=f"rewind length {target} .* overwritten"):
                cache.rewind(target)
        else:
            cache.rewind(target)
            assert max(held(cache)) < max(target, 1)


def test_the_default_ring_is_as_long_as_the_chunks_need_and_never_above_two_windows() -> None:
    rings = [SinkRing(LAW, shape(chunk)).ring for chunk in (1, 2, 9, 10, 400)]
    assert rings == [8, 9, 16, 16, 16]
