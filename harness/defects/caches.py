"""Defects of caches, each a small patch of `Trimmed`."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from harness.contract import CacheShape
from harness.defects.base import Trimmed
from harness.law import Layer


def _law(layer: Layer, **change: int | None) -> Layer:
    """The layer with fields changed where it has them: full layers stay as they are."""
    return replace(layer, **change) if layer.window is not None else layer  # type: ignore[arg-type]


class WindowPlusOne(Trimmed):
    """One key too many: FA2 given (W, W) in place of (W-1, 0)."""

    def __init__(self, layer: Layer, shape: CacheShape) -> None:
        super().__init__(_law(layer, window=(layer.window or 0) + 1), shape)


class WindowMinusOne(Trimmed):
    """One key too few."""

    def __init__(self, layer: Layer, shape: CacheShape) -> None:
        super().__init__(_law(layer, window=max((layer.window or 0) - 1, 1)), shape)


class SinkDropped(Trimmed):
    """The sink's keys go once the ring has wrapped."""

    def needed(self, columns: Tensor) -> Tensor:
        keep = super().needed(columns)
        if self.layer.window is not None and self.length > self.layer.sink + 2 * self.layer.window:
            keep = keep & (columns >= self.layer.sink)
        return keep


class SinkPlusOne(Trimmed):
    """One key more than the sink never leaves."""

    def __init__(self, layer: Layer, shape: CacheShape) -> None:
        super().__init__(_law(layer, sink=layer.sink + 1), shape)


class SinkMinusOne(Trimmed):
    """The sink's last key leaves."""

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


class StaleAfterReset(Trimmed):
    """A reset forgets the count, not the keys."""

    def reset(self) -> None:
        stale = getattr(self, "keys", None), getattr(self, "values", None)
        super().reset()
        if stale[0] is not None and stale[1] is not None:
            self.keys, self.values = stale[0], stale[1]
            self.kept = torch.zeros(self.keys.shape[2], dtype=torch.int64)


class KeysPermuted(Trimmed):
    """Keys and values part company by one slot once something has been evicted."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = super().update(k, v)
        if self.layer.bounded and self.length > self.kept.numel() + 1:
            values = values.roll(1, dims=2)
        return keys, values, mask


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
    """No band where one is due: every earlier key stays, and is seen (sglang #31501)."""

    def __init__(self, layer: Layer, shape: CacheShape) -> None:
        del layer
        super().__init__(Layer(), shape)


class BatchRowsMixed(Trimmed):
    """Values of the next row of the batch."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = super().update(k, v)
        return keys, values.roll(1, dims=0), mask


class SilentHalfStorage(Trimmed):
    """Stores float16 whatever the dtype."""

    def store(self, keys: Tensor, values: Tensor, columns: Tensor, keep: Tensor) -> None:
        super().store(keys, values, columns, keep)
        self.keys, self.values = self.keys.half(), self.values.half()

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.keys, self.values = self.keys.to(k.dtype), self.values.to(v.dtype)
        return super().update(k, v)


class StoredInFloat32(Trimmed):
    """Stores float32 whatever the dtype: twice the bytes in half precision."""

    def store(self, keys: Tensor, values: Tensor, columns: Tensor, keep: Tensor) -> None:
        super().store(keys, values, columns, keep)
        self.keys, self.values = self.keys.float(), self.values.float()

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.keys, self.values = self.keys.to(k.dtype), self.values.to(v.dtype)
        return super().update(k, v)


class LyingNbytes(Trimmed):
    """`nbytes()` tells half of what is held."""

    def nbytes(self) -> int:
        return super().nbytes() // 2


class RetainedPrefill(Trimmed):
    """Keeps a view of the prompt's storage (transformers 5.23, DynamicCache)."""

    def store(self, keys: Tensor, values: Tensor, columns: Tensor, keep: Tensor) -> None:
        start = len(columns) - int(keep.sum())
        self.keys, self.values = keys[:, :, start:], values[:, :, start:]
        self.kept = columns[start:]


class GrowsPastWindow(Trimmed):
    """Masks rightly, evicts nothing (vLLM #55818)."""

    def needed(self, columns: Tensor) -> Tensor:
        return torch.ones_like(columns, dtype=torch.bool)


class InputModified(Trimmed):
    """Scales the caller's values in place."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        answer = super().update(k, v.clone())
        v.mul_(0.5)
        return answer


class WrongAtRingMultiples(Trimmed):
    """Loses the oldest visible key, only where position % ring == 0."""

    def mask(self, queries: Tensor, columns: Tensor) -> Tensor:
        mask = super().mask(queries, columns)
        ring = 2 * (self.layer.window or 8)
        for row, q in enumerate(queries.tolist()):
            if q and q % ring == 0:
                mask[row, int(mask[row].nonzero()[0])] = False
        return mask


class WrongFromThirdWrap(Trimmed):
    """Right for two turns of a ring of 2W, then forgets one key early."""

    def mask(self, queries: Tensor, columns: Tensor) -> Tensor:
        mask = super().mask(queries, columns)
        if self.layer.window is not None:
            late = queries >= self.layer.sink + 6 * self.layer.window
            oldest = columns[None, :] == queries[:, None] - self.layer.window + 1
            mask = mask & ~(late[:, None] & oldest)
        return mask


class RewindForgetsNothing(Trimmed):
    """A rewind moves the count and leaves the keys."""

    def rewind(self, length: int) -> None:
        self.length = length
        self.kept = self.kept.clamp(max=max(length - 1, 0))


class RewindPastEviction(Trimmed):
    """A rewind to where keys are gone already succeeds (llama.cpp `seq_rm`)."""

    def rewind(self, length: int) -> None:
        keep = self.kept < length
        self.keys, self.values = self.keys[:, :, keep], self.values[:, :, keep]
        self.kept, self.length = self.kept[keep], length


class HeadsSwapped(Trimmed):
    """Key/value heads go to the wrong query groups."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = super().update(k, v)
        return keys.flip(1), values.flip(1), mask


class OneCorruptHead(Trimmed):
    """One row of one head, at one position in a wrap, is off by a hundredth (flashinfer #3864)."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = super().update(k, v)
        if self.length > 2 * (self.layer.window or 8):
            values = values.clone()
            values[-1, -1, -1] *= 1.01
        return keys, values, mask


class ModuloBeforeFull(Trimmed):
    """The rolling index is taken modulo W before the buffer is full (transformers #47708)."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        start = self.length
        answer = super().update(k, v)
        window = self.layer.window
        if window is not None and start < window < self.length and self.keys.shape[2] > 1:
            # The chunk that crosses W is written from slot 0: its last key lands on the first.
            self.keys = self.keys.roll(1, dims=2)
        return answer


class DuplicateIndices(Trimmed):
    """A chunk longer than the ring writes a slot twice; the first write is lost (#19213)."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = super().update(k, v)
        window, t = self.layer.window, k.shape[2]
        if window is not None and t > window:
            at = keys.shape[2] - t
            keys, values = keys.clone(), values.clone()
            keys[:, :, at : at + t - window] = keys[:, :, at + window : at + t]
            values[:, :, at : at + t - window] = values[:, :, at + window : at + t]
        return keys, values, mask


class KeyReturnedTwice(Trimmed):
    """The newest key comes back in two slots, both visible."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = super().update(k, v)
        last = [torch.cat((x, x[:, :, -1:]), 2) for x in (keys, values)]
        return last[0], last[1], torch.cat((mask, mask[:, -1:]), 1)


class PadStored(Trimmed):
    """A chunk is padded to an even length and the pad's key is kept (mlx-lm #439)."""

    def store(self, keys: Tensor, values: Tensor, columns: Tensor, keep: Tensor) -> None:
        super().store(keys, values, columns, keep)
        if self.length % 2:
            self.keys = torch.cat((self.keys, torch.zeros_like(keys[:, :, :1])), 2)
            self.values = torch.cat((self.values, torch.zeros_like(values[:, :, :1])), 2)
            self.kept = torch.cat((self.kept, columns[-1:]))


class NotDeterministic(Trimmed):
    """Two equal runs differ: the first of a process is warmer than the next."""

    runs = 0

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = super().update(k, v)
        type(self).runs += 1
        return keys, values * (1 + 2.0**-22 * (self.runs % 3)), mask


class AcceptsAnything(Trimmed):
    """Casts what it is given to its own dtype."""

    def check(self, k: Tensor, v: Tensor) -> None:
        del k, v

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().update(k.to(self.shape.dtype), v.to(self.shape.dtype))


class RefusalLeavesMess(Trimmed):
    """Counts the positions of an update that it then refuses."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        before = self.length
        try:
            return super().update(k, v)
        except ValueError:
            self.length = before + 1
            raise
