"""Sink rings of a few slots, for the tests of the ring."""

from __future__ import annotations

from sink_feeds import shape

from harness.law import Layer
from harness.schemes.sink.ring import SinkRingCache

WINDOW, SINK, RING = 8, 4, 16
LAW = Layer(window=WINDOW, sink=SINK)


def cache_of(
    max_chunk: int = 1, layer: Layer = LAW, ring: int | None = RING, long_chunks: bool = True
) -> SinkRingCache:
    """A ring of RING slots, or of another form."""
    return SinkRingCache(layer, shape(max_chunk), ring, long_chunks)


def held(cache: SinkRingCache) -> list[int]:
    """The position in each slot; -1 in one that is empty."""
    return cache.cells.positions.tolist()
