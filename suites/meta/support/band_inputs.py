"""Inputs of the band's kernels, and what is true of them."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.law import Layer
from harness.reference import oracle
from harness.schemes.band.kernel import banded
from harness.schemes.band.sizes import Sizes


def inputs(
    batch: int, heads: int, kv_heads: int, n: int, keys: int, width: int = 16, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, k, v and the gradient of the output, in float64."""
    g = torch.Generator().manual_seed(seed)
    shapes = ((heads, n), (kv_heads, keys), (kv_heads, keys), (heads, n))
    made = [torch.randn(batch, h, s, width, generator=g, dtype=torch.float64) for h, s in shapes]
    return made[0], made[1], made[2], made[3]


def gradients(
    q: Tensor, k: Tensor, v: Tensor, grad: Tensor, window: int, sizes: Sizes | None = None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The band kernel's output and (dq, dk, dv)."""
    leaves = [x.detach().clone().requires_grad_(True) for x in (q, k, v)]
    out = banded(leaves[0], leaves[1], leaves[2], window, sizes=sizes)
    return out.detach(), torch.autograd.grad(out, leaves, grad)


def truth(
    q: Tensor, k: Tensor, v: Tensor, grad: Tensor, window: int
) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """Output, (dq, dk, dv) in float64 by the law, and its mask."""
    n, keys = q.shape[2], k.shape[2]
    mask = Layer(window=window).mask(keys - n, n, keys)
    q, k, v, grad = (x.double() for x in (q, k, v, grad))
    exact = oracle.attention(q, k, v, mask)
    return exact, oracle.attention_gradients(q, k, v, mask, grad), mask


def relative(got: Tensor, exact: Tensor) -> float:
    """Relative error in norm."""
    return float((got.double() - exact).norm() / exact.norm())
