"""Attention sinks by eviction: the scheme that the ring replaces, kept as a baseline.

Every update appends the chunk to the cache and then cuts the cache back to the sinks and the newest
keys.  That makes two copies of the whole cache per step, and shapes that depend on how much is
held.  Its only parameter is how many surplus tokens may gather before a cut.

`SinkEvict` leaves every key rotated at its original position, which is correct under the law.
`ReRotatingSinkEvict` follows StreamingLLM (arXiv:2309.17453): positions are places in the cache, so
a sink is never farther from a query than the cache is long.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.contract import CacheShape
from harness.law import Layer, check_int
from harness.reference.decoder import rope_tables, rotate
from harness.schemes.retention import Held
from harness.schemes.validation import check_kv


class SinkEvict:
    """A `LayerCache` that evicts.

    batch: the number of surplus tokens at which it evicts.  After an update it holds the sinks and,
    once there are so many, window - 1 to window + batch - 2 keys after them.  Raises ValueError for
    a law without a window or with a chunk, and for batch < 1.
    """

    k: Tensor  # (B, Hkv, held, D)
    v: Tensor

    def __init__(self, layer: Layer, shape: CacheShape, batch: int = 1) -> None:
        if layer.window is None or layer.chunk is not None:
            raise ValueError(f"layer must have a window and no chunk for eviction, got {layer}")
        check_int("batch", batch, 1)
        self.layer, self.shape, self.past = layer, shape, layer.window - 1
        self.held = Held(layer, self.past + batch - 1)
        self.reset()

    @torch.no_grad()
    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `LayerCache.update`.

        Raises ValueError, naming the field, if k or v has another shape or dtype; the state is
        then unchanged.
        """
        n, start = check_kv(k, v, self.shape), self.held.length
        keys = torch.cat((self.k, self._enter(k)), 2)
        values = torch.cat((self.v, v), 2)
        new = torch.arange(start, start + n, device=k.device)
        positions = torch.cat((self._positions(), new))
        answer = keys, values, self.layer.between(new, positions)
        self.k, self.v = keys, values
        oldest = self.held.oldest
        self.held.advance(n)
        if self.held.oldest > oldest:
            self.held.drop_before(self.held.length - self.past)
            self._evict(self.held.oldest - oldest)
        return answer

    def reset(self) -> None:
        """Forget everything; the next update starts at position 0."""
        shape = self.shape
        empty = (shape.batch, shape.n_kv_heads, 0, shape.head_dim)
        self.k = torch.empty(empty, dtype=shape.dtype, device=shape.device)
        self.v = torch.empty_like(self.k)
        self.held.reset()

    def rewind(self, length: int) -> None:
        """Forget all positions >= length; ValueError if an evicted key would be needed again."""
        self.held.check_rewind(length)
        kept = int((self._positions() < length).sum())
        self.held.rewind(length)
        # Copies: a view would keep the storage of what was forgotten.
        self.k, self.v = self.k[:, :, :kept].clone(), self.v[:, :, :kept].clone()

    def nbytes(self) -> int:
        """Storage bytes of keys and values."""
        return self.k.untyped_storage().nbytes() + self.v.untyped_storage().nbytes()

    def _positions(self) -> Tensor:
        """Original position of each key held: the sinks, then `held.oldest` … `held.length` - 1."""
        length, device = self.held.length, self.shape.device
        sinks = torch.arange(min(self.layer.sink, length), device=device)
        newest = torch.arange(self.held.oldest, max(self.held.oldest, length), device=device)
        return torch.cat((sinks, newest))

    def _enter(self, k: Tensor) -> Tensor:
        """New keys as they are stored."""
        return k

    def _evict(self, n: int) -> None:
        """Drop the n oldest keys after the sinks."""
        sink = self.layer.sink
        kept = self.k.shape[2] - sink - n
        self.k, self.v = (
            torch.cat((x.narrow(2, 0, sink), x.narrow(2, sink + n, kept)), 2)
            for x in (self.k, self.v)
        )


class ReRotatingSinkEvict(SinkEvict):
    """Eviction with positions in the cache instead of positions in the text.

    After each eviction the keys after the sinks are rotated back by as many positions as were
    evicted.  `update` takes keys rotated at their original positions, and returns them rotated at
    their places in the cache.  The caller must rotate its queries at ``position - offset``, with
    the value of `offset` before the update.  Distances inside the window are unchanged, but those
    to a sink shrink.  That is not the model of the law, so this class is not a subject.

    Each eviction rounds every key once more, so errors grow with a key's age in the window.
    """

    @property
    def offset(self) -> int:
        """Position in the text minus place in the cache, of the keys after the sinks."""
        return self.held.oldest - self.layer.sink

    def _enter(self, k: Tensor) -> Tensor:
        return self._turn(k, self.offset)

    def _evict(self, n: int) -> None:
        super()._evict(n)
        sink = self.layer.sink
        sinks, rest = self.k.narrow(2, 0, sink), self.k.narrow(2, sink, self.k.shape[2] - sink)
        self.k = torch.cat((sinks, self._turn(rest, n)), 2)

    def _turn(self, k: Tensor, back: int) -> Tensor:
        """Keys rotated back by `back` positions."""
        at = torch.tensor([-back], device=k.device)
        return rotate(k, *rope_tables(at, self.shape.head_dim, k.dtype))
