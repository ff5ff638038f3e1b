"""Correct subjects to plant defects in: small, and passing every check."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.contract import CacheShape, Decoder
from harness.law import SCHEMES, Layer
from harness.reference import oracle
from harness.reference.cache_decoder import CacheDecoder


class Trimmed:
    """A cache that keeps exactly the keys that the next query sees.

    Written as small methods, so that a defect can override the one that it breaks.
    """

    def __init__(self, layer: Layer, shape: CacheShape) -> None:
        self.layer, self.shape = layer, shape
        self.reset()

    def reset(self) -> None:
        s = self.shape
        self.keys = torch.empty(s.batch, s.n_kv_heads, 0, s.head_dim, dtype=s.dtype)
        self.values = self.keys.clone()
        self.kept = torch.empty(0, dtype=torch.int64)  # positions of the stored keys
        self.length = 0

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.check(k, v)
        queries = torch.arange(self.length, self.length + k.shape[2])
        self.length += k.shape[2]
        columns = torch.cat((self.kept, queries))
        keys, values = torch.cat((self.keys, k), 2), torch.cat((self.values, v), 2)
        mask = self.mask(queries, columns)
        self.store(keys, values, columns, self.needed(columns))
        return keys, values, mask

    def check(self, k: Tensor, v: Tensor) -> None:
        """Raise ValueError unless k and v fit the shape that the cache was made for."""
        s = self.shape
        want = (s.batch, s.n_kv_heads, k.shape[-2], s.head_dim)
        for name, x in (("k", k), ("v", v)):
            if tuple(x.shape) != want or x.dtype != s.dtype:
                raise ValueError(f"{name} must be {want} {s.dtype}, got {tuple(x.shape)} {x.dtype}")

    def mask(self, queries: Tensor, columns: Tensor) -> Tensor:
        return self.layer.between(queries, columns)

    def needed(self, columns: Tensor) -> Tensor:
        """Which keys the next query will see; no other key is ever seen again."""
        return self.layer.between(torch.tensor([self.length]), columns)[0]

    def store(self, keys: Tensor, values: Tensor, columns: Tensor, keep: Tensor) -> None:
        self.keys, self.values = keys[:, :, keep], values[:, :, keep]
        self.kept = columns[keep]

    def nbytes(self) -> int:
        return self.keys.untyped_storage().nbytes() + self.values.untyped_storage().nbytes()

    def rewind(self, length: int) -> None:
        """Forget positions >= length; raises ValueError if a key it would need is gone.

        Or if it is no length that was held.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot rewind to {length} of {self.length} positions")
        have = set(self.kept.tolist())
        lost = [k for k in self.layer.visible(length) if k < length and k not in have]
        if lost:
            raise ValueError(f"cannot rewind to {length}: the keys at {lost} are gone")
        keep = self.kept < length
        self.keys, self.values = self.keys[:, :, keep], self.values[:, :, keep]
        self.kept, self.length = self.kept[keep], length


class TrimmedSubject:
    """A `CacheSubject` of `Trimmed`, or of the defective version given as `cache`."""

    name = "correct.cache"
    schemes = SCHEMES
    cache: type[Trimmed] = Trimmed

    def new_cache(self, layer: Layer, shape: CacheShape) -> Trimmed:
        return self.cache(layer, shape)


class DecoderSubjectOfTrimmed:
    """A `DecoderSubject`: the harness's small decoder over `Trimmed` caches."""

    name = "correct.decoder"
    schemes = SCHEMES
    decoder: type[CacheDecoder] = CacheDecoder

    def open(self, case: Case) -> Decoder:
        return self.decoder(TrimmedSubject(), case)


class DenseAttention:
    """An `AttentionSubject` written out in plain operations, with the mask of the law."""

    name = "correct.attention"
    schemes = SCHEMES

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        self.check(q, k, v)
        queries = torch.arange(k.shape[2] - q.shape[2], k.shape[2])
        return oracle.attention(q, k, v, self.mask(layer, queries, torch.arange(k.shape[2])))

    def check(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Raise ValueError unless the shapes fit each other."""
        if not q.dim() == k.dim() == v.dim() == 4 or k.shape != v.shape:
            shapes = tuple(q.shape), tuple(k.shape), tuple(v.shape)
            raise ValueError(f"q, k, v must be (B, H, S, D) with k and v alike, got {shapes}")
        if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3] or q.shape[1] % k.shape[1]:
            raise ValueError(f"q {tuple(q.shape)} does not fit k {tuple(k.shape)}")
        if q.shape[2] > k.shape[2]:
            raise ValueError(f"{q.shape[2]} queries are more than the {k.shape[2]} positions")

    def mask(self, layer: Layer, queries: Tensor, columns: Tensor) -> Tensor:
        return layer.between(queries, columns)
