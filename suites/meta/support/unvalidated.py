"""Correct caches and operations as people write them: without a word of input validation.

Torch itself refuses what does not fit, before anything has changed.  Each takes a `fault`, which is
what a small mistake would make of it; "" makes none.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from harness.contract import CacheShape
from harness.law import Layer

SCHEMES = frozenset({"uniform", "interleaved", "full"})
WINDOWED = frozenset({"uniform"})


class _Cache:
    """What the caches share: an empty start, and the faults of the law."""

    def __init__(self, layer: Layer, shape: CacheShape, fault: str) -> None:
        self.layer, self.shape, self.fault = layer, shape, fault
        if fault == "window+1" and layer.window is not None:
            self.layer = Layer(window=layer.window + 1)
        self.reset()

    def empty(self, slots: int) -> Tensor:
        s = self.shape
        return torch.zeros(s.batch, s.n_kv_heads, slots, s.head_dim, dtype=s.dtype)

    def slots(self, chunk: int) -> int:
        """Keys that a step of `chunk` queries needs."""
        return self.layer.slots(self.shape.max_context, chunk)


class TrimByCat(_Cache):
    """Concatenates, answers, and keeps the last window - 1 keys."""

    def reset(self) -> None:
        self.k, self.v, self.n = self.empty(0), self.empty(0), 0

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys = torch.cat((self.k, k), 2)
        if self.fault == "mess":
            self.k = keys
        values = torch.cat((self.v, v), 2)
        end = self.n + k.shape[2]
        columns = torch.arange(end - keys.shape[2], end)
        mask = self.layer.between(torch.arange(self.n, end), columns)
        keep = keys.shape[2] if self.layer.window is None else self.layer.window - 1
        self.k, self.v = keys[:, :, -keep:].clone(), values[:, :, -keep:].clone()
        self.n = end
        return keys, values, mask

    def nbytes(self) -> int:
        return self.k.untyped_storage().nbytes() + self.v.untyped_storage().nbytes()


class RewindableTrim(TrimByCat):
    """The same, which can go back where the keys are still there."""

    def rewind(self, length: int) -> None:
        first = self.n - self.k.shape[2]
        needed = [p for p in self.layer.visible(length) if p < length]
        if self.fault != "never refuses" and needed and min(needed) < first:
            raise ValueError(f"cannot go back to {length}: keys before {first} are gone")
        if self.fault == "refuses":
            raise ValueError(f"cannot go back to {length}")
        keep = max(0, length - first)
        self.k, self.v, self.n = self.k[:, :, :keep].clone(), self.v[:, :, :keep].clone(), length


class Ring(_Cache):
    """A slot for every key of the window; a chunk is answered first, then written."""

    def reset(self) -> None:
        size = self.slots(1)
        self.k, self.v = self.empty(size), self.empty(size)
        self.at, self.n = torch.full((size,), -1), 0

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values = torch.cat((self.k, k), 2), torch.cat((self.v, v), 2)
        queries = torch.arange(self.n, self.n + k.shape[2])
        columns = torch.cat((self.at, queries))
        mask = self.layer.between(queries, columns)
        size = len(self.at)
        last = queries[-size:]
        slots = last % size
        self.k[:, :, slots], self.v[:, :, slots] = (
            keys[:, :, -len(last) :],
            values[:, :, -len(last) :],
        )
        self.at[slots] = last if self.fault != "slot" else last + (last % 7 == 0).long()
        self.n += k.shape[2]
        return keys, values, mask

    def nbytes(self) -> int:
        return self.k.nbytes + self.v.nbytes


class RoomyRing(Ring):
    """window - 1 slots and room for the longest chunk: written first, then answered whole."""

    def reset(self) -> None:
        size = self.slots(self.shape.max_chunk)
        self.k, self.v = self.empty(size), self.empty(size)
        self.at, self.n = torch.full((size,), -1), 0

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries = torch.arange(self.n, self.n + k.shape[2])
        if len(queries) > self.shape.max_chunk or self.n + len(queries) > self.shape.max_context:
            raise ValueError(f"{len(queries)} tokens at {self.n} do not fit {self.shape}")
        slots = queries % len(self.at)
        self.k[:, :, slots] = k
        self.v[:, :, slots] = v
        self.at[slots] = queries
        if self.fault == "stale":
            self.at[slots[-1]] = queries[-1] - int(queries[-1] % 11 == 0)
        self.n += k.shape[2]
        return self.k.clone(), self.v.clone(), self.layer.between(queries, self.at)


class _Subject:
    schemes = SCHEMES
    cache: type[_Cache] = TrimByCat
    fault = ""

    def new_cache(self, layer: Layer, shape: CacheShape) -> _Cache:
        return self.cache(layer, shape, self.fault)


class WrittenOut:
    """Attention by two products and a softmax."""

    schemes, fault = SCHEMES, ""

    def mask(self, n_queries: int, n_keys: int, layer: Layer) -> Tensor:
        if self.fault == "window+1" and layer.window is not None:
            layer = Layer(window=layer.window + 1)
        start = 0 if self.fault == "top-left" else n_keys - n_queries
        return layer.between(torch.arange(start, start + n_queries), torch.arange(n_keys))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        mask = self.mask(q.shape[-2], k.shape[-2], layer)
        groups = q.shape[-3] // k.shape[-3]
        k, v = k.repeat_interleave(groups, -3), v.repeat_interleave(groups, -3)
        dtype = torch.promote_types(q.dtype, k.dtype)
        scores = q.to(dtype) @ k.to(dtype).transpose(-1, -2) / q.shape[-1] ** 0.5
        fill = -1e4 if self.fault == "finite mask" else -torch.inf
        return torch.softmax(scores.masked_fill(~mask, fill), -1) @ v.to(dtype)


class Sdpa(WrittenOut):
    """Attention by torch's own operation."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        mask = self.mask(q.shape[-2], k.shape[-2], layer)
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)


def subject(body: type, fault: str = "") -> type:
    """A subject of one of the classes above, with or without a fault."""
    name = f"{body.__name__}-{fault or 'correct'}".replace(" ", "-").replace("+", "-plus-")
    if issubclass(body, _Cache):
        schemes = WINDOWED if issubclass(body, Ring) else SCHEMES
        members = {"name": name, "schemes": schemes, "cache": body, "fault": fault}
        return type(body.__name__, (_Subject,), members)
    return type(body.__name__, (body,), {"name": name, "fault": fault})


#: Every correct body, and the faults that are planted in it.
FAULTS: dict[type, tuple[str, ...]] = {
    TrimByCat: ("window+1", "mess"),
    RewindableTrim: ("window+1", "refuses", "never refuses"),
    Ring: ("window+1", "slot"),
    RoomyRing: ("window+1", "stale"),
    WrittenOut: ("window+1", "top-left", "finite mask"),
    Sdpa: ("window+1", "top-left"),
}
