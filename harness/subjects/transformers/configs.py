"""Tiny transformers configurations: one row per family of the model table.

Only what the attention's geometry needs is set; the rest keeps the class's defaults, so that each
family keeps its own norms, soft caps, attention sinks, rotary bases and residual streams.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.cases.models import Model

#: Longest context of a tiny model: above every schedule's, so that no rotary table runs out.
MAX_POSITIONS = 4096

#: Fields take what a config's keyword arguments take: numbers, lists, dicts of them.
Fields = dict[str, object]


@dataclass(frozen=True)
class Family:
    """How a family of the model table is built.

    config: name of the text config's class in transformers.  fields: the keyword arguments that
    other families lack.  local: the one type of bounded layer that the class can hold, None for a
    class without any.  initializer_range: chosen for logits of standard deviation about 1, so
    that attention is neither uniform nor one-hot.  tied_width: the class takes head_dim from
    hidden_size / heads and lets no one set it.  unscaled: the class does not divide scores
    by sqrt(head_dim); in trained models the weights of the query norm do.
    """

    config: str
    fields: Callable[[Model], Fields]
    local: str | None = "sliding_attention"
    initializer_range: float = 0.2
    tied_width: bool = False
    unscaled: bool = False


def common_fields(family: Family, model: Model, vocab: int) -> Fields:
    """The fields that every text config takes."""
    heads = model.n_heads or model.n_kv_heads
    return {
        "vocab_size": vocab,
        "hidden_size": heads * model.head_dim if family.tied_width else 32,
        "intermediate_size": 32,
        "num_hidden_layers": model.n_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": model.n_kv_heads,
        "max_position_embeddings": MAX_POSITIONS,
        "initializer_range": family.initializer_range,
        # No token is special: the embedding of padding would be a row of zeros.
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def _windows(model: Model) -> Fields:
    """Layer types and window; a one-layer full model needs some window for the mask it ignores."""
    return {"layer_types": list(model.layer_types), "sliding_window": model.window or 8}


def _interleaved(model: Model) -> Fields:
    return {**_windows(model), "head_dim": model.head_dim}


def _gemma(model: Model) -> Fields:
    return {**_interleaved(model), "query_pre_attn_scalar": model.head_dim}


def _gemma4(model: Model) -> Fields:
    """Per-layer inputs as in E2B; keys serve as values if full layers have their own KV heads."""
    full = [i for i, kind in enumerate(model.layer_types) if kind == "full_attention"]
    return {
        **_interleaved(model),
        # The class requires a full last layer, which an isolated sliding layer is not.
        "layer_types": [*model.layer_types[:-1], "full_attention"],
        "num_kv_shared_layers": model.n_shared,
        "attention_k_eq_v": model.global_kv_heads is not None,
        "per_layer_config": {
            i: {
                "head_dim": model.layer_head_dim(i),
                "num_key_value_heads": model.layer_kv_heads(i),
            }
            for i in full
        },
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 64,
    }


def _mistral(model: Model) -> Fields:
    return {"head_dim": model.head_dim, "sliding_window": model.window}


def _gpt_oss(model: Model) -> Fields:
    # Every expert is active: a router's near tie must not look like a fault of the attention.
    return {**_interleaved(model), "num_local_experts": 2, "num_experts_per_tok": 2}


def _cohere2(model: Model) -> Fields:
    return {**_windows(model), "logit_scale": 1.0}


def _qwen2(model: Model) -> Fields:
    return {**_windows(model), "use_sliding_window": True}


def _llama4(model: Model) -> Fields:
    return {
        "head_dim": model.head_dim,
        "layer_types": list(model.layer_types),
        "attention_chunk_size": model.chunk or 8,
        # Full layers are those without rotary positions; there the position shows only in the
        # temperature, at every multiple of floor_scale.
        "no_rope_layers": [int(kind != "full_attention") for kind in model.layer_types],
        "floor_scale": 8,
        "intermediate_size_mlp": 32,
        "num_local_experts": 2,
        "num_experts_per_tok": 2,
    }


def _llama(model: Model) -> Fields:
    return {"head_dim": model.head_dim}


FAMILIES: Mapping[str, Family] = {
    "gemma2": Family("Gemma2Config", _gemma),
    "gemma3": Family("Gemma3TextConfig", _gemma),
    "gemma4": Family("Gemma4TextConfig", _gemma4, unscaled=True),
    "mistral": Family("MistralConfig", _mistral),
    "gpt-oss": Family("GptOssConfig", _gpt_oss),
    "cohere2": Family("Cohere2Config", _cohere2, initializer_range=0.14, tied_width=True),
    "qwen2": Family("Qwen2Config", _qwen2, initializer_range=0.14, tied_width=True),
    "llama4": Family("Llama4TextConfig", _llama4, local="chunked_attention"),
    "llama3": Family("LlamaConfig", _llama, local=None),
}
