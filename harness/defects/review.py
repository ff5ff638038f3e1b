"""Defects that a review planted and that the suite of that time missed; it now catches them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from harness.contract import CacheShape
from harness.defects.base import DenseAttention, Trimmed
from harness.law import Layer


class BigChunkRows(Trimmed):
    """Batch rows swap values, but only in chunks of at least a window."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = super().update(k, v)
        big = self.layer.window is not None and k.shape[2] >= self.layer.window
        return keys, values.flip(0) if big else values, mask


class SecondPrompt(Trimmed):
    """A later chunk of more than two windows loses the oldest key of its first query."""

    def mask(self, queries: Tensor, columns: Tensor) -> Tensor:
        mask = super().mask(queries, columns)
        if self.layer.window and int(queries[0]) and len(queries) > 2 * self.layer.window:
            mask[0, int(mask[0].nonzero()[0])] = False
        return mask


class ChunkBetween(Trimmed):
    """Chunks longer than W + 2 and shorter than 2W see one key too many."""

    def mask(self, queries: Tensor, columns: Tensor) -> Tensor:
        window = self.layer.window
        if window and window + 2 < len(queries) < 2 * window:
            return replace(self.layer, window=window + 1).between(queries, columns)
        return super().mask(queries, columns)


class SinkAsWide(Trimmed):
    """Loses the sink's last key if the sink is as wide as the window."""

    def __init__(self, layer: Layer, shape: CacheShape) -> None:
        same = layer.window is not None and layer.sink == layer.window
        super().__init__(replace(layer, sink=layer.sink - 1) if same else layer, shape)


class RewindThenChunk(Trimmed):
    """The last query of the first chunk after a rewind loses its oldest key."""

    rewound = False

    def rewind(self, length: int) -> None:
        super().rewind(length)
        self.rewound = True

    def mask(self, queries: Tensor, columns: Tensor) -> Tensor:
        mask = super().mask(queries, columns)
        if self.rewound and len(queries) > 1:
            mask[-1, int(mask[-1].nonzero()[0])] = False
            self.rewound = False
        return mask


class RefusedRewindForgets(Trimmed):
    """A rewind that is refused drops the oldest key."""

    def rewind(self, length: int) -> None:
        try:
            super().rewind(length)
        except ValueError:
            self.keys, self.values = self.keys[:, :, 1:], self.values[:, :, 1:]
            self.kept = self.kept[1:]
            raise


class SecondReset(Trimmed):
    """The first reset works; later ones leave the newest key."""

    resets = -1  # the constructor makes the first

    def reset(self) -> None:
        self.resets += 1
        last = (self.keys[:, :, -1:], self.values[:, :, -1:]) if self.resets > 1 else None
        super().reset()
        if last is not None:
            self.keys, self.values = last
            self.kept = torch.zeros(last[0].shape[2], dtype=torch.int64)


class KeepsTheCallersTensor(Trimmed):
    """On full layers the first update stores the caller's tensors themselves, not copies."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = self.length == 0
        answer = super().update(k, v)
        if first and not self.layer.bounded:
            self.keys, self.values = k, v
        return answer


class SharedPool(Trimmed):
    """Caches with the same law share the newest value, and overwrite each other's."""

    def __init__(self, layer: Layer, shape: CacheShape) -> None:
        super().__init__(layer, shape)
        _NEWEST.pop((id(type(self)), layer), None)

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = super().update(k, v)
        place = (id(type(self)), self.layer)
        shared = _NEWEST.get(place)
        if shared is not None and values.shape[2] > k.shape[2]:
            values = values.clone()
            values[:, :, -k.shape[2] - 1] = shared
        _NEWEST[place] = v[:, :, -1].clone()
        return keys, values, mask


_NEWEST: dict[tuple[int, Layer], Tensor] = {}


class KeysScaledInPlace(DenseAttention):
    """Scales the caller's keys in place."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        out = super().attend(q, k, v, layer)
        with torch.no_grad():
            k.mul_(0.5)
        return out


class WideWindowsRoundUp(DenseAttention):
    """Windows of 16 and more are rounded up to a multiple of 16, plus one."""

    def mask(self, layer: Layer, queries: Tensor, columns: Tensor) -> Tensor:
        if layer.window is not None and layer.window >= 16:
            layer = replace(layer, window=(layer.window + 15) // 16 * 16 + 1)
        return super().mask(layer, queries, columns)


class LaterBatchRows(DenseAttention):
    """Batch rows after the first see one key too many."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        out = super().attend(q, k, v, layer)
        if q.shape[0] > 1 and layer.window is not None:
            wider = replace(layer, window=layer.window + 1)
            rest = super().attend(q[1:], k[1:], v[1:], wider)
            out = torch.cat((out[:1], rest))
        return out
