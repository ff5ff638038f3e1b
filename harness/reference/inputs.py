"""Inputs of single attention layers: random ones, and edge ones that make one key count."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.law import Layer

OP_HEAD_DIM = 64
"""Width of single-layer inputs: wide enough for the keys of `edge` to be nearly orthogonal."""

RANDOM, EDGE, FAR = "random inputs", "edge inputs", "far inputs"

FAR_SCORE = 2e4
"""Score that every key of `far` has: beyond the -1e4 that some kernels write for masked scores."""

EDGE_SCORE = 4.0
"""Score of a key at a border.  Higher ones leave less to the other keys, but half precision rounds
a score in proportion to it; 4 gives the widest margin in bfloat16 (3 and 5 are a tenth below)."""


@dataclass(frozen=True)
class Inputs:
    """q (B, Hq, n, D); k, v (B, Hkv, n, D)."""

    label: str
    q: Tensor
    k: Tensor
    v: Tensor

    def to(self, dtype: torch.dtype) -> Inputs:
        return Inputs(self.label, self.q.to(dtype), self.k.to(dtype), self.v.to(dtype))

    def clone(self) -> Inputs:
        return Inputs(self.label, self.q.clone(), self.k.clone(), self.v.clone())

    def span(self, start: int, end: int) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v of the positions from start to end."""
        return self.q[:, :, start:end], self.k[:, :, start:end], self.v[:, :, start:end]


def _normal(case: Case, salt: int, heads: int, n: int, head_dim: int) -> Tensor:
    generator = torch.Generator().manual_seed(case.seed + salt)
    return torch.randn(case.batch, heads, n, head_dim, generator=generator, dtype=torch.float64)


def random(
    case: Case, n: int, n_heads: int, n_kv_heads: int, head_dim: int = OP_HEAD_DIM
) -> Inputs:
    """Standard normal queries, keys and values."""
    return Inputs(
        RANDOM,
        _normal(case, 1, n_heads, n, head_dim),
        _normal(case, 2, n_kv_heads, n, head_dim),
        _normal(case, 3, n_kv_heads, n, head_dim),
    )


def edges(layer: Layer, q: int) -> list[int]:
    """Key positions on both sides of every border that the law draws for the query at q."""
    found = {q, q + 1}
    if layer.chunk is None and (layer.window is None or q < layer.window):
        found.add(0)  # nothing is forgotten yet: the border is the first key
    if layer.window is not None:
        found |= {q - layer.window + 1, q - layer.window}
    if layer.sink:
        found |= {layer.sink - 1, layer.sink}
    if layer.chunk is not None:
        start = q // layer.chunk * layer.chunk
        found |= {start, start - 1}
    return sorted(k for k in found if k >= 0)


def edge(
    case: Case,
    layer: Layer,
    n: int,
    n_heads: int,
    n_kv_heads: int,
    head_dim: int = OP_HEAD_DIM,
) -> Inputs:
    """Queries aligned with the keys at the law's borders, inside and outside.

    A query is the sum of those (nearly orthogonal, unit) keys, scaled so that they share almost
    all of the softmax: one of them too many or too few then moves the row by O(1), whatever the
    window and even in half precision.
    """
    signs = _normal(case, 4, n_kv_heads, n + 1, head_dim).sign()
    unit = signs / head_dim**0.5
    sharpness = EDGE_SCORE * head_dim**0.5  # undoes the division by sqrt(D)
    borders = ([k for k in edges(layer, i) if k <= n] for i in range(n))
    q = torch.stack([unit[:, :, at].sum(2) for at in borders], dim=2)
    q = q.repeat_interleave(n_heads // n_kv_heads, dim=1) * sharpness
    return Inputs(EDGE, q, unit[:, :, :n], _normal(case, 5, n_kv_heads, n, head_dim))


def far(
    case: Case,
    layer: Layer,
    n: int,
    n_heads: int,
    n_kv_heads: int,
    head_dim: int = OP_HEAD_DIM,
) -> Inputs:
    """`edge` inputs whose scores are all shifted by -2e4 in even rows, by 2e4 in odd ones.

    A softmax does not see a shift.  A kernel does which writes a finite number for masked scores
    (transformers #14859: -1e4), or which does not subtract the largest score.
    """
    near = edge(case, layer, n, n_heads, n_kv_heads, head_dim)
    q, k = near.q.clone(), near.k.clone()
    sign = torch.ones(n, dtype=q.dtype)
    sign[::2] = -1
    k[..., 0] = 1
    q[..., 0] = FAR_SCORE * head_dim**0.5 * sign
    return Inputs(FAR, q, k, near.v)
