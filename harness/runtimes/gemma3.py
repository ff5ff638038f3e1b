"""A tiny random Gemma 3: its weights, and a dense reference.

The weights are exported for llama.cpp and MLX.  `dense` is the same model in PyTorch, with masks
that come from the law alone.  Architecture: Gemma 3 technical report (arXiv:2503.19786), as in
transformers' ``Gemma3TextModel``: norms before and after attention and feed-forward, per-head norms
of queries and keys, a different RoPE base in full layers, and the embedding as the output head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import gelu

from harness.cases.models import Model
from harness.law import Layer
from harness.reference import oracle
from harness.reference.decoder import rms_norm, rotate

#: Embeddings are scaled by the square root of HIDDEN, 8: exact in every precision.
HIDDEN, FEED_FORWARD = 64, 64
#: The `dense_key` of every runtime: in float64 all of them have this model.
DENSE_KEY = "harness.runtimes.gemma3"
ROPE_BASE = {"sliding_attention": 10_000.0, "full_attention": 1_000_000.0}

#: Names of a layer's tensors: in GGUF, and in Hugging Face checkpoints.
_CHECKPOINT = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def as_gemma3(model: Model) -> Model:
    """The same layers under the family "gemma3", as which they are run here."""
    return replace(model, family="gemma3")


@dataclass(frozen=True)
class Gemma3:
    """Weights by GGUF name, without ``.weight``; norms are stored as offsets from one.

    Matrices are (out, in).  The values fit float32, whatever dtype holds them.
    """

    model: Model
    tensors: dict[str, Tensor]

    def to(self, dtype: torch.dtype) -> Gemma3:
        """The same weights in `dtype`."""
        return Gemma3(self.model, {name: t.to(dtype) for name, t in self.tensors.items()})

    def gguf(self) -> dict[str, Tensor]:
        """Tensors by their names in GGUF files, in which a norm is the factor itself."""
        return {
            f"{name}.weight": 1 + tensor if name.endswith("_norm") else tensor
            for name, tensor in self.tensors.items()
        }

    def checkpoint(self) -> dict[str, Tensor]:
        """Tensors by their names in Hugging Face checkpoints; the embedding is also the head."""
        out = {
            "model.embed_tokens.weight": self.tensors["token_embd"],
            "model.norm.weight": self.tensors["output_norm"],
        }
        for name, tensor in self.tensors.items():
            if name.startswith("blk."):
                _, i, part = name.split(".")
                out[f"model.layers.{i}.{_CHECKPOINT[part]}.weight"] = tensor
        return out


@lru_cache(maxsize=64)
def make(model: Model, vocab: int, seed: int) -> Gemma3:
    """Random float32 weights; the same arguments give the same weights.

    Variances are chosen so that attention scores and logits have a standard deviation near one: one
    key too many then moves a row by a visible amount.
    """
    generator = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator).div(columns**0.5)

    def norm(width: int = HIDDEN) -> Tensor:
        return 0.1 * torch.randn(width, generator=generator)

    tensors = {"token_embd": matrix(vocab, HIDDEN), "output_norm": norm()}
    for i in range(model.n_layers):
        width = model.layer_head_dim(i)
        query, keys = (model.n_heads or 1) * width, model.layer_kv_heads(i) * width
        layer = {
            "attn_norm": norm(),
            "attn_q": matrix(query, HIDDEN),
            "attn_k": matrix(keys, HIDDEN),
            "attn_v": matrix(keys, HIDDEN),
            "attn_output": matrix(HIDDEN, query),
            "attn_q_norm": norm(width),
            "attn_k_norm": norm(width),
            "post_attention_norm": norm(),
            "ffn_norm": norm(),
            "ffn_gate": matrix(FEED_FORWARD, HIDDEN),
            "ffn_up": matrix(FEED_FORWARD, HIDDEN),
            "ffn_down": matrix(HIDDEN, FEED_FORWARD),
            # An offset of -1 makes the factor 0: feed-forward layers are computed but add nothing.
            # ggml reads GELU from a float16 table, whose rounding would hide what attention does.
            "post_ffw_norm": torch.full((HIDDEN,), -1.0),
        }
        tensors |= {f"blk.{i}.{name}": tensor for name, tensor in layer.items()}
    return Gemma3(model, tensors)


def dense(weights: Gemma3, tokens: Tensor, layers: Sequence[Layer] | None = None) -> Tensor:
    """tokens (B, n) -> logits (B, n, vocab), in the weights' precision and without a cache.

    layers: laws to use instead of the model's own.
    """
    w, laws = weights.tensors, weights.model.layers if layers is None else layers
    x = w["token_embd"][tokens] * HIDDEN**0.5
    for i, law in enumerate(laws):
        layer = {
            name.rpartition(".")[2]: tensor
            for name, tensor in w.items()
            if name.startswith(f"blk.{i}.")
        }
        h = _norm(x, layer["attn_norm"])
        attended = _attention(weights.model, i, layer, h, law)
        x = x + _norm(attended, layer["post_attention_norm"])
        h = _norm(x, layer["ffn_norm"])
        h = (gelu(h @ layer["ffn_gate"].T, approximate="tanh") * (h @ layer["ffn_up"].T)) @ layer[
            "ffn_down"
        ].T
        x = x + _norm(h, layer["post_ffw_norm"])
    return _norm(x, w["output_norm"]) @ w["token_embd"].T


def _attention(model: Model, i: int, layer: dict[str, Tensor], x: Tensor, law: Layer) -> Tensor:
    """x (B, n, HIDDEN) -> the same shape."""
    n, width = x.shape[1], model.layer_head_dim(i)
    q, k, v = (
        (x @ layer[f"attn_{name}"].T).view(*x.shape[:2], -1, width).transpose(1, 2)
        for name in "qkv"
    )
    base = ROPE_BASE[model.layer_types[i]]
    cos, sin = _angles(n, width, base, x.dtype)
    q = rotate(_norm(q, layer["attn_q_norm"]), cos, sin)
    k = rotate(_norm(k, layer["attn_k_norm"]), cos, sin)
    out = oracle.attention(q, k, v, law.mask(0, n, n))
    return out.transpose(1, 2).flatten(2) @ layer["attn_output"].T


def _norm(x: Tensor, offset: Tensor) -> Tensor:
    return rms_norm(x, 1 + offset)


def _angles(n: int, width: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos, sin (n, width / 2) of RoPE, computed in float64 (arXiv:2104.09864)."""
    exponent = torch.arange(0, width, 2, dtype=torch.float64) / width
    angles = torch.arange(n, dtype=torch.float64)[:, None] * (base**-exponent)[None, :]
    return angles.cos().to(dtype), angles.sin().to(dtype)
