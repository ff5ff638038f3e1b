"""Defects of how bad input is taken: each way to be wrong about it, for each body."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.defects.base import DenseAttention, Trimmed
from harness.defects.decoders import PatchedDecoder
from harness.law import Layer


def _fit(x: Tensor, like: Tensor) -> Tensor:
    """x cut and padded with zeros to the shape and dtype of `like`."""
    out = torch.zeros_like(like)
    x = x.reshape((1,) * (like.dim() - x.dim()) + tuple(x.shape))
    cut = tuple(slice(0, min(a, b)) for a, b in zip(x.shape, like.shape, strict=True))
    out[cut] = x[cut].to(like.dtype)
    return out


class AcceptsAnything(Trimmed):
    """Cuts and pads every input to its own shape and dtype instead of refusing it."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s = self.shape
        like = torch.zeros(s.batch, s.n_kv_heads, k.shape[-2], s.head_dim, dtype=s.dtype)
        return super().update(_fit(k, like), _fit(v, like))


class ChecksKeysAlone(Trimmed):
    """Checks only the keys: values are cut and padded to their shape."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().update(k, _fit(v, k))


class _TakesHalf(Trimmed):
    """Takes keys and values in another dtype, as torch would: rightly."""

    other = False

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.other = k.dtype != self.shape.dtype
        return super().update(k.to(self.shape.dtype), v.to(self.shape.dtype))


class OtherDtypeByBits(_TakesHalf):
    """Takes values of another dtype, and reads them as a tenth of what they are."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().update(k, v / 10 if v.dtype != self.shape.dtype else v)


class OtherDtypeStoredWrong(_TakesHalf):
    """Answers an update of another dtype rightly, and stores it negated."""

    def store(self, keys: Tensor, values: Tensor, columns: Tensor, keep: Tensor) -> None:
        super().store(keys, -values if self.other else values, columns, keep)


class RefusalLeavesMess(Trimmed):
    """Counts the positions of an update that it then refuses."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        before = self.length
        try:
            return super().update(k, v)
        except ValueError:
            self.length = before + 1
            raise


class HalfKeysNotPromoted(DenseAttention):
    """Takes keys and values of another dtype, and scales the scores as if they were bytes."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        by = k.element_size() / q.element_size()
        return super().attend(q, k.to(q.dtype) * by, v.to(q.dtype), layer)


class HalfKeysSpoilTheScale(DenseAttention):
    """Answers keys of another dtype rightly, and keeps a scale that was meant for them."""

    scale = 1.0

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        out = super().attend(q * self.scale, k.to(q.dtype), v.to(q.dtype), layer)
        if k.dtype != q.dtype:
            self.scale = 0.5
        return out


class RefusalSpoilsTheScale(DenseAttention):
    """Refuses what does not fit after it has set a scale for it."""

    scale = 1.0

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        try:
            self.check(q, k, v)
        except ValueError:
            self.scale = 0.5
            raise
        return super().attend(q * self.scale, k, v, layer)


class TokensWrapAround(PatchedDecoder):
    """Takes any token id, modulo the vocabulary."""

    def feed(self, tokens: Tensor) -> Tensor:
        return super().feed(tokens % self.case.vocab if tokens.dim() == 2 else tokens)


class _TakesRankOne(PatchedDecoder):
    """Takes tokens without a batch: the same for every row."""

    def feed(self, tokens: Tensor) -> Tensor:
        return super().feed(tokens.expand(self.case.batch, -1))


class RankOneReversed(_TakesRankOne):
    """Takes tokens without a batch, the last one first."""

    def feed(self, tokens: Tensor) -> Tensor:
        return super().feed(tokens.flip(0) if tokens.dim() == 1 else tokens)


class RankOneCountedTwice(_TakesRankOne):
    """Answers tokens without a batch rightly, and counts their positions twice."""

    def feed(self, tokens: Tensor) -> Tensor:
        logits = super().feed(tokens)
        if tokens.dim() == 1:
            self.length += len(tokens)
        return logits


class RefusedFeedCounted(PatchedDecoder):
    """Counts the positions of a feed that it then refuses."""

    def feed(self, tokens: Tensor) -> Tensor:
        if tokens.dtype != torch.int64:
            self.length += tokens.shape[-1]
            raise ValueError(f"tokens must be int64, got {tokens.dtype}")
        return super().feed(tokens)
