"""mlx-lm's models at their published key/value geometry, fed without computing anything.

MLX is lazy: weights that are never read take no memory, and a forward pass whose logits are never
read computes nothing, yet the shapes of its caches are known.  So this runs mlx-lm's own code at
true size: its model class, its `make_prompt_cache`, its attention's shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from harness.cases.models import Model

Fields = dict[str, object]

#: For widths that do not affect the size of a cache.
_SMALL = 64


def build(model: Model) -> Any:
    """The mlx-lm model for a row of the model table, in float16; nothing is evaluated.

    Raises KeyError for a family not listed below.
    """
    import mlx.core as mx

    module = import_module(f"mlx_lm.models.{_FAMILIES[model.family][0]}")
    built = module.Model(module.ModelArgs.from_dict(config_for(model)))
    built.set_dtype(mx.float16)
    return built


def config_for(model: Model) -> Fields:
    """The content of a config.json as mlx-lm reads it, with the fields that released files have."""
    model_type, fields = _FAMILIES[model.family]
    heads = max(model.layer_kv_heads(i) for i in range(model.n_layers))
    tied = model.family in _TIED
    common: Fields = {
        "model_type": model_type,
        "num_hidden_layers": model.n_layers,
        "num_key_value_heads": model.n_kv_heads,
        "num_attention_heads": heads,
        "head_dim": model.head_dim,
        "hidden_size": heads * model.head_dim if tied else _SMALL,
        "intermediate_size": _SMALL,
        "vocab_size": _SMALL,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    }
    config = common | fields(model)
    if "text_config" in config:  # released files nest every field there
        return {"model_type": model_type, "text_config": common | fields(model)}
    return config


def feed(model: Any, cache: list[Any], tokens: int) -> None:
    """Feed this many tokens at once; no array is computed."""
    import mlx.core as mx

    model(mx.zeros((1, tokens), mx.int32), cache=cache)


def cache_bytes(model: Model, cache: list[Any]) -> list[int]:
    """Bytes of each layer's arrays; 0 for a layer that reads another layer's."""
    sizes = [0] * model.n_layers
    for i, held in zip(model.cached_layers, cache, strict=True):
        sizes[i] = held.nbytes
    return sizes


def _pattern(model: Model) -> int:
    return model.layer_types.index("full_attention") + 1


def _windowed(model: Model) -> Fields:
    return {"sliding_window": model.window, "sliding_window_pattern": _pattern(model)}


def _gemma2(model: Model) -> Fields:
    soft = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    return {"query_pre_attn_scalar": model.head_dim, **soft}


def _gemma3n(model: Model) -> Fields:
    return {
        "text_config": None,  # marks that the fields are nested
        "num_kv_shared_layers": model.n_shared,
        "vocab_size_per_layer_input": _SMALL,
        "sliding_window": model.window,
        "rope_local_base_freq": 10000.0,
        "final_logit_softcapping": 30.0,
        "layer_types": list(model.layer_types),
        "activation_sparsity_pattern": [0.0] * model.n_layers,
        "hidden_size_per_layer_input": _SMALL,
        "altup_num_inputs": 4,
        "altup_coef_clip": 120.0,
        "altup_correct_scale": True,
        "altup_active_idx": 0,
        "laurel_rank": _SMALL,
    }


def _gemma4(model: Model) -> Fields:
    return {
        "global_head_dim": model.global_head_dim,
        "num_global_key_value_heads": model.global_kv_heads,
        "attention_k_eq_v": model.global_kv_heads is not None,
        "num_kv_shared_layers": model.n_shared,
        "vocab_size_per_layer_input": _SMALL,
        "hidden_size_per_layer_input": _SMALL if model.n_shared else 0,
        "sliding_window": model.window,
        "layer_types": list(model.layer_types),
    }


def _gpt_oss(model: Model) -> Fields:
    return {
        "sliding_window": model.window,
        "layer_types": list(model.layer_types),
        "num_local_experts": 2,
        "num_experts_per_tok": 2,
    }


def _llama4(model: Model) -> Fields:
    return {
        "text_config": None,  # marks that the fields are nested
        "attention_bias": False,
        "attention_chunk_size": model.chunk,
        "interleave_moe_layer_step": 1,
        "intermediate_size_mlp": _SMALL,
        "num_experts_per_tok": 1,
        "num_local_experts": 2,
        "rope_scaling": None,
        "use_qk_norm": True,
    }


def _mistral(model: Model) -> Fields:
    return {"sliding_window": model.window}


def _nothing(_model: Model) -> Fields:
    return {}


#: Families whose classes compute head_dim as hidden_size / heads.
_TIED = frozenset({"cohere2", "phi3", "qwen2"})

#: By family: the module of `mlx_lm.models` for the `model_type` of released configs, and fields.
_FAMILIES: Mapping[str, tuple[str, Callable[[Model], Fields]]] = {
    "gemma2": ("gemma2", _gemma2),
    "gemma3": ("gemma3_text", _windowed),
    "gemma3n": ("gemma3n", _gemma3n),
    "gemma4": ("gemma4_text", _gemma4),
    "gpt-oss": ("gpt_oss", _gpt_oss),
    "cohere2": ("cohere2", _windowed),
    "mistral": ("llama", _mistral),
    "llama3": ("llama", _nothing),
    "llama4": ("llama4", _llama4),
    "phi3": ("phi3", _mistral),
    "qwen2": ("qwen2", _nothing),
}
