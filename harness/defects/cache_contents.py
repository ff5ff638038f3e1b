"""Defects of caches in what they hold and return, and in reset, rewind and refusal.

Each is a small patch of `Trimmed`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.defects.base import Trimmed


class StaleAfterReset(Trimmed):
    """A reset clears the count, but not the keys."""

    def reset(self) -> None:
        stale = getattr(self, "keys", None), getattr(self, "values", None)
        super().reset()
        if stale[0] is not None and stale[1] is not None:
            self.keys, self.values = stale[0], stale[1]
            self.kept = torch.zeros(self.keys.shape[2], dtype=torch.int64)


class KeysPermuted(Trimmed):
    """Values are one slot off from their keys once something has been evicted."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = super().update(k, v)
        if self.layer.bounded and self.length > self.kept.numel() + 1:
            values = values.roll(1, dims=2)
        return keys, values, mask


class BatchRowsMixed(Trimmed):
    """Each batch row gets the values of the row before it."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = super().update(k, v)
        return keys, values.roll(1, dims=0), mask


class SilentHalfStorage(Trimmed):
    """Stores float16, whatever the dtype."""

    def store(self, keys: Tensor, values: Tensor, columns: Tensor, keep: Tensor) -> None:
        super().store(keys, values, columns, keep)
        self.keys, self.values = self.keys.half(), self.values.half()

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.keys, self.values = self.keys.to(k.dtype), self.values.to(v.dtype)
        return super().update(k, v)


class StoredInFloat32(Trimmed):
    """Stores float32, whatever the dtype: twice the bytes in half precision."""

    def store(self, keys: Tensor, values: Tensor, columns: Tensor, keep: Tensor) -> None:
        super().store(keys, values, columns, keep)
        self.keys, self.values = self.keys.float(), self.values.float()

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.keys, self.values = self.keys.to(k.dtype), self.values.to(v.dtype)
        return super().update(k, v)


class LyingNbytes(Trimmed):
    """`nbytes()` reports half of what is held."""

    def nbytes(self) -> int:
        return super().nbytes() // 2


class RetainedPrefill(Trimmed):
    """Keeps a view of the prompt's storage (transformers 5.23, DynamicCache)."""

    def store(self, keys: Tensor, values: Tensor, columns: Tensor, keep: Tensor) -> None:
        start = len(columns) - int(keep.sum())
        self.keys, self.values = keys[:, :, start:], values[:, :, start:]
        self.kept = columns[start:]


class GrowsPastWindow(Trimmed):
    """Masks correctly, but evicts nothing (vLLM #55818)."""

    def needed(self, columns: Tensor) -> Tensor:
        return torch.ones_like(columns, dtype=torch.bool)


class InputModified(Trimmed):
    """Scales the caller's values in place."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        answer = super().update(k, v.clone())
        v.mul_(0.5)
        return answer


class RewindForgetsNothing(Trimmed):
    """A rewind resets the count, but keeps the keys."""

    def rewind(self, length: int) -> None:
        self.length = length
        self.kept = self.kept.clamp(max=max(length - 1, 0))


class RewindPastEviction(Trimmed):
    """A rewind succeeds although it needs keys that are gone (llama.cpp `seq_rm`)."""

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
    """Past 2W positions, the newest value of one head is 1% too large (flashinfer #3864)."""

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
    """The cache is padded to an even length, and the pad's key is kept (mlx-lm #439)."""

    def store(self, keys: Tensor, values: Tensor, columns: Tensor, keep: Tensor) -> None:
        super().store(keys, values, columns, keep)
        if self.length % 2:
            self.keys = torch.cat((self.keys, torch.zeros_like(keys[:, :, :1])), 2)
            self.values = torch.cat((self.values, torch.zeros_like(values[:, :, :1])), 2)
            self.kept = torch.cat((self.kept, columns[-1:]))


class NotDeterministic(Trimmed):
    """Equal runs differ: values depend on how many updates the process has made."""

    runs = 0

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = super().update(k, v)
        type(self).runs += 1
        return keys, values * (1 + 2.0**-22 * (self.runs % 3)), mask
