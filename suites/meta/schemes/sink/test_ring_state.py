"""The sink ring's state: reset, rewind, devices, distance, export, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from ring_caches import LAW, SINK, WINDOW, cache_of, held
from sink_feeds import feed, laws_rows, shape, states
from torch import Tensor

from harness.law import Layer
from harness.reference.decoder import rope_tables, rotate
from harness.schemes.sink.evict import SinkEvict
from harness.schemes.sink.ring import SinkRing, SinkRingCache


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
