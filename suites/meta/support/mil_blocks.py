"""A transformer block as people convert it, and its inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

HIDDEN, HEADS, KV_HEADS, HEAD_DIM = 32, 4, 2, 8


class Block(nn.Module):
    """RMSNorm, RoPE, grouped queries, one attention op, SiLU and GELU, a convolution as a linear.

    x (B, n, hidden), mask (n, n) added to the scores, cos and sin (n, head_dim / 2).
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def weight(rows: int, columns: int) -> nn.Parameter:
            w = torch.randn(rows, columns, generator=generator) / columns**0.5
            return nn.Parameter(w, requires_grad=False)

        self.norm = nn.Parameter(1 + torch.randn(HIDDEN, generator=generator) / 10, False)
        self.wq = weight(HEADS * HEAD_DIM, HIDDEN)
        self.wk, self.wv = weight(KV_HEADS * HEAD_DIM, HIDDEN), weight(KV_HEADS * HEAD_DIM, HIDDEN)
        self.wo = weight(HIDDEN, HEADS * HEAD_DIM)
        self.gate, self.up = weight(2 * HIDDEN, HIDDEN), weight(2 * HIDDEN, HIDDEN)
        self.down = weight(HIDDEN, 2 * HIDDEN)

    def forward(self, x: Tensor, mask: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        h = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.norm
        q, k = rotate(heads(h @ self.wq.T), cos, sin), rotate(heads(h @ self.wk.T), cos, sin)
        v = heads(h @ self.wv.T)
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, 1) for t in (k, v))
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + functional.linear(out.transpose(1, 2).flatten(2), self.wo)
        gate = functional.conv1d(x.transpose(1, 2), self.gate[..., None]).transpose(1, 2)
        return x + (functional.silu(gate) * functional.gelu(x @ self.up.T)) @ self.down.T


def heads(x: Tensor) -> Tensor:
    return torch.unflatten(x, -1, (-1, HEAD_DIM)).transpose(1, 2)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def block_inputs(n: int = 20, seed: int = 1) -> dict[str, Tensor]:
    """Random inputs by name; a causal mask."""
    generator = torch.Generator().manual_seed(seed)
    angles = torch.arange(n)[:, None] * 100.0 ** -torch.linspace(0, 1, HEAD_DIM // 2)
    future = ~torch.tril(torch.ones(n, n, dtype=torch.bool))
    return {
        "x": torch.randn(1, n, HIDDEN, generator=generator),
        "mask": torch.zeros(n, n).masked_fill(future, -1e4),
        "cos": angles.cos(),
        "sin": angles.sin(),
    }


def arrays(inputs: dict[str, Tensor]) -> dict[str, Any]:
    return {name: np.asarray(value.numpy()) for name, value in inputs.items()}
