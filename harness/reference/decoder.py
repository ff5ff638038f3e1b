"""The small decoder in which caches are run: RMSNorm, RoPE, grouped queries, SiLU.

Written for measurement, not for speed: weights are made in float64 from a seed and cast, so that
one model exists in every precision; RoPE's angles are computed from the position, so that no table
runs out; `forward` leaves attention to its caller, so that the dense reference and a cache under
test (`harness.reference.cache_decoder`) run the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import torch
from torch import Tensor

from harness.cases.models import Model
from harness.law import Layer
from harness.reference import oracle

HIDDEN = 32
ROPE_THETA = 10_000.0
NORM_EPS = 1e-6

#: (layer, q, k, v) -> out; q rotated (B, Hq, t, D); k rotated, v (B, Hkv, t, D), None in a layer
#: that reads another's cache.
Attend = Callable[[int, Tensor, Tensor | None, Tensor | None], Tensor]


@dataclass(frozen=True)
class LayerWeights:
    """Projections (out, in) and norm scales of one layer; wk, wv None where K and V are shared."""

    attention_norm: Tensor
    wq: Tensor
    wk: Tensor | None
    wv: Tensor | None
    wo: Tensor
    mlp_norm: Tensor
    w_gate: Tensor
    w_up: Tensor
    w_down: Tensor


@dataclass(frozen=True)
class Weights:
    """All weights of one small decoder."""

    model: Model
    embedding: Tensor  # (vocab, hidden)
    layers: tuple[LayerWeights, ...]
    norm: Tensor
    head: Tensor  # (vocab, hidden)

    def to(self, dtype: torch.dtype, device: torch.device | None = None) -> Weights:
        """The same weights rounded to `dtype`, on `device` where one is named."""

        def cast(layer: LayerWeights) -> LayerWeights:
            tensors = ((f.name, getattr(layer, f.name)) for f in fields(layer))
            return replace(layer, **{n: t.to(device, dtype) for n, t in tensors if t is not None})

        return replace(
            self,
            embedding=self.embedding.to(device, dtype),
            layers=tuple(cast(layer) for layer in self.layers),
            norm=self.norm.to(device, dtype),
            head=self.head.to(device, dtype),
        )


@lru_cache(maxsize=64)
def make_weights(model: Model, vocab: int, seed: int) -> Weights:
    """float64 weights of `model`, whose values depend on the seed alone.

    Variances are chosen so that attention scores and logits have a standard deviation near one: a
    key too many then moves a row by a visible amount.
    """
    generator = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int) -> Tensor:
        w = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
        return w.div(columns**0.5)

    def scale() -> Tensor:
        return 1 + 0.1 * torch.randn(HIDDEN, generator=generator, dtype=torch.float64)

    def layer(i: int) -> LayerWeights:
        head_dim, owns = model.layer_head_dim(i), model.kv_sources[i] == i
        kv = model.layer_kv_heads(i) * head_dim
        q = _n_heads(model) * head_dim
        return LayerWeights(
            attention_norm=scale(),
            wq=matrix(q, HIDDEN),
            wk=matrix(kv, HIDDEN) if owns else None,
            wv=matrix(kv, HIDDEN) if owns else None,
            wo=matrix(HIDDEN, q),
            mlp_norm=scale(),
            w_gate=matrix(2 * HIDDEN, HIDDEN),
            w_up=matrix(2 * HIDDEN, HIDDEN),
            w_down=matrix(HIDDEN, 2 * HIDDEN),
        )

    return Weights(
        model,
        torch.randn(vocab, HIDDEN, generator=generator, dtype=torch.float64),
        tuple(layer(i) for i in range(model.n_layers)),
        scale(),
        matrix(vocab, HIDDEN),
    )


def _n_heads(model: Model) -> int:
    if model.n_heads is None:
        raise ValueError(f"{model.name} has no n_heads; take its tiny() version")
    return model.n_heads


def rms_norm(x: Tensor, scale: Tensor) -> Tensor:
    """Root-mean-square norm over the last axis (arXiv:1910.07467)."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_EPS) * scale


def rope_tables(positions: Tensor, head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos, sin (t, head_dim / 2) of RoPE (arXiv:2104.09864) at any positions (t,).

    Angles are formed in float64: in float32 they lose a digit for each power of ten of the
    position, and generation has no end here.
    """
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions.device) / head_dim
    angles = positions.to(torch.float64)[:, None] * (ROPE_THETA**-exponent)[None, :]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply RoPE to x (B, H, t, D), halves paired: (x1, x2) -> (x1 c - x2 s, x2 c + x1 s)."""
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat((x1 * cos - x2 * sin, x2 * cos + x1 * sin), dim=-1)


def forward(weights: Weights, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
    """tokens (B, t) at positions (t,) -> logits (B, t, vocab); `attend` does the attention."""
    x = weights.embedding[tokens]
    for i, layer in enumerate(weights.layers):
        head_dim = weights.model.layer_head_dim(i)
        tables = rope_tables(positions, head_dim, x.dtype)
        h = rms_norm(x, layer.attention_norm)
        q = rotate(_heads(h @ layer.wq.T, head_dim), *tables)
        k = v = None
        if layer.wk is not None and layer.wv is not None:
            k = rotate(_heads(h @ layer.wk.T, head_dim), *tables)
            v = _heads(h @ layer.wv.T, head_dim)
        out = attend(i, q, k, v).transpose(1, 2).flatten(2)
        x = x + out @ layer.wo.T
        h = rms_norm(x, layer.mlp_norm)
        x = x + (torch.nn.functional.silu(h @ layer.w_gate.T) * (h @ layer.w_up.T)) @ layer.w_down.T
    return rms_norm(x, weights.norm) @ weights.head.T


def _heads(x: Tensor, head_dim: int) -> Tensor:
    """(B, t, H * D) -> (B, H, t, D)."""
    return x.view(*x.shape[:2], -1, head_dim).transpose(1, 2)


def dense_logits(
    weights: Weights,
    tokens: Tensor,
    layers: Sequence[Layer] | None = None,
    positions: Tensor | None = None,
    stored: torch.dtype | None = None,
) -> Tensor:
    """tokens (B, n) -> logits (B, n, vocab) without a cache, in the weights' precision.

    layers: laws in place of the model's own; positions (n,): RoPE positions in place of 0…n-1;
    stored: the dtype to which keys and values are rounded on the way.
    """
    model, n = weights.model, tokens.shape[1]
    laws = model.layers if layers is None else layers
    at = torch.arange(n) if positions is None else positions
    kept: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(i: int, q: Tensor, k: Tensor | None, v: Tensor | None) -> Tensor:
        if k is not None and v is not None:
            kept[i] = (k, v) if stored is None else (k.to(stored).to(k), v.to(stored).to(v))
        keys, values = kept[model.kv_sources[i]]
        return oracle.attention(q, keys, values, laws[i].mask(0, n, n).to(q.device))

    return forward(weights, tokens, at, attend)


def check_tokens(tokens: Tensor, batch: int, vocab: int) -> None:
    """Raise ValueError naming what is wrong unless tokens are (batch, t) int64 in 0…vocab - 1."""
    if tokens.dim() != 2 or tokens.shape[0] != batch:
        raise ValueError(f"tokens must be ({batch}, t), got {tuple(tokens.shape)}")
    if tokens.dtype != torch.int64:
        raise ValueError(f"tokens must be int64, got {tokens.dtype}")
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocab:
        low, high = int(tokens.min()), int(tokens.max())
        raise ValueError(f"token ids must be in 0…{vocab - 1}, got {low}…{high}")
