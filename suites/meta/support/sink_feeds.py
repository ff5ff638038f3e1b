"""Keys that say their position, and what the queries of a sink cache see of them."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from harness.contract import CacheShape
from harness.law import Layer
from harness.schemes.sink.evict import SinkEvict
from harness.schemes.sink.ring import SinkRingCache

layers = st.builds(Layer, window=st.integers(1, 9), sink=st.integers(0, 4))


def shape(
    max_chunk: int = 1, dtype: torch.dtype = torch.float64, device: str = "cpu", batch: int = 1
) -> CacheShape:
    return CacheShape(batch, 2, 4, 10_000, max_chunk, dtype, torch.device(device))


def states(start: int, n: int, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Keys and values that say their position: k = position, v = -position."""
    at = torch.arange(start, start + n, dtype=torch.float64)
    k = at[None, None, :, None].expand(batch, 2, n, 4)
    return k.contiguous(), -k


def feed(cache: SinkRingCache | SinkEvict, n: int) -> list[frozenset[int]]:
    """The positions that each of the next n queries sees, read from the keys that came back."""
    start = cache.held.length
    keys, values, mask = cache.update(*states(start, n))
    assert mask.shape == (n, keys.shape[2])
    seen = []
    for row in mask:
        visible = keys[0, 0, row, 0]
        assert values[0, 1, row, 3].equal(-visible), "values do not belong to their keys"
        assert len(torch.unique(visible)) == len(visible), "a key is returned twice"
        seen.append(frozenset(int(p) for p in visible))
    return seen


def laws_rows(layer: Layer, start: int, n: int) -> list[frozenset[int]]:
    return [layer.visible(q) for q in range(start, start + n)]
