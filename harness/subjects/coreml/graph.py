"""The harness's small decoder as a graph for Core ML, with its caches as states.

It is built as a Core ML application would build it: shapes never change,
`scaled_dot_product_attention` is one op, and keys and values stay inside the model, in float16, the
only dtype of states.  The application decides which slot takes which key, and passes that in as
one index per cache length: slot s of the next cache is entry ``source[s]`` of the old cache
followed by the chunk.  So one gather writes a ring, keeps sinks, and drops a last chunk's padding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from harness.reference.decoder import LayerWeights, Weights, rms_norm, rotate
from harness.schemes.static.layout import StaticLayout

Tables = Mapping[str, tuple[Tensor, Tensor]]


class StatefulDecoder(nn.Module):
    """Logits of one chunk; layer i's keys and values are the buffers "k<i>" and "v<i>".

    tokens: (B, L) int32.  rope: by name, cos and sin (L, D / 2).  masks: by name, (1, 1, L, C + L),
    added to the scores.  sources: by the masks' names, (C,) int32, see above.  Returns (B, L, V).
    """

    def __init__(self, layout: StaticLayout, weights: Weights) -> None:
        super().__init__()
        self.layout = layout
        self.embedding, self.norm, self.head = map(
            _frozen, (weights.embedding, weights.norm, weights.head)
        )
        self.blocks = nn.ModuleList(
            Block(w, layout.model.layer_head_dim(i)) for i, w in enumerate(weights.layers)
        )
        for i in layout.model.cached_layers:
            self.register_buffer(f"k{i}", torch.zeros(layout.cache_shape(i, "k")))
            self.register_buffer(f"v{i}", torch.zeros(layout.cache_shape(i, "v")))

    def forward(
        self,
        tokens: Tensor,
        rope: Tables,
        masks: Mapping[str, Tensor],
        sources: Mapping[str, Tensor],
    ) -> Tensor:
        """One chunk; see the class."""
        layout = self.layout
        x = self.embedding[tokens]
        kept: dict[int, tuple[Tensor, Tensor]] = {}
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            name = layout.mask_name(i)
            h = rms_norm(x, block.attention_norm)
            tables = rope[layout.rope_name(i)]
            if block.wk is not None and block.wv is not None:
                k = rotate(block.heads(h @ block.wk.T), *tables)
                v = block.heads(h @ block.wv.T)
                kept[i] = (
                    self._extended(f"k{i}", k, sources[name]),
                    self._extended(f"v{i}", v, sources[name]),
                )
            q = rotate(block.heads(h @ block.wq.T), *tables)
            x = x + block.attend(q, *kept[layout.model.kv_sources[i]], masks[name])
            x = x + block.mlp(rms_norm(x, block.mlp_norm))
        return rms_norm(x, self.norm) @ self.head.T

    def _extended(self, name: str, new: Tensor, source: Tensor) -> Tensor:
        """The cache followed by the chunk, (B, H, C + L, D); updates the state by `source`."""
        buffer = self.get_buffer(name)
        both = torch.cat((buffer, new), 2)
        buffer.copy_(both.index_select(2, source))
        return both


class Block(nn.Module):
    """Weights of one layer, and what it computes from queries, keys and values."""

    def __init__(self, weights: LayerWeights, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.attention_norm, self.mlp_norm = map(
            _frozen, (weights.attention_norm, weights.mlp_norm)
        )
        self.wq, self.wo = _frozen(weights.wq), _frozen(weights.wo)
        self.wk = None if weights.wk is None else _frozen(weights.wk)
        self.wv = None if weights.wv is None else _frozen(weights.wv)
        self.w_gate, self.w_up = _frozen(weights.w_gate), _frozen(weights.w_up)
        self.w_down = _frozen(weights.w_down)

    def heads(self, x: Tensor) -> Tensor:
        """(B, L, H * D) -> (B, H, L, D)."""
        return torch.unflatten(x, -1, (-1, self.head_dim)).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """q (B, Hq, L, D), k, v (B, Hkv, n, D) -> (B, L, hidden).

        Keys and values are repeated for each query head of their group, and the scale is left to
        the op: given grouped keys or a scale, coremltools would take the op apart.
        """
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return out.transpose(1, 2).flatten(2) @ self.wo.T

    def mlp(self, h: Tensor) -> Tensor:
        """h (B, L, hidden) -> (B, L, hidden)."""
        return (nn.functional.silu(h @ self.w_gate.T) * (h @ self.w_up.T)) @ self.w_down.T


def _frozen(x: Tensor) -> nn.Parameter:
    return nn.Parameter(x, requires_grad=False)
