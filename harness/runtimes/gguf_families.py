"""How each family of the model table is written as GGUF: architecture, keys, tensors.

Only what llama.cpp's loader requires is written.  Widths that do not affect the size of a KV cache
are as small as allowed; key/value heads, head widths, windows and shared caches are the model's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.cases.models import Model

#: Widths that do not affect the size of the cache.
FEED_FORWARD, EXPERTS, VOCAB = 8, 2, 64
_EMBEDDING, _PER_LAYER = 8, 8
#: The only widths that llama.cpp accepts for Gemma 3n.
_PER_LAYER_3N, _LOW_RANK, _INPUTS = 256, 64, 4
#: Families whose loader requires an embedding of width heads * head_dim.
_TIED = frozenset({"cohere2", "qwen2", "phi3"})

#: Name and shape of each tensor, in PyTorch's order: (rows, columns).
Tensors = Iterator[tuple[str, tuple[int, ...]]]
Layer = Callable[[Model, int], Tensors]


@dataclass(frozen=True)
class Family:
    """How one family is written.

    arch: ``general.architecture``.  layer: tensors of layer i, without the prefix ``blk.i.``.
    keys: writes the keys that are special to the family, to a GGUFWriter.  globals: tensors
    outside the layers.
    """

    arch: str
    layer: Layer
    keys: Callable[[Any, Model], None] = lambda _writer, _model: None
    globals: Callable[[Model], Tensors] = lambda _model: iter(())


def heads(model: Model) -> int:
    """Query heads: the model's, or as many as the most key/value heads of any layer."""
    return model.n_heads or max(model.layer_kv_heads(i) for i in range(model.n_layers))


def embedding(model: Model) -> int:
    """Width of the embedding."""
    return heads(model) * model.head_dim if model.family in _TIED else _EMBEDDING


def _per_layer(model: Model) -> int:
    return _PER_LAYER_3N if model.family == "gemma3n" else _PER_LAYER


def _has_keys(model: Model, i: int) -> bool:
    """True if the file holds layer i's key and value weights; in Gemma 3n even if unused."""
    return i in model.cached_layers or model.family == "gemma3n"


def _attention(model: Model, i: int) -> Tensors:
    width = model.layer_head_dim(i)
    query, keys = heads(model) * width, model.layer_kv_heads(i) * width
    yield "attn_norm.weight", (embedding(model),)
    yield "attn_q.weight", (query, embedding(model))
    if _has_keys(model, i):
        yield "attn_k.weight", (keys, embedding(model))
        yield "attn_v.weight", (keys, embedding(model))
    yield "attn_output.weight", (embedding(model), query)


def _biases(model: Model, i: int) -> Tensors:
    width = model.layer_head_dim(i)
    yield "attn_q.bias", (heads(model) * width,)
    yield "attn_k.bias", (model.layer_kv_heads(i) * width,)
    yield "attn_v.bias", (model.layer_kv_heads(i) * width,)


def _head_norms(model: Model, i: int) -> Tensors:
    yield "attn_q_norm.weight", (model.layer_head_dim(i),)
    if _has_keys(model, i):
        yield "attn_k_norm.weight", (model.layer_head_dim(i),)


def _feed_forward(model: Model, *, norm: bool = True) -> Tensors:
    if norm:
        yield "ffn_norm.weight", (embedding(model),)
    yield "ffn_gate.weight", (FEED_FORWARD, embedding(model))
    yield "ffn_up.weight", (FEED_FORWARD, embedding(model))
    yield "ffn_down.weight", (embedding(model), FEED_FORWARD)


def _experts(model: Model) -> Tensors:
    yield "ffn_gate_inp.weight", (EXPERTS, embedding(model))
    yield "ffn_gate_exps.weight", (EXPERTS, FEED_FORWARD, embedding(model))
    yield "ffn_up_exps.weight", (EXPERTS, FEED_FORWARD, embedding(model))
    yield "ffn_down_exps.weight", (EXPERTS, embedding(model), FEED_FORWARD)


def _post_norms(model: Model) -> Tensors:
    yield "post_attention_norm.weight", (embedding(model),)
    yield "post_ffw_norm.weight", (embedding(model),)


def _llama(model: Model, i: int) -> Tensors:
    yield from _attention(model, i)
    yield from _feed_forward(model)


def _gemma2(model: Model, i: int) -> Tensors:
    yield from _llama(model, i)
    yield from _post_norms(model)


def _gemma3(model: Model, i: int) -> Tensors:
    yield from _gemma2(model, i)
    yield from _head_norms(model, i)


def _gemma4(model: Model, i: int) -> Tensors:
    yield from _gemma3(model, i)
    if model.n_shared:
        yield "inp_gate.weight", (_per_layer(model), embedding(model))
        yield "proj.weight", (embedding(model), _per_layer(model))
        yield "post_norm.weight", (embedding(model),)


def _per_layer_inputs(model: Model) -> Tensors:
    width = _per_layer(model) * model.n_layers
    yield "per_layer_token_embd.weight", (VOCAB, width)
    yield "per_layer_model_proj.weight", (width, embedding(model))
    yield "per_layer_proj_norm.weight", (_per_layer(model),)


def _gemma4_globals(model: Model) -> Tensors:
    if model.n_shared:
        yield from _per_layer_inputs(model)
    yield "rope_freqs.weight", ((model.global_head_dim or model.head_dim) // 2,)


def _gemma3n(model: Model, i: int) -> Tensors:
    yield from _gemma3(model, i)
    yield "inp_gate.weight", (_per_layer(model), embedding(model))
    yield "proj.weight", (embedding(model), _per_layer(model))
    yield "post_norm.weight", (embedding(model),)
    yield "altup_correct_coef.weight", (_INPUTS, _INPUTS)
    yield "altup_correct_scale.weight", (embedding(model),)
    yield "altup_predict_coef.weight", (_INPUTS * _INPUTS, _INPUTS)
    yield "altup_router.weight", (_INPUTS, embedding(model))
    yield "altup_router_norm.weight", (embedding(model),)
    yield "laurel_l.weight", (_LOW_RANK, embedding(model))
    yield "laurel_r.weight", (embedding(model), _LOW_RANK)
    yield "laurel_post_norm.weight", (embedding(model),)


def _gemma3n_globals(model: Model) -> Tensors:
    yield from _per_layer_inputs(model)
    yield "altup_proj.weight", (_INPUTS - 1, embedding(model), embedding(model))
    yield "altup_unembd_proj.weight", (_INPUTS - 1, embedding(model), embedding(model))


def _gpt_oss(model: Model, i: int) -> Tensors:
    yield from _attention(model, i)
    yield from _biases(model, i)
    yield "attn_output.bias", (embedding(model),)
    yield "attn_sinks.weight", (heads(model),)
    yield "post_attention_norm.weight", (embedding(model),)
    yield from _experts(model)
    yield "ffn_gate_inp.bias", (EXPERTS,)
    yield "ffn_gate_exps.bias", (EXPERTS, FEED_FORWARD)
    yield "ffn_up_exps.bias", (EXPERTS, FEED_FORWARD)
    yield "ffn_down_exps.bias", (EXPERTS, embedding(model))


def _output(model: Model) -> Tensors:
    yield "output.weight", (VOCAB, embedding(model))


def _cohere2(model: Model, i: int) -> Tensors:
    yield from _attention(model, i)
    yield from _feed_forward(model, norm=False)


def _qwen2(model: Model, i: int) -> Tensors:
    yield from _llama(model, i)
    yield from _biases(model, i)


def _phi3(model: Model, i: int) -> Tensors:
    width = model.layer_head_dim(i)
    rows = (heads(model) + 2 * model.layer_kv_heads(i)) * width
    yield "attn_norm.weight", (embedding(model),)
    yield "attn_qkv.weight", (rows, embedding(model))
    yield "attn_output.weight", (embedding(model), heads(model) * width)
    yield "ffn_norm.weight", (embedding(model),)
    yield "ffn_up.weight", (2 * FEED_FORWARD, embedding(model))
    yield "ffn_down.weight", (embedding(model), FEED_FORWARD)


def _llama4(model: Model, i: int) -> Tensors:
    yield from _attention(model, i)
    yield "ffn_norm.weight", (embedding(model),)
    yield from _experts(model)
    yield "ffn_gate_shexp.weight", (FEED_FORWARD, embedding(model))
    yield "ffn_up_shexp.weight", (FEED_FORWARD, embedding(model))
    yield "ffn_down_shexp.weight", (embedding(model), FEED_FORWARD)


def _window_key(writer: Any, model: Model) -> None:
    writer.add_sliding_window(model.window)


def _gemma3_keys(writer: Any, model: Model) -> None:
    if model.window is not None:
        _window_key(writer, model)
    writer.add_rope_freq_base(1e6)  # of full layers; sliding layers keep the base of Gemma 2


def _per_layer_keys(writer: Any, model: Model) -> None:
    _window_key(writer, model)
    writer.add_sliding_window_pattern(_slides(model))
    if model.n_shared:
        writer.add_shared_kv_layers(model.n_shared)
    writer.add_embedding_length_per_layer_input(_per_layer(model) if model.n_shared else 0)


def _gemma4_keys(writer: Any, model: Model) -> None:
    _per_layer_keys(writer, model)
    writer.add_key_length(model.global_head_dim or model.head_dim)
    writer.add_value_length(model.global_head_dim or model.head_dim)
    writer.add_key_length_swa(model.head_dim)
    writer.add_value_length_swa(model.head_dim)


def _gemma3n_keys(writer: Any, model: Model) -> None:
    _per_layer_keys(writer, model)
    writer.add_altup_active_idx(0)
    writer.add_altup_num_inputs(_INPUTS)
    writer.add_activation_sparsity_scale([0.0] * model.n_layers)


def _expert_keys(writer: Any, _model: Model) -> None:
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(EXPERTS)
    writer.add_expert_feed_forward_length(FEED_FORWARD)


def _gpt_oss_keys(writer: Any, model: Model) -> None:
    _window_key(writer, model)
    _expert_keys(writer, model)


def _cohere2_keys(writer: Any, model: Model) -> None:
    _window_key(writer, model)
    writer.add_logit_scale(1.0)
    writer.add_layer_norm_eps(1e-6)


def _llama4_keys(writer: Any, model: Model) -> None:
    _expert_keys(writer, model)
    writer.add_interleave_moe_layer_step(1)


def _slides(model: Model) -> list[bool]:
    return [kind == "sliding_attention" for kind in model.layer_types]


FAMILIES: Mapping[str, Family] = {
    "gemma2": Family("gemma2", _gemma2, _window_key),
    "gemma3": Family("gemma3", _gemma3, _gemma3_keys),
    "gemma3n": Family("gemma3n", _gemma3n, _gemma3n_keys, _gemma3n_globals),
    "gemma4": Family("gemma4", _gemma4, _gemma4_keys, _gemma4_globals),
    "gpt-oss": Family("gpt-oss", _gpt_oss, _gpt_oss_keys, _output),
    "cohere2": Family("cohere2", _cohere2, _cohere2_keys),
    "mistral": Family("llama", _llama),  # converters write no window
    "llama3": Family("llama", _llama),
    "llama4": Family("llama4", _llama4, _llama4_keys),
    "phi3": Family("phi3", _phi3, _window_key),
    "qwen2": Family("qwen2", _qwen2),
}
