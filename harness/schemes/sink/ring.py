"""A windowed cache with attention sinks in fixed memory: ``[sink slots | ring]``.

Sink tokens (the first positions of the run) never move; every later token takes the ring slot
``sink + (position - sink) % ring``.  Keys keep the rotation of their original positions, so
nothing is rotated again.  The angles are computed from the position (`decoder.rope_tables`), so no
table runs out and generation can go on for ever.  The mask is made after the write, from the
positions that the slots hold.

The idea comes from pytorch/executorch#18753 (StreamingLLM, arXiv:2309.17453, without its
eviction).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from harness.contract import CacheShape
from harness.law import Layer, check_int
from harness.schemes.retention import Held
from harness.schemes.validation import check_kv

Answer = tuple[Tensor, Tensor, Tensor]


class SinkRing(nn.Module):
    """The graph part: pure tensor code; only the chunk's length varies in its shapes.

    layer: a law with a window and any sink; with sink 0 it is a plain ring.  ring: slots after the
    sink, by default enough for chunks of ``min(max_chunk, window + 1)``, so at most twice the
    window.  Raises ValueError for a law without a window or with a chunk, and for a ring smaller
    than the window.

    A chunk of c tokens overwrites c slots before it is read, and its first query still needs the
    window - 1 keys before it.  So ``ring >= window - 1 + c`` must hold, or the answer is wrong.
    `room` says how long a chunk may be.  The caller must check that: this module does not, since it
    would have to branch on data.
    """

    k: Tensor
    v: Tensor
    positions: Tensor

    def __init__(self, layer: Layer, shape: CacheShape, ring: int | None = None) -> None:
        super().__init__()
        if layer.window is None or layer.chunk is not None:
            raise ValueError(f"layer must have a window and no chunk for a sink ring, got {layer}")
        check_int("max_chunk", shape.max_chunk, 1)
        if ring is None:
            ring = layer.window - 1 + min(shape.max_chunk, layer.window + 1)
        check_int(f"ring (window={layer.window})", ring, layer.window)
        self.layer, self.window, self.ring = layer, layer.window, ring
        slots, where = layer.sink + ring, shape.device
        states = (shape.batch, shape.n_kv_heads, slots, shape.head_dim)
        self.register_buffer("k", torch.zeros(states, dtype=shape.dtype, device=where))
        self.register_buffer("v", torch.zeros(states, dtype=shape.dtype, device=where))
        # -1: never written, visible to nobody.
        empty = torch.full((slots,), -1, dtype=torch.int64, device=where)
        self.register_buffer("positions", empty)

    def forward(self, k: Tensor, v: Tensor, positions: Tensor) -> Answer:
        """Write k, v (B, Hkv, t, D) of `positions` (t,) int64, then answer with the whole cache.

        Returns keys, values (B, Hkv, sink + ring, D), which are the cache itself, not copies, and
        the mask (t, sink + ring), True = visible.
        """
        sink = self.layer.sink
        slots = torch.where(positions < sink, positions, sink + (positions - sink) % self.ring)
        self.k.index_copy_(2, slots, k)
        self.v.index_copy_(2, slots, v)
        self.positions.index_copy_(0, slots, positions)
        return self.k, self.v, self.layer.between(positions, self.positions)

    def room(self, start: int) -> int:
        """The longest chunk that may start at position `start`.

        Sinks do not use the ring, and early positions have nothing before them that could be
        lost: a first chunk of sink + ring tokens is fine.
        """
        return max(self.layer.sink + self.ring - start, self.ring - self.window + 1)

    def forget(self, position: int) -> None:
        """Make every slot that holds `position` or a later one empty."""
        gone = (self.positions >= position).nonzero().flatten()
        self.k.index_fill_(2, gone, 0)
        self.v.index_fill_(2, gone, 0)
        self.positions.index_fill_(0, gone, -1)


class SinkRingCache:
    """A `SinkRing` with the bookkeeping around it, as a `LayerCache`.

    long_chunks: what happens to a chunk longer than `SinkRing.room`.  True: its keys are appended
    to the ring's for this one answer, and then the newest are written; the memory that is kept
    stays that of the ring.  False: ValueError with the numbers, and nothing changes.
    """

    def __init__(
        self, layer: Layer, shape: CacheShape, ring: int | None = None, long_chunks: bool = True
    ) -> None:
        self.cells = SinkRing(layer, shape, ring)
        self.shape, self.long_chunks = shape, long_chunks
        self.held = Held(layer, self.cells.ring)

    @torch.no_grad()
    def update(self, k: Tensor, v: Tensor) -> Answer:
        """See `LayerCache.update`; the returned keys and values are valid until the next update.

        Raises ValueError, naming the field, if k or v has another shape or dtype, and for a chunk
        that is too long if long_chunks is False; the state is then unchanged.
        """
        n, start = check_kv(k, v, self.shape), self.held.length
        positions = torch.arange(start, start + n, device=k.device)
        room = self.cells.room(start)
        answer: Answer
        if n <= room:
            answer = self.cells(k, v, positions)
        elif self.long_chunks:
            answer = self._beside(k, v, positions)
        else:
            raise ValueError(
                f"an update at position {start} must have at most {room} tokens, got {n}: a ring "
                f"of {self.cells.ring} slots must keep {self.cells.window - 1} keys before them"
            )
        self.held.advance(n)
        return answer

    def reset(self) -> None:
        """Forget everything; the next update starts at position 0."""
        self.cells.forget(0)
        self.held.reset()

    def rewind(self, length: int) -> None:
        """Forget all positions >= length.

        Raises ValueError, and leaves the state unchanged, if a key that the next query needs has
        been overwritten.
        """
        self.held.rewind(length)
        self.cells.forget(length)

    def nbytes(self) -> int:
        """Storage bytes of keys, values and positions."""
        return sum(buffer.untyped_storage().nbytes() for buffer in self.cells.buffers())

    def _beside(self, k: Tensor, v: Tensor, positions: Tensor) -> Answer:
        """Answer from the ring with the chunk appended, then write the part that is kept."""
        cells, n, start = self.cells, len(positions), self.held.length
        keys, values = torch.cat((cells.k, k), 2), torch.cat((cells.v, v), 2)
        mask = cells.layer.between(positions, torch.cat((cells.positions, positions)))
        sinks = max(0, cells.layer.sink - start)  # fewer than the chunk, else it had room
        newest = max(sinks, n - cells.ring)
        rows = torch.cat((positions[:sinks], positions[newest:])) - start
        cells(k.index_select(2, rows), v.index_select(2, rows), positions[rows])
        return keys, values, mask


def ring_bytes(layer: Layer, shape: CacheShape, ring: int | None = None) -> int:
    """What `SinkRingCache.nbytes` would return, without allocating the cache."""
    cells = SinkRing(layer, replace(shape, device=torch.device("meta")), ring)
    return sum(buffer.nbytes for buffer in cells.buffers())
