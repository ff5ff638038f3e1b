"""A decoder over sink rings as one graph with state, and what feeds it.

The graph is the harness's small decoder with a `RestartableRing` in each layer that owns a cache.
Caches and the positions in their slots are buffers, and RoPE's angles are computed from the
positions.  So an exported program needs only tokens and positions, and can go on for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from harness.cases.models import Model
from harness.contract import CacheShape
from harness.law import check_int
from harness.reference import oracle
from harness.reference.decoder import Weights, forward
from harness.schemes.retention import Held
from harness.schemes.sink.ring import Answer, SinkRing
from harness.schemes.validation import check_rewind, check_tokens

#: (tokens (B, t), positions (t,)) -> logits (B, t, V)
SinkGraph = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class SinkLayout:
    """Shapes of a model's rings.

    max_chunk: tokens of the longest call of the graph.  Rings have room for chunks of
    min(max_chunk, window + 1), the default of `SinkRing`.  `ring` and `blueprints` raise ValueError
    for a layer without a window.
    """

    model: Model
    max_chunk: int
    batch: int = 1
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        check_int("max_chunk", self.max_chunk, 1)
        check_int("batch", self.batch, 1)

    def ring(self, layer: int, device: str = "cpu") -> RestartableRing:
        """An empty ring of a layer that owns one."""
        shape = CacheShape(
            batch=self.batch,
            n_kv_heads=self.model.layer_kv_heads(layer),
            head_dim=self.model.layer_head_dim(layer),
            max_context=self.max_chunk,  # a ring does not depend on the length of the run
            max_chunk=self.max_chunk,
            dtype=self.dtype,
            device=torch.device(device),
        )
        return RestartableRing(self.model.layers[layer], shape)

    @cached_property
    def blueprints(self) -> dict[int, RestartableRing]:
        """Rings without memory, by layer: they know their slots, bytes and room."""
        return {i: self.ring(i, "meta") for i in self.model.cached_layers}

    def layer_bytes(self, layer: int) -> int:
        """Bytes of a layer's keys, values and positions; 0 if it reads another's."""
        ring = self.blueprints.get(layer)
        return 0 if ring is None else sum(buffer.nbytes for buffer in ring.buffers())


class RestartableRing(SinkRing):
    """A ring that itself forgets positions that are fed again.

    The caller of a program cannot reach into its buffers.  So a chunk whose first position was fed
    before is a rewind to that position, and one that starts at position 0 is a reset.
    """

    def forward(self, k: Tensor, v: Tensor, positions: Tensor) -> Answer:
        """See `SinkRing.forward`; first empties the slots from positions[0] on."""
        self.positions.copy_(torch.where(self.positions < positions[0], self.positions, -1))
        return super().forward(k, v, positions)


class SinkDecoder(nn.Module):
    """tokens (B, t) int64 at consecutive positions (t,) int64 -> logits (B, t, V).

    t may be any length that `SinkIO` lets through.
    """

    def __init__(self, layout: SinkLayout, weights: Weights) -> None:
        super().__init__()
        self.sources = layout.model.kv_sources
        self.weights = weights.to(layout.dtype)
        self.rings = nn.ModuleDict({str(i): layout.ring(i) for i in layout.model.cached_layers})

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """One chunk; see the class."""
        answers: dict[int, Answer] = {}

        def attend(i: int, q: Tensor, k: Tensor | None, v: Tensor | None) -> Tensor:
            if k is not None and v is not None:
                answers[i] = self.rings[str(i)](k, v, positions)
            return oracle.attention(q, *answers[self.sources[i]])

        return forward(self.weights, tokens, positions, attend)


class SinkIO:
    """Feeds a `SinkDecoder`, eager or lowered, and splits chunks that are too long for a ring.

    It holds no tensors: the state is the graph's.  It knows which positions the rings still hold.
    """

    def __init__(self, layout: SinkLayout, graph: SinkGraph, vocab: int) -> None:
        self.layout, self.graph, self.vocab = layout, graph, vocab
        self._rings = tuple(layout.blueprints.values())
        self._held = [Held(ring.layer, ring.ring) for ring in self._rings]
        self.length = 0

    @torch.no_grad()
    def feed(self, tokens: Tensor) -> Tensor:
        """tokens (B, t) int64, the next t positions, any t >= 1 -> logits (B, t, V).

        Raises ValueError, naming the field, for tokens of another shape, dtype or vocabulary; the
        state is then unchanged.
        """
        check_tokens(tokens, self.layout.batch, self.vocab)
        parts = []
        for n in self.plan(self.length, tokens.shape[1]):
            part, tokens = tokens[:, :n], tokens[:, n:]
            positions = torch.arange(self.length, self.length + n)
            parts.append(self.graph(part.contiguous(), positions))
            self.length += n
            for held in self._held:
                held.advance(n)
        return torch.cat(parts, 1)

    def plan(self, start: int, n: int) -> list[int]:
        """Lengths of the chunks that a feed of n tokens at position `start` is split into."""
        chunks: list[int] = []
        while n:
            room = min(ring.room(start) for ring in self._rings)
            chunks.append(min(n, room, self.layout.max_chunk))
            start, n = start + chunks[-1], n - chunks[-1]
        return chunks

    def reset(self) -> None:
        """Forget everything; the next feed starts at position 0."""
        self.length = 0
        for held in self._held:
            held.reset()

    def rewind(self, length: int) -> None:
        """Forget all positions >= length.

        Raises ValueError, and leaves the state unchanged, if a key that the next query needs has
        been overwritten.
        """
        check_rewind(length, self.length)
        for held in self._held:
            held.check_rewind(length)
        for held in self._held:
            held.rewind(length)
        self.length = length

    def cache_bytes(self) -> list[int]:
        """Bytes of keys, values and positions per layer; 0 for a layer that reads another's."""
        return [self.layout.layer_bytes(i) for i in range(self.layout.model.n_layers)]
