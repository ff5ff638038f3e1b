"""Defects of whole decoders, each a small patch of the harness's body over correct caches."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.cases.models import Model
from harness.contract import CacheSubject
from harness.law import Layer
from harness.reference.decoder import Attend, CacheDecoder, cache_shape, checked_update, forward
from harness.reference.oracle import attention


class PatchedDecoder(CacheDecoder):
    """`CacheDecoder` with its positions and its attention open to a patch."""

    def positions(self, start: int, t: int) -> Tensor:
        """RoPE positions of the next t tokens."""
        return torch.arange(start, start + t)

    def source(self, i: int) -> int:
        """The layer whose keys and values layer i reads."""
        return self.model.kv_sources[i]

    def feed(self, tokens: Tensor) -> Tensor:
        t = tokens.shape[1]
        logits = forward(self.weights, tokens, self.positions(self.length, t), self.attend())
        self.length += t
        return logits

    def attend(self) -> Attend:
        returned: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

        def step(i: int, q: Tensor, k: Tensor | None, v: Tensor | None) -> Tensor:
            if k is not None and v is not None:
                returned[i] = checked_update(self.caches[i], k, v)
            return attention(q, *returned[self.source(i)])

        return step


class RopeWrapped(PatchedDecoder):
    """Positions wrap with a ring of 2W behind the sink (executorch 1.4.1, attention sink)."""

    def positions(self, start: int, t: int) -> Tensor:
        sink, ring = self.model.sink, 2 * self.case.window
        at = super().positions(start, t)
        return torch.where(at < sink, at, sink + (at - sink) % ring)


class PositionsStall(PatchedDecoder):
    """Positions are read from a cache that is full at W (transformers #38156)."""

    def positions(self, start: int, t: int) -> Tensor:
        return super().positions(min(start, self.case.window), t)


class RopeOfChunkStartOnly(PatchedDecoder):
    """Only the chunk's first position is remapped (executorch #21941)."""

    def positions(self, start: int, t: int) -> Tensor:
        ring = 2 * self.case.window
        return torch.arange(start % ring, start % ring + t) if start else super().positions(0, t)


class WrongSharedSource(PatchedDecoder):
    """Layers without a cache read the first layer's, not the last one of their type."""

    def source(self, i: int) -> int:
        right = super().source(i)
        same = self.model.layer_head_dim(0) == self.model.layer_head_dim(right)
        return 0 if right != i and same else right


class HalfWeights(PatchedDecoder):
    """float32 weights are rounded to float16, for dense() too: its own measure is as coarse."""

    def __init__(self, subject: CacheSubject, case: Case) -> None:
        super().__init__(subject, case)
        if case.dtype == "float32":
            self.weights = self.weights.to(torch.float16).to(torch.float32)


class _OtherLaws(PatchedDecoder):
    """Caches for other laws than the model's."""

    def __init__(self, subject: CacheSubject, case: Case) -> None:
        super().__init__(subject, case)
        model = case.model
        laws = {
            "full_attention": Layer(),
            **dict(zip(model.layer_types, model.layers, strict=True)),
        }
        for i, kind in enumerate(self.kinds(model)):
            if i in self.caches:
                self.caches[i] = subject.new_cache(laws[kind], cache_shape(case, i))

    def kinds(self, model: Model) -> tuple[str, ...]:
        """The layer types that the defect takes for the model's."""
        raise NotImplementedError


class WrongLayerFull(_OtherLaws):
    """The pattern is off by one: layer i is full iff i % P == 0."""

    def kinds(self, model: Model) -> tuple[str, ...]:
        return (*model.layer_types[-1:], *model.layer_types[:-1])


class AllLayersFull(_OtherLaws):
    """The window is not honoured at all."""

    def kinds(self, model: Model) -> tuple[str, ...]:
        return ("full_attention",) * model.n_layers
