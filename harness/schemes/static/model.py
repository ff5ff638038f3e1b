"""A decoder as a static graph: caches, masks and rotation tables are inputs, new keys outputs.

Inputs and outputs have the form of ExecuTorch's static attention.  The graph has no state, no shape
that depends on data and no indexed write, so that an NPU's compiler can take all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from harness.reference.decoder import LayerWeights, Weights, rms_norm, rotate
from harness.schemes.static.layout import StaticLayout

Tensors = Mapping[str, Tensor]
Tables = Mapping[str, tuple[Tensor, Tensor]]

#: (tokens, masks, rope, k_caches, v_caches) -> (logits, new keys, new values)
Graph = Callable[
    [Tensor, Tensors, Tables, Tensors, Tensors],
    tuple[Tensor, dict[str, Tensor], dict[str, Tensor]],
]


class StaticDecoder(nn.Module):
    """The harness's small decoder over a `StaticLayout`.

    tokens (B, L) int64; masks by name, (1, L, C + L), 0 = visible, added to the scores; rope by
    name, cos and sin (L, D / 2); caches by name.  Returns logits (B, L, V) and, by the names of
    the caches, the chunk's keys and values in the layout's form, L positions long.
    """

    def __init__(self, layout: StaticLayout, weights: Weights) -> None:
        super().__init__()
        self.layout = layout
        self.embedding = _frozen(weights.embedding.to(layout.dtype))
        self.blocks = nn.ModuleList(
            StaticBlock(layout, i, w) for i, w in enumerate(weights.to(layout.dtype).layers)
        )
        self.norm = _frozen(weights.norm.to(layout.dtype))
        self.head = _frozen(weights.head.to(layout.dtype))

    def forward(
        self, tokens: Tensor, masks: Tensors, rope: Tables, k_caches: Tensors, v_caches: Tensors
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """One chunk; see the class."""
        layout = self.layout
        x = self.embedding[tokens]
        new_k: dict[str, Tensor] = {}
        new_v: dict[str, Tensor] = {}
        for i, block in enumerate(self.blocks):
            assert isinstance(block, StaticBlock)
            h = rms_norm(x, block.attention_norm)
            q, k, v = block.project(h, *rope[layout.rope_name(i)])
            new_k.update(zip(layout.cache_names(i), k, strict=True))
            new_v.update(zip(layout.cache_names(i), v, strict=True))
            # A layer without a cache reads its source's, whose new keys are in new_k already.
            names = layout.cache_names(layout.model.kv_sources[i])
            keys = [torch.cat((k_caches[n], new_k[n]), layout.seq_dim("k")) for n in names]
            values = [torch.cat((v_caches[n], new_v[n]), layout.seq_dim("v")) for n in names]
            x = x + block.attend(q, keys, values, masks[layout.mask_name(i)])
            x = x + block.mlp(rms_norm(x, block.mlp_norm))
        return rms_norm(x, self.norm) @ self.head.T, new_k, new_v


class StaticBlock(nn.Module):
    """One layer: projections, attention over given keys, and the MLP."""

    def __init__(self, layout: StaticLayout, index: int, weights: LayerWeights) -> None:
        super().__init__()
        self.split, self.transpose_k = layout.split_heads, layout.transpose_k
        self.kv_heads = layout.model.layer_kv_heads(index)
        self.head_dim = layout.model.layer_head_dim(index)
        self.attention_norm = _frozen(weights.attention_norm)
        self.wq, self.wo = _frozen(weights.wq), _frozen(weights.wo)
        self.wk = None if weights.wk is None else _frozen(weights.wk)
        self.wv = None if weights.wv is None else _frozen(weights.wv)
        self.mlp_norm = _frozen(weights.mlp_norm)
        self.w_gate, self.w_up = _frozen(weights.w_gate), _frozen(weights.w_up)
        self.w_down = _frozen(weights.w_down)

    def project(
        self, h: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """h (B, L, hidden) -> q (B, Hkv, G, L, D), scaled; new keys and values, one per cache."""
        q = rotate(self._heads(h @ self.wq.T), cos, sin)
        q = torch.unflatten(q, 1, (self.kv_heads, -1))
        # Scale q, not the scores: in half precision unscaled scores may overflow.
        q = q * self.head_dim**-0.5
        if self.wk is None or self.wv is None:
            return q, [], []
        k = rotate(self._heads(h @ self.wk.T), cos, sin)
        k = k.transpose(-1, -2) if self.transpose_k else k
        return q, self._caches(k), self._caches(self._heads(h @ self.wv.T))

    def attend(self, q: Tensor, keys: list[Tensor], values: list[Tensor], mask: Tensor) -> Tensor:
        """q (B, Hkv, G, L, D) over C + L keys -> (B, L, hidden)."""
        parts = q.unbind(1) if self.split else (q,)
        outs = [self._one(*x, mask) for x in zip(parts, keys, values, strict=True)]
        out = torch.stack(outs, 1) if self.split else outs[0]  # (B, Hkv, G, L, D)
        return out.flatten(1, 2).transpose(1, 2).flatten(2) @ self.wo.T

    def mlp(self, h: Tensor) -> Tensor:
        """h (B, L, hidden) -> (B, L, hidden)."""
        return (nn.functional.silu(h @ self.w_gate.T) * (h @ self.w_up.T)) @ self.w_down.T

    def _one(self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """q (…, G, L, D) against the keys of its group; queries of a group share one product."""
        group_and_length = q.shape[-3:-1]
        keys = keys if self.transpose_k else keys.transpose(-1, -2)
        scores = torch.unflatten(q.flatten(-3, -2) @ keys, -2, group_and_length) + mask
        weights = torch.softmax(scores, dim=-1).flatten(-3, -2)
        return torch.unflatten(weights @ values, -2, group_and_length)

    def _heads(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (-1, self.head_dim)).transpose(1, 2)

    def _caches(self, x: Tensor) -> list[Tensor]:
        """(B, H, …) as one tensor per cache."""
        return list(x.unbind(1)) if self.split else [x]


def _frozen(x: Tensor) -> nn.Parameter:
    return nn.Parameter(x, requires_grad=False)
