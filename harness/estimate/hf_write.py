"""A geometry written as a Hugging Face config, for `hf_config` and for other estimators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.estimate.geometry import Geometry, GeometryError, KVLayer

_MODEL_TYPES = {
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "gpt-oss": "gpt_oss",
    "llama4": "llama4_text",
}


def to_config(geometry: Geometry) -> dict[str, Any]:
    """The content of a config.json that leaves no figure out.

    num_attention_heads and hidden_size are the smallest that fit: a cache does not depend on them.
    Raises GeometryError for layers that such a config cannot describe.
    """
    layers = geometry.layers
    local = [layer for layer in layers if layer.law.bounded] or list(layers)
    full = [layer for layer in layers if not layer.law.bounded]
    heads, dim = _one(geometry, local, "kv_heads"), _one(geometry, local, "k_dim")
    config: dict[str, Any] = {
        "model_type": _MODEL_TYPES.get(geometry.family, geometry.family),
        "architectures": ["AnyForCausalLM"],
        "num_hidden_layers": len(layers),
        "num_key_value_heads": heads,
        "head_dim": dim,
        "num_attention_heads": heads,
        "hidden_size": heads * dim,
        "torch_dtype": "float16",
        "sliding_window": next((x.law.window for x in layers if x.law.window), None),
        "layer_types": [f"{layer.kind}_attention" for layer in layers],
        "num_kv_shared_layers": sum(not layer.owns for layer in layers),
    }
    if chunk := next((layer.law.chunk for layer in layers if layer.law.chunk), None):
        config["attention_chunk_size"] = chunk
    if any(layer.v_dim != layer.k_dim for layer in layers):
        config["v_head_dim"] = _one(geometry, layers, "v_dim")
    if full and (wide := _one(geometry, full, "k_dim")) != dim:
        config["global_head_dim"] = wide
    if full and (few := _one(geometry, full, "kv_heads")) != heads:
        config |= {"num_global_key_value_heads": few, "attention_k_eq_v": True}
    return config


def _one(geometry: Geometry, layers: Sequence[KVLayer], field: str) -> int:
    values = {getattr(layer, field) for layer in layers}
    if len(values) != 1:
        raise GeometryError(f"{geometry.name}: layers of one kind differ in {field}: {values}")
    return int(values.pop())
