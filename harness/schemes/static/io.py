"""Feeds a static graph in chunks of fixed length, and keeps its caches and masks between them.

An application's runner must do what this module does: pad, mask, run, shift or scatter the new
keys, and know what a rewind can no longer bring back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from harness.law import check_int
from harness.reference.decoder import rope_tables
from harness.schemes.static.layout import Kind, StaticLayout
from harness.schemes.static.masks import clear, rewind, slots_of, store
from harness.schemes.static.model import Graph
from harness.schemes.validation import check_context, check_tokens


class _Cache(NamedTuple):
    """One cache, and what is needed to write to it."""

    name: str
    layer: int
    kind: Kind
    states: Tensor
    seq_dim: int
    sink: int
    mask: str  # the mask whose slots it shares


class StaticIO:
    """Holds the caches of a `StaticLayout` and drives its graphs.

    graphs: by input length, each a graph for chunks of that many tokens.  All share the caches,
    like prefill and decode of a multifunction program.  A feed uses the longest graph while the
    tokens fill it, then the shortest one that holds the rest, padded.  max_context_len: positions
    that layers with full attention may reach; None: as many as their caches allow.

    A layer whose cache, of length C, is shorter than its law's span (any full layer) can answer
    only chunks that start at position C or before.  A model with only windowed layers can go on
    for ever.
    """

    def __init__(
        self,
        layout: StaticLayout,
        graphs: Mapping[int, Graph],
        vocab: int,
        max_context_len: int | None = None,
    ) -> None:
        if not graphs:
            raise ValueError("graphs must hold at least one input length, got none")
        for length in graphs:
            check_int("input length of a graph", length, 1)
        self.layout, self.vocab, self.max_context_len = layout, vocab, max_context_len
        self.graphs = dict(sorted(graphs.items()))
        self.k_caches, self.v_caches = layout.empty_caches("k"), layout.empty_caches("v")
        self.slots = slots_of(layout)
        self._caches = tuple(self._list_caches())
        self.length = 0

    @torch.no_grad()
    def feed(self, tokens: Tensor) -> Tensor:
        """tokens (B, t) int64, the next t positions, any t >= 1 -> logits (B, t, V).

        Raises ValueError, naming the field, for tokens of another shape, dtype or vocabulary and
        for more tokens than the caches allow; the state is then unchanged.
        """
        check_tokens(tokens, self.layout.batch, self.vocab)
        chunks = self.plan(tokens.shape[1])
        self._check_room(chunks)
        parts, at = [], 0
        for input_len, n in chunks:
            parts.append(self._step(tokens[:, at : at + n], input_len))
            at += n
        return torch.cat(parts, 1)

    def decode(self, first: Tensor, n: int) -> Tensor:
        """Greedy decoding: feeds `first` (B,), then each answer; returns the n answers (B, n)."""
        check_int("n", n, 1)
        answers = [first]
        for _ in range(n):
            answers.append(self.feed(answers[-1][:, None])[:, -1].argmax(-1))
        return torch.stack(answers[1:], 1)

    def reset(self) -> None:
        """Forget everything; the next feed starts at position 0."""
        for cache in self._caches:
            cache.states.zero_()
        for slots in self.slots.values():
            slots.reset()
        self.length = 0

    def rewind(self, length: int) -> None:
        """Forget all positions >= length.

        Raises ValueError, and leaves the state unchanged, if a layer has overwritten a key that
        the next query would need.
        """
        forget = rewind(self.slots, self.length, length)
        for cache in self._caches:
            clear(cache.states, 0, cache.seq_dim, cache.sink, forget[cache.mask])
        self.length = length

    def cache_bytes(self) -> list[int]:
        """Storage bytes of keys and values per layer; 0 for a layer that reads another's."""
        total = [0] * self.layout.model.n_layers
        for cache in self._caches:
            total[cache.layer] += cache.states.untyped_storage().nbytes()
        return total

    def plan(self, n: int) -> list[tuple[int, int]]:
        """(input length, tokens) of each chunk that a feed of n tokens is split into."""
        chunks = []
        while n:
            input_len = next((length for length in self.graphs if length >= n), max(self.graphs))
            chunks.append((input_len, min(n, input_len)))
            n -= chunks[-1][1]
        return chunks

    def _check_room(self, chunks: list[tuple[int, int]]) -> None:
        total = sum(n for _, n in chunks)
        lasts = [s.held.last_start for s in self.slots.values() if s.held.last_start is not None]
        if not lasts:
            return
        if self.max_context_len is not None:
            check_context(self.length, total, self.max_context_len, "max_context_len")
        last_start, start = min(lasts), self.length + total - chunks[-1][1]
        if start > last_start:
            raise ValueError(
                f"{total} tokens at position {self.length} need a chunk that starts at {start}; "
                f"the shortest cache that drops no positions holds {last_start} positions, so "
                f"no chunk may start after {last_start}"
            )

    def _step(self, tokens: Tensor, input_len: int) -> Tensor:
        n = tokens.shape[1]
        padded = torch.nn.functional.pad(tokens, (0, input_len - n))
        positions = torch.arange(self.length, self.length + input_len)
        rope = {
            name: rope_tables(positions, head_dim, self.layout.dtype)
            for name, head_dim in self.layout.rope_dims.items()
        }
        logits, new_k, new_v = self.graphs[input_len](
            padded, self._masks(positions), rope, self.k_caches, self.v_caches
        )
        self._store(new_k, new_v, n)
        self.length += n
        return logits[:, :n]

    def _masks(self, positions: Tensor) -> dict[str, Tensor]:
        """Additive masks (1, L, C + L) for a chunk at `positions` (L,)."""
        visible, masked = (
            torch.tensor(value, dtype=self.layout.dtype) for value in (0.0, self.layout.mask_value)
        )
        return {
            name: torch.where(slots.visible(positions), visible, masked)[None]
            for name, slots in self.slots.items()
        }

    def _store(self, new_k: Mapping[str, Tensor], new_v: Mapping[str, Tensor], n: int) -> None:
        """Store the first n tokens' keys and values; the padding after them is dropped."""
        writes = {name: slots.write(n) for name, slots in self.slots.items()}
        for cache in self._caches:
            update = (new_k if cache.kind == "k" else new_v)[cache.name]
            store(cache.states, update, cache.seq_dim, cache.sink, writes[cache.mask])

    def _list_caches(self) -> Iterator[_Cache]:
        layout = self.layout
        by_kind: tuple[tuple[Kind, dict[str, Tensor]], ...] = (
            ("k", self.k_caches),
            ("v", self.v_caches),
        )
        for i in layout.model.cached_layers:
            sink, mask = layout.model.layers[i].sink, layout.mask_name(i)
            for name in layout.cache_names(i):
                for kind, caches in by_kind:
                    yield _Cache(name, i, kind, caches[name], layout.seq_dim(kind), sink, mask)
