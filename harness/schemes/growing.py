"""The plain cache of full attention: every key is kept."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.contract import CacheShape
from harness.law import Layer
from harness.schemes.validation import check_context, check_kv, check_rewind


class GrowingCache:
    """A `LayerCache` that concatenates: correct under any law, and never bounded."""

    k: Tensor  # (B, Hkv, length, D)
    v: Tensor

    def __init__(self, layer: Layer, shape: CacheShape) -> None:
        self.layer, self.shape = layer, shape
        self.reset()

    @torch.no_grad()
    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `LayerCache.update`.

        Raises ValueError, naming the field, if k or v has another shape or dtype or if positions
        go past max_context; the state is then unchanged.
        """
        n, start = check_kv(k, v, self.shape), self.k.shape[2]
        check_context(start, n, self.shape.max_context)
        self.k, self.v = torch.cat((self.k, k), 2), torch.cat((self.v, v), 2)
        positions = torch.arange(start + n, device=k.device)
        return self.k, self.v, self.layer.between(positions[start:], positions)

    def reset(self) -> None:
        """Forget everything; the next update starts at position 0."""
        shape = self.shape
        empty = (shape.batch, shape.n_kv_heads, 0, shape.head_dim)
        self.k = torch.empty(empty, dtype=shape.dtype, device=shape.device)
        self.v = torch.empty_like(self.k)

    def rewind(self, length: int) -> None:
        """Forget all positions >= length."""
        check_rewind(length, self.k.shape[2])
        # Copies: a view would keep the storage of what was forgotten.
        self.k, self.v = self.k[:, :, :length].clone(), self.v[:, :, :length].clone()

    def nbytes(self) -> int:
        """Storage bytes of keys and values."""
        return self.k.untyped_storage().nbytes() + self.v.untyped_storage().nbytes()
