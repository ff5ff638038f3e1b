"""Defects of public reports that an earlier matrix let pass; each patches a correct body."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.defects.base import DenseAttention, Trimmed
from harness.defects.decoders import PatchedDecoder
from harness.law import Layer
from harness.reference import oracle


class FiniteMask(DenseAttention):
    """Masked scores are -10000, not minus infinity (transformers #14859)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        self.check(q, k, v)
        queries = torch.arange(k.shape[2] - q.shape[2], k.shape[2])
        mask = self.mask(layer, queries, torch.arange(k.shape[2]))
        return oracle.attention(q, k, v, mask, masked=-1e4)


class EmptySplitsMerged(DenseAttention):
    """Decode has a split per 64 positions; those past the window's keys add an old one's value."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        out = super().attend(q, k, v, layer)
        n = k.shape[2]
        if q.shape[2] > 1 or layer.window is None:
            return out
        splits = -(-n // 64)
        share = -(-min(n, layer.window) // splits)
        empty = splits - -(-min(n, layer.window) // share)
        groups = q.shape[1] // k.shape[1]
        stale = v[:, :, :1].repeat_interleave(groups, dim=1)
        return (out + empty * stale) / (1 + empty)


class RopePositionsInHalf(PatchedDecoder):
    """Positions are cast to the model's dtype before RoPE's angle is formed (candle #3520)."""

    def positions(self, start: int, t: int) -> Tensor:
        return super().positions(start, t).to(self.weights.embedding.dtype)


class RefusesHeldRewinds(Trimmed):
    """Keeps a window more than it needs, and refuses every rewind (onnxruntime-genai #2334)."""

    def needed(self, columns: Tensor) -> Tensor:
        if self.layer.window is None:
            return super().needed(columns)
        return columns >= self.length - 2 * self.layer.window

    def rewind(self, length: int) -> None:
        if self.layer.window is not None and self.length > self.layer.window:
            raise ValueError(f"cannot rewind to {length}: something has been evicted")
        super().rewind(length)


class FullBuffer(Trimmed):
    """Allocates the whole context for a bounded layer."""

    def reset(self) -> None:
        super().reset()
        s = self.shape
        slots = (2, s.batch, s.n_kv_heads, s.max_context, s.head_dim)
        self.buffer = torch.zeros(slots, dtype=s.dtype)

    def nbytes(self) -> int:
        return super().nbytes() + self.buffer.nbytes
