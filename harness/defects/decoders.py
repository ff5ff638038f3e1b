"""Defects of whole decoders, each a small patch of the harness's decoder over correct caches."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.cases.models import Model
from harness.contract import CacheSubject
from harness.law import Layer
from harness.reference.cache_decoder import CacheDecoder, cache_shape, checked_update
from harness.reference.decoder import Attend, check_tokens, forward
from harness.reference.oracle import attention


class PatchedDecoder(CacheDecoder):
    """A `CacheDecoder` whose positions and attention a defect can override."""

    def positions(self, start: int, t: int) -> Tensor:
        """RoPE positions of the next t tokens."""
        return torch.arange(start, start + t)

    def source(self, i: int) -> int:
        """The layer whose keys and values layer i reads."""
        return self.model.kv_sources[i]

    def feed(self, tokens: Tensor) -> Tensor:
        check_tokens(tokens, self.case.batch, self.case.vocab)
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
    """RoPE positions wrap around, like the ring of 2W slots (executorch 1.4.1, attention sink)."""

    def positions(self, start: int, t: int) -> Tensor:
        sink, ring = self.model.sink, 2 * self.case.window
        at = super().positions(start, t)
        return torch.where(at < sink, at, sink + (at - sink) % ring)


class PositionsStall(PatchedDecoder):
    """Positions come from the fill of a cache, which stops at W (transformers #38156)."""

    def positions(self, start: int, t: int) -> Tensor:
        return super().positions(min(start, self.case.window), t)


class RopeOfChunkStartOnly(PatchedDecoder):
    """Only the chunk's first position is wrapped; the others count on (executorch #21941)."""

    def positions(self, start: int, t: int) -> Tensor:
        ring = 2 * self.case.window
        return torch.arange(start % ring, start % ring + t) if start else super().positions(0, t)


class WrongSharedSource(PatchedDecoder):
    """Layers without a cache read the first layer's, not that of the last layer of their type."""

    def source(self, i: int) -> int:
        right = super().source(i)
        same = self.model.layer_head_dim(0) == self.model.layer_head_dim(right)
        return 0 if right != i and same else right


class HalfWeights(PatchedDecoder):
    """float32 weights are rounded to float16, in its own dense run too, which is equally wrong."""

    def __init__(self, subject: CacheSubject, case: Case) -> None:
        super().__init__(subject, case)
        if case.dtype == "float32":
            self.weights = self.weights.to(torch.float16).to(torch.float32)


class _OtherLaws(PatchedDecoder):
    """A decoder whose caches follow other laws than the model's."""

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
        """The layer types that the defect uses instead of the model's."""
        raise NotImplementedError


class WrongLayerFull(_OtherLaws):
    """The pattern is off by one: layer i is full iff i % P == 0."""

    def kinds(self, model: Model) -> tuple[str, ...]:
        return (*model.layer_types[-1:], *model.layer_types[:-1])


class AllLayersFull(_OtherLaws):
    """The window is ignored: every layer is full."""

    def kinds(self, model: Model) -> tuple[str, ...]:
        return ("full_attention",) * model.n_layers
