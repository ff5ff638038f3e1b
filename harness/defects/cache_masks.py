"""Defects of caches in the keys that a query sees: window, sink and mask.

Each is a small patch of `Trimmed`.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from harness.contract import CacheShape
from harness.defects.base import Trimmed
from harness.law import Layer


def _law(layer: Layer, **change: int | None) -> Layer:
    """The layer with fields changed where it has them: full layers stay as they are."""
    return replace(layer, **change) if layer.window is not None else layer  # type: ignore[arg-type]


class WindowPlusOne(Trimmed):
    """One key too many, as if FA2 were given (W, W) instead of (W-1, 0)."""

    def __init__(self, layer: Layer, shape: CacheShape) -> None:
        super().__init__(_law(layer, window=(layer.window or 0) + 1), shape)


class WindowMinusOne(Trimmed):
    """One key too few."""

    def __init__(self, layer: Layer, shape: CacheShape) -> None:
        super().__init__(_law(layer, window=max((layer.window or 0) - 1, 1)), shape)


class SinkDropped(Trimmed):
    """The sink's keys are dropped once the ring has wrapped."""

    def needed(self, columns: Tensor) -> Tensor:
        keep = super().needed(columns)
        if self.layer.window is not None and self.length > self.layer.sink + 2 * self.layer.window:
            keep = keep & (columns >= self.layer.sink)
        return keep


class SinkPlusOne(Trimmed):
    """The sink is one key too wide."""

    def __init__(self, layer: Layer, shape: CacheShape) -> None:
        super().__init__(_law(layer, sink=layer.sink + 1), shape)


class SinkMinusOne(Trimmed):
    """The sink is one key too narrow."""

    def __init__(self, layer: Layer, shape: CacheShape) -> None:
        super().__init__(_law(layer, sink=max(layer.sink - 1, 0)), shape)


class OverwrittenBeforeRead(Trimmed):
    """A ring of W slots takes the whole chunk before its first query has read the oldest key."""

    def mask(self, queries: Tensor, columns: Tensor) -> Tensor:
        mask = super().mask(queries, columns)
        if self.layer.window is None:
            return mask
        alive = (columns > int(queries[-1]) - self.layer.window) | (columns < self.layer.sink)
        return mask & alive


class FutureInChunk(Trimmed):
    """Inside a chunk each query sees the next key as well (executorch 1.4.1, `unmask`)."""

    def mask(self, queries: Tensor, columns: Tensor) -> Tensor:
        return super().mask(queries, columns) | (columns[None, :] == queries[:, None] + 1)


class ChunkMaskNotPerRow(Trimmed):
    """Every query of a chunk keeps the first one's window (executorch #21857)."""

    def mask(self, queries: Tensor, columns: Tensor) -> Tensor:
        first = super().mask(queries[:1], columns)
        return (columns[None, :] <= queries[:, None]) & (
            first | (columns[None, :] >= queries[0]) | super().mask(queries, columns)
        )


class PrefillFullyCausal(Trimmed):
    """The first chunk gets a plain causal mask on windowed layers (executorch #21384)."""

    def mask(self, queries: Tensor, columns: Tensor) -> Tensor:
        if int(queries[0]) == 0:
            return columns[None, :] <= queries[:, None]
        return super().mask(queries, columns)


class MaskNone(Trimmed):
    """Ignores the window: every earlier key is kept and visible (sglang #31501)."""

    def __init__(self, layer: Layer, shape: CacheShape) -> None:
        del layer
        super().__init__(Layer(), shape)


class WrongAtRingMultiples(Trimmed):
    """Loses the oldest visible key, but only at positions that are multiples of 2W."""

    def mask(self, queries: Tensor, columns: Tensor) -> Tensor:
        mask = super().mask(queries, columns)
        ring = 2 * (self.layer.window or 8)
        for row, q in enumerate(queries.tolist()):
            if q and q % ring == 0:
                mask[row, int(mask[row].nonzero()[0])] = False
        return mask


class WrongFromThirdWrap(Trimmed):
    """Correct up to the third wrap of a ring of 2W, then each query loses its oldest key."""

    def mask(self, queries: Tensor, columns: Tensor) -> Tensor:
        mask = super().mask(queries, columns)
        if self.layer.window is not None:
            late = queries >= self.layer.sink + 6 * self.layer.window
            oldest = columns[None, :] == queries[:, None] - self.layer.window + 1
            mask = mask & ~(late[:, None] & oldest)
        return mask
