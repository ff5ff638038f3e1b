"""The sink ring's own interface."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sink_feeds import feed, laws_rows, layers, shape, states
from torch import Tensor

from harness.law import Layer
from harness.reference.decoder import rope_tables, rotate
from harness.schemes.sink.evict import SinkEvict
from harness.schemes.sink.ring import SinkRing, SinkRingCache, ring_bytes

WINDOW, SINK, RING = 8, 4, 16
LAW = Layer(window=WINDOW, sink=SINK)


def cache_of(
    max_chunk: int = 1, layer: Layer = LAW, ring: int | None = RING, long_chunks: bool = True
) -> SinkRingCache:
    return SinkRingCache(layer, shape(max_chunk), ring, long_chunks)


# ── layout: sinks stay, window tokens wrap ──────────────────────────────────────────────────────


def held(cache: SinkRingCache) -> list[int]:
    return cache.cells.positions.tolist()


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


# ── reset, rewind, endlessness ──────────────────────────────────────────────────────────────────


def test_a_reset_cache_is_a_fresh_one() -> None:
    used, fresh = cache_of(5), cache_of(5)
    feed(used, 50)
    used.reset()
    assert all(a.equal(b) for a, b in zip(used.cells.buffers(), fresh.cells.buffers(), strict=True))
    assert feed(used, 11) == laws_rows(LAW, 0, 11)


def test_forgotten_slots_are_invisible_even_where_nothing_is_written_over_them() -> None:
    cache = cache_of()
    feed(cache, 20)
    cache.rewind(12)
    assert set(held(cache)) == {-1, *range(12)}
    assert feed(cache, 1) == laws_rows(LAW, 12, 1)


@pytest.mark.parametrize("target", [0, 12])
def test_forgotten_keys_leave_the_cache(target: int) -> None:
    """A masked weight is 0, but 0 * inf is not."""
    cache = cache_of()
    feed(cache, 16)
    cache.cells.k[:, :, 12:16] = torch.inf
    cache.rewind(target)
    assert cache.cells.k.isfinite().all()


def test_a_rewind_into_the_sinks_is_always_possible() -> None:
    cache = cache_of()
    feed(cache, 500)
    cache.rewind(3)
    assert feed(cache, 30) == laws_rows(LAW, 3, 30)


def test_a_refused_rewind_changes_nothing() -> None:
    cache = cache_of()
    feed(cache, 60)
    with pytest.raises(ValueError, match="position 43, which has been overwritten"):
        cache.rewind(50)
    with pytest.raises(ValueError, match="at most the 60 positions held, got 61"):
        cache.rewind(61)
    assert feed(cache, 1) == laws_rows(LAW, 60, 1)


def test_decoding_goes_on_past_ten_million_positions() -> None:
    """Positions are int64 and angles come from the position: nothing has a length that ends."""
    cache, far = cache_of(), 10_000_000
    feed(cache, SINK)
    cache.held.advance(far - SINK)  # as if the tokens between had been fed
    seen = [feed(cache, 1)[0] for _ in range(WINDOW + 3)]
    assert seen[-1] == {0, 1, 2, 3, *range(far + 3, far + 11)}


def test_relative_rotation_holds_at_any_distance() -> None:
    """The score of two rotated vectors depends on their distance alone, at position 10 million."""
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 16, generator=generator, dtype=torch.float64)

    def score(at: int) -> Tensor:
        tables = [rope_tables(torch.tensor([p]), 16, torch.float64) for p in (at, at - 5)]
        return rotate(q, *tables[0]) @ rotate(k, *tables[1]).transpose(-1, -2)

    near, far = score(5), score(10_000_000)
    # An angle of 1e7 carries a rounding of 1e7 * eps; sixteen products add up.
    assert (near - far).abs().max() <= 1e7 * torch.finfo(torch.float64).eps * 16


# ── device and dtype ────────────────────────────────────────────────────────────────────────────


def test_index_tensors_live_where_the_cache_lives() -> None:
    """With a cache on the meta device, an index tensor on the CPU would raise."""
    cells = SinkRing(LAW, shape(9, torch.float16, "meta"))
    k = torch.empty(1, 2, 9, 4, dtype=torch.float16, device="meta")
    keys, values, mask = cells(k, k, torch.arange(9, device="meta"))
    assert {keys.device.type, values.device.type, mask.device.type} == {"meta"}
    assert keys.dtype == values.dtype == torch.float16
    assert mask.dtype == torch.bool
    cache = SinkRingCache(LAW, shape(9, torch.float16, "meta"))
    for n in (9, 30):  # a chunk that the ring has room for, and a longer one
        k = torch.empty(1, 2, n, 4, dtype=torch.float16, device="meta")
        assert {x.device.type for x in cache.update(k, k)} == {"meta"}


def test_a_cast_leaves_positions_whole() -> None:
    cells = SinkRing(LAW, shape(dtype=torch.float32)).to(torch.bfloat16)
    assert cells.k.dtype == torch.bfloat16
    assert cells.positions.dtype == torch.int64


@pytest.mark.parametrize("strict", [False, True])
def test_the_graph_part_exports_with_any_chunk_length(strict: bool) -> None:
    cells = SinkRing(LAW, shape(9))
    chunk = torch.export.Dim("chunk", min=1, max=9)
    k, v = states(0, 3)
    program = torch.export.export(
        cells,
        (k, v, torch.arange(3)),
        dynamic_shapes=({2: chunk}, {2: chunk}, {0: chunk}),
        strict=strict,
    )
    exported, eager = program.module(), SinkRing(LAW, shape(9))
    start = 0
    for n in (9, 1, 4, 9, 9, 9, 2, 9):  # three wraps of 16 slots
        given = (*states(start, n), torch.arange(start, start + n))
        for got, want in zip(exported(*given), eager(*given), strict=True):
            assert got.equal(want)
        start += n


# ── refusals ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("match", "k", "v"),
    [
        (r"k must be \(1, 2, t >= 1, 4\)", torch.zeros(2, 1, 4), torch.zeros(2, 1, 4)),
        ("k must be torch.float64, got torch.float16", *(torch.zeros(1, 2, 1, 4).half(),) * 2),
        (r"got \(3, 2, 1, 4\)", *(torch.zeros(3, 2, 1, 4),) * 2),
        (r"got \(1, 4, 1, 4\)", *(torch.zeros(1, 4, 1, 4),) * 2),
        (r"got \(1, 2, 1, 8\)", *(torch.zeros(1, 2, 1, 8),) * 2),
        (r"got \(1, 2, 0, 4\)", *(torch.zeros(1, 2, 0, 4),) * 2),
        (
            "same length, got 2 and 1",
            torch.zeros(1, 2, 2, 4).double(),
            torch.zeros(1, 2, 1, 4).double(),
        ),
    ],
)
@pytest.mark.parametrize("make", [cache_of, lambda: SinkEvict(LAW, shape())])
def test_keys_of_another_form_are_refused(
    make: Callable[[], SinkRingCache | SinkEvict], match: str, k: Tensor, v: Tensor
) -> None:
    cache = make()
    with pytest.raises(ValueError, match=match):
        cache.update(k, v)
    assert cache.held.length == 0


@pytest.mark.parametrize(
    ("match", "layer", "ring"),
    [
        ("must have a window", Layer(), None),
        ("no chunk", Layer(window=4, chunk=8), None),
        (r"ring \(window=8\) must be an integer >= 8, got 7", LAW, 7),
    ],
)
def test_a_ring_that_cannot_be_is_refused(match: str, layer: Layer, ring: int | None) -> None:
    with pytest.raises(ValueError, match=match):
        SinkRing(layer, shape(), ring)
