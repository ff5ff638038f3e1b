"""Defects of stateless attention, each a small patch of `DenseAttention`."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from harness.defects.base import DenseAttention
from harness.law import Layer


class BothSides(DenseAttention):
    """A window given as (W, W): one key too many (transformers #39408)."""

    def mask(self, layer: Layer, queries: Tensor, columns: Tensor) -> Tensor:
        wider = layer if layer.window is None else replace(layer, window=layer.window + 1)
        return super().mask(wider, queries, columns)


class BandIgnored(DenseAttention):
    """Ignores the window: every earlier key is visible."""

    def mask(self, layer: Layer, queries: Tensor, columns: Tensor) -> Tensor:
        del layer
        return super().mask(Layer(), queries, columns)


class DecodeAsPrefill(DenseAttention):
    """Queries are treated as the first positions, not as the last."""

    def mask(self, layer: Layer, queries: Tensor, columns: Tensor) -> Tensor:
        return super().mask(layer, torch.arange(len(queries)), columns)


class GroupsInterleaved(DenseAttention):
    """Query head h reads key head h % Hkv, not h // (Hq / Hkv)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        self.check(q, k, v)
        groups = q.shape[1] // k.shape[1]
        return super().attend(q, k.repeat(1, groups, 1, 1), v.repeat(1, groups, 1, 1), layer)


class ScaleTwice(DenseAttention):
    """Divides by sqrt(D) twice: before the operation and in it."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        return super().attend(q / q.shape[-1] ** 0.5, k, v, layer)


class CorruptCorner(DenseAttention):
    """The last row of the last head of the last batch row is off by a thousandth."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        out = super().attend(q, k, v, layer).clone()
        out[-1, -1, -1] = out[-1, -1, -1] * 1.001
        return out


class GradientStopped(DenseAttention):
    """The forward is correct, but the newest key gets no gradient."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        self.check(q, k, v)
        stopped = torch.cat((k[:, :, :-1], k[:, :, -1:].detach()), 2)
        return super().attend(q, stopped, v, layer)


class HalfInside(DenseAttention):
    """Computes in float16, whatever the dtype."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        out = super().attend(q.half(), k.half(), v.half(), layer)
        return out.to(q.dtype)


class FirstTileWrong(DenseAttention):
    """The first tile of four queries sees its whole tile (flashinfer #4972)."""

    def mask(self, layer: Layer, queries: Tensor, columns: Tensor) -> Tensor:
        mask = super().mask(layer, queries, columns)
        return mask | ((queries < 4)[:, None] & (columns < 4)[None, :])


class QueriesScaledInPlace(DenseAttention):
    """Divides the caller's queries by 3 in place, and multiplies them back, which rounds them."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        out = super().attend(q, k, v, layer)
        q.div_(3.0).mul_(3.0)
        return out


class ZerosForMasked(DenseAttention):
    """Masked scores are set to zero before the softmax, not to minus infinity."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        self.check(q, k, v)
        queries = torch.arange(k.shape[2] - q.shape[2], k.shape[2])
        mask = self.mask(layer, queries, torch.arange(k.shape[2]))
        groups = q.shape[1] // k.shape[1]
        keys, values = (x.repeat_interleave(groups, dim=1) for x in (k, v))
        scores = q @ keys.transpose(-1, -2) / q.shape[-1] ** 0.5
        return torch.softmax(scores.masked_fill(~mask, 0.0), -1) @ values
