"""Attention of a few blocks, forward and backward, on the device of the tensors.

Queries (N, H, n, D), keys and values (N, H, L, D), additive mask (n, L).  The forward returns the
output and the logsumexp of each row over its keys.  The backward takes both for the *whole* row:
that is all a block of keys needs to know its part of the softmax.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

#: The gradients of queries, keys and values.
Gradients = tuple[Tensor, Tensor, Tensor]


class Rows(NamedTuple):
    """Queries, the keys and values that they read, and their output and logsumexp."""

    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor
    logsumexp: Tensor


class Engine(Protocol):
    """Attention of one shape of block."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """(out (N, H, n, D), logsumexp (N, H, n))."""
        ...

    def backward(self, grad: Tensor, rows: Rows, mask: Tensor, scale: float) -> Gradients:
        """(dq, dk, dv), shaped like q, k, v."""
        ...


class FlashCpu:
    """torch's flash attention for the CPU."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        out, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, attn_mask=mask[None, None], scale=scale
        )
        return out, logsumexp

    def backward(self, grad: Tensor, rows: Rows, mask: Tensor, scale: float) -> Gradients:
        dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, *rows, 0.0, False, attn_mask=mask[None, None], scale=scale
        )
        return dq, dk, dv


class Dense:
    """Attention written out in plain operations, for any device; half precision runs in float32."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        wide = accumulator(q.dtype)
        with as_written(q):
            scores = _scores(q.to(wide), k.to(wide), mask, scale)
            logsumexp = scores.logsumexp(-1)
            weights = torch.exp(scores - logsumexp[..., None])
            return (weights @ v.to(wide)).to(q.dtype), logsumexp

    def backward(self, grad: Tensor, rows: Rows, mask: Tensor, scale: float) -> Gradients:
        dtype, wide = rows.q.dtype, accumulator(rows.q.dtype)
        grad, q, k, v, out = (x.to(wide) for x in (grad, *rows[:4]))
        with as_written(q):
            weights = torch.exp(_scores(q, k, mask, scale) - rows.logsumexp[..., None])
            dv = weights.transpose(-1, -2) @ grad
            d_weights = grad @ v.transpose(-1, -2)
            d_scores = weights * (d_weights - (grad * out).sum(-1, keepdim=True)) * scale
            dq, dk = d_scores @ k, d_scores.transpose(-1, -2) @ q
        return dq.to(dtype), dk.to(dtype), dv.to(dtype)


def as_written(x: Tensor) -> torch.autocast:
    """Keep products in the dtype that they are written in, even under autocast."""
    return torch.autocast(x.device.type, enabled=False)


def _scores(q: Tensor, k: Tensor, mask: Tensor, scale: float) -> Tensor:
    return q @ k.transpose(-1, -2) * scale + mask


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums are kept: float64 for float64, otherwise float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def engine_for(x: Tensor) -> Engine:
    """The fastest engine for tensors like x."""
    return FlashCpu() if x.device.type == "cpu" else Dense()
