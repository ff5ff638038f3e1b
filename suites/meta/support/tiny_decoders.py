"""Tiny instances of the decoders of transformers, and the bytes that their caches hold.

A tiny config has the class's own fields, with its sizes cut: what a field means, how layers
alternate and which figure stands in for a missing one stay as the class has them.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from tiny_fields import FIELDS
from torch import Tensor

#: Tokens of the prompt, and how many follow one at a time: more than the window, and more than
#: the kernel of any convolution.
PROMPT, SINGLES = 20, 11

#: The window and the chunk of every tiny instance.
WINDOW = 8

#: The sizes of a tiny instance, by the names that the classes give them.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embed_dim", "emb_dim"), 64),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("attention_heads", "decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("num_encoder_attention_heads", "num_decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "depth"), 2),
    **dict.fromkeys(("num_encoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("sliding_window", "attention_window_size", "local_attention"), WINDOW),
    **dict.fromkeys(("window_size", "attention_chunk_size", "sliding_window_size"), WINDOW),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner"), 64),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "expert_ffn_hidden_size"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("moe_num_experts",), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts"), 2),
    **dict.fromkeys(("num_experts_per_token",), 2),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_group"), 1),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), 128),
    **dict.fromkeys(("kv_lora_rank",), 32),
    **dict.fromkeys(("q_lora_rank",), 24),
    **dict.fromkeys(("qk_rope_head_dim",), 8),
    **dict.fromkeys(("qk_nope_head_dim", "v_head_dim", "qk_head_dim"), 16),
    **dict.fromkeys(("linear_num_key_heads",), 2),
    **dict.fromkeys(("linear_num_value_heads",), 4),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 16),
    **dict.fromkeys(("mamba_d_state", "ssm_state_size", "state_size"), 8),
    **dict.fromkeys(("index_head_dim",), 16),
    **dict.fromkeys(("index_n_heads",), 2),
    **dict.fromkeys(("index_topk",), 16),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 256),
}

#: Fields of the depth; the decoder's is what the caches are counted over.
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "layers")
DEPTH = 12

#: Fields of the key/value heads; the value depends on what the class's own proportion is.
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "multi_query_group_num", "num_attention_groups")

#: Keys under which a config holds that of its decoder.
_DECODERS = ("text_config", "decoder", "generator", "thinker_config", "llm_config")

#: Ids that must lie in the vocabulary.
IDS = ("pad_token_id", "bos_token_id", "eos_token_id")


def default_fields(kind: type) -> dict[str, Any]:
    """The fields of a config class and their defaults, before the class completes them."""
    out = {}
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            out[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            out[field.name] = field.default_factory()
    return out


def tiny_fields(kind: type) -> dict[str, Any]:
    """The fields of a config class that a tiny instance sets, nested configs included."""
    have = default_fields(kind)
    out: dict[str, Any] = {}
    if have.get("is_decoder") is False:
        out["is_decoder"] = True
    heads = next((have[k] for k in SIZES if k.endswith("heads") and k in have), None)
    for key, value in have.items():
        if key in LAYERS:
            out[key] = DEPTH
        elif key in KV_HEADS and value is not None:
            out[key] = 1 if value == 1 else 4 if value == heads else 2
        elif key in ("head_dim", "global_head_dim") and value is not None:
            out[key] = 16
        elif key in SIZES and value not in (None, 0):
            out[key] = SIZES[key]
        elif key in IDS and value is not None:
            out[key] = 1
    for key, inner in sub_configs(kind).items():
        out[key] = {"model_type": inner.model_type} | tiny_fields(inner)
        depth = DEPTH if key in _DECODERS else 2
        out[key] |= dict.fromkeys(set(LAYERS) & set(out[key]), depth)
    return _merged(out, FIELDS.get(kind.model_type, {}))


def sub_configs(kind: type) -> dict[str, type]:
    """The classes of the configs that a config of this class holds by default."""
    names = getattr(kind, "sub_configs", {})
    try:
        made = kind() if names else None
    except Exception:  # a few classes refuse their own defaults
        return {name: inner for name, inner in names.items() if dataclasses.is_dataclass(inner)}
    held = {name: type(getattr(made, name, None)) for name in names}
    return {name: inner for name, inner in held.items() if dataclasses.is_dataclass(inner)}


def _merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in more.items():
        nested = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = _merged(out[key], value) if nested else value
    return out


def config_class(model_type: str) -> type:
    """The config class of a model type."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type]


def decoder_types() -> list[str]:
    """Every type that transformers has a decoder of, alone or behind an image encoder."""
    from transformers.models.auto import modeling_auto as auto

    names = set(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    return sorted(names | set(auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES))


def instance(config: Any) -> torch.nn.Module:
    """A model of random weights, of the class that transformers has for the config."""
    import transformers
    from transformers.models.auto import modeling_auto as auto

    alone = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    seeing = auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    name = alone.get(config.model_type) or seeing[config.model_type]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind, text = getattr(transformers, name), config.get_text_config(decoder=True)
        # A class of the decoder alone takes the decoder's config.
        takes_text = isinstance(text, kind.config_class)
        try:
            return kind(text if takes_text else config).eval()
        except (ImportError, AttributeError):
            # An image encoder of a package that is not there; the decoder is a class of its own.
            return getattr(transformers, alone[text.model_type])(text).eval()


def cache_sizes(model: torch.nn.Module) -> tuple[int, int, int]:
    """Bytes of the cache behind the prompt, behind the next token, and behind the last one.

    A model that takes no text alone is asked for its language model's.
    """
    try:
        return _sizes(model)
    except (TypeError, ValueError, AttributeError):
        inner = next((part for part in _languages(model)), None)
        if inner is None:
            raise
        return _sizes(inner)


def _languages(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The language model inside a model that needs images."""
    for path in ("language_model", "model.language_model", "text_decoder", "text_model"):
        try:
            yield model.get_submodule(path)
        except AttributeError:
            continue


#: How outputs call their cache.
_CACHES = ("past_key_values", "cache_params", "state")


def _sizes(model: torch.nn.Module) -> tuple[int, int, int]:
    tokens = torch.arange(PROMPT + SINGLES).remainder(50).add(5).unsqueeze(0)
    seen: list[int] = []
    given: dict[str, Any] = {}
    with torch.no_grad():
        for piece in (tokens[:, :PROMPT], *tokens[:, PROMPT:].split(1, dim=1)):
            out = model(input_ids=piece, use_cache=True, **given)
            name = next((n for n in _CACHES if getattr(out, n, None) is not None), None)
            if name is None:
                raise ValueError(f"{type(model).__name__} gives no cache back")
            given = {name: getattr(out, name)}
            seen.append(held(given[name]))
    return seen[0], seen[1], seen[-1]


def held(cache: object) -> int:
    """Bytes of the storages of all floating-point tensors that a cache reaches, each once."""
    sizes = {}
    for tensor in _tensors(cache, set()):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr() or id(storage)] = storage.nbytes()
    return sum(sizes.values())


def _tensors(value: object, seen: set[int]) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.numel():
            yield value
        return
    if id(value) in seen or isinstance(value, str | bytes | int | float | None):
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    else:
        inside = "transformers" in type(value).__module__ and "onfig" not in type(value).__name__
        parts = list(getattr(value, "__dict__", {}).values()) if inside else []
    for part in parts:
        yield from _tensors(part, seen)
