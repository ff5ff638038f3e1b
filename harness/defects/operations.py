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
    """Mask None where a band is due: causal, without a window."""

    def mask(self, layer: Layer, queries: Tensor, columns: Tensor) -> Tensor:
        del layer
        return super().mask(Layer(), queries, columns)


class DecodeAsPrefill(DenseAttention):
    """Queries are taken for the first positions, not for the last."""

    def mask(self, layer: Layer, queries: Tensor, columns: Tensor) -> Tensor:
        return super().mask(layer, torch.arange(len(queries)), columns)


class GroupsInterleaved(DenseAttention):
    """Query head h reads key head h % Hkv, not h // (Hq / Hkv)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        self.check(q, k, v)
        groups = q.shape[1] // k.shape[1]
        return super().attend(q, k.repeat(1, groups, 1, 1), v.repeat(1, groups, 1, 1), layer)


class ScaleTwice(DenseAttention):
    """Divides by sqrt(D) before and in the operation."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        return super().attend(q / q.shape[-1] ** 0.5, k, v, layer)


class CorruptCorner(DenseAttention):
    """The last row of the last head of the last batch row is off by a thousandth."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        out = super().attend(q, k, v, layer).clone()
        out[-1, -1, -1] = out[-1, -1, -1] * 1.001
        return out


class GradientStopped(DenseAttention):
    """Right forward; the last key of each window gets no gradient."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        self.check(q, k, v)
        stopped = torch.cat((k[:, :, :-1], k[:, :, -1:].detach()), 2)
        return super().attend(q, stopped, v, layer)


class HalfInside(DenseAttention):
    """float32 routed to a half-precision kernel."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        out = super().attend(q.half(), k.half(), v.half(), layer)
        return out.to(q.dtype)


class FirstTileWrong(DenseAttention):
    """The first tile of four queries sees its whole tile (flashinfer #4972)."""

    def mask(self, layer: Layer, queries: Tensor, columns: Tensor) -> Tensor:
        mask = super().mask(layer, queries, columns)
        return mask | ((queries < 4)[:, None] & (columns < 4)[None, :])


class QueriesScaledInPlace(DenseAttention):
    """Multiplies the caller's queries by the scale, in place, and back."""

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
