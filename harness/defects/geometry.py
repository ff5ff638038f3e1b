"""Defects of operations that show only in unusual shapes: groups, head_dim, Sq < Sk."""

from __future__ import annotations

from torch import Tensor

from harness.defects.base import DenseAttention
from harness.law import Layer


class GroupsOfTwo(DenseAttention):
    """Assumes that every key head serves two query heads."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        self.check(q, k, v)
        heads = [min(h // 2, k.shape[1] - 1) for h in range(q.shape[1])]
        return super().attend(q, k[:, heads], v[:, heads], layer)


class ScaleOf64(DenseAttention):
    """The scale is 1/8, whatever the head_dim."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        return super().attend(q * (q.shape[-1] ** 0.5 / 8), k, v, layer)


class WidthCutToTiles(DenseAttention):
    """Sums scores over whole tiles of 64 dimensions, and ignores the rest of a wider head."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        self.check(q, k, v)
        whole = max(64, q.shape[-1] // 64 * 64)
        cut = q.clone()
        cut[..., whole:] = 0
        return super().attend(cut, k, v, layer)


class GradientOfAPrefillAlone(DenseAttention):
    """Correct for prefills; with Sq < Sk the keys before the queries get no gradient."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        self.check(q, k, v)
        held = k.shape[2] - q.shape[2]
        k = k.clone()
        k[:, :, :held] = k[:, :, :held].detach()
        return super().attend(q, k, v, layer)
