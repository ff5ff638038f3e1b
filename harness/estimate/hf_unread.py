"""Refuses configs whose caches would be counted wrongly: other caches, and keys that are not read.

A key that looks like structure and that nothing here reads may change what is cached.  A figure
that leaves it out could be too small, so there is none.
"""

from __future__ import annotations

import re

from harness.estimate.decoders.table import DecoderType, types
from harness.estimate.fields import Fields, quoted
from harness.estimate.geometry import GeometryError

#: What the name of a field looks like that may change what layers cache.
_STRUCTURE = re.compile(
    r"group|interval|pattern|layout|attn_type|attention_type|block_type|block_config|^swa_"
    r"|_channels|use_cla|cla_share|window|every_n|_idxs$|head_dim|lora_rank|d_state|state_size"
    r"|kv_head|kv_n_head|num_.*heads|n_heads?$|shared?_kv|kv_shar|cross_attention|chunk_size$"
    r"|compress|indexer|index_head|linear_attn|^mamba|^ssm|recurrent|layer_types|_L_cache"
    r"|other_setting|sparse_attention|conv_kernel"
)

#: Names that look so and change no cache, in whatever config: heads of queries and of indexers,
#: groups of experts and of normalization, patterns of the MLP and of layers for speculation.
_HARMLESS = frozenset(
    [
        "activation_sparsity_pattern",
        "index_n_heads",
        "mlp_layer_types",
        "moe_layer_interval",
        "mtp_layer_types",
        "mtp_layers_block_type",
        "mtp_mlp_layer_types",
        "n_group",
        "num_attention_heads_per_layer",
        "num_expert_group",
        "num_query_groups",
        "num_sliding_attention_heads",
        "q_lora_rank",
        "qk_head_dim",
        "swa_num_attention_heads",
        "topk_group",
        "mamba_chunk_size",
        "mamba_conv_bias",
        "mamba_dt_rank",
        "mamba_hidden_act",
        "mamba_norm_before_gate",
        "mamba_proj_bias",
        "mamba_rms_norm",
        "ssm_in_multiplier",
        "ssm_multipliers",
        "ssm_out_multiplier",
        "linear_attn_alpha_factor",
        "linear_attn_beta_factor",
    ]
)

#: The same, for one class: its caches were measured with these fields as they are.
_HARMLESS_IN: dict[str, frozenset[str]] = {
    # saved beside the figures that they repeat
    "bailing_hybrid": frozenset({"linear_num_heads", "linear_conv_kernel_dim"}),
    "big_bird": frozenset({"attention_type"}),  # a sparse mask over a full cache
    "doge": frozenset({"keep_window_size"}),  # so many keys are attended, all are kept
    "gpt_neo": frozenset({"attention_types", "window_size"}),  # a mask over a full cache
    "idefics": frozenset({"cross_layer_interval"}),  # images are attended anew each time
    "mamba2": frozenset({"chunk_size"}),
    "musicgen_decoder": frozenset({"audio_channels"}),
    "musicgen_melody_decoder": frozenset({"audio_channels"}),
    "nemotron_h": frozenset({"chunk_size", "mamba_ssm_cache_dtype"}),
    "zamba2": frozenset({"chunk_size", "kv_channels", "mamba_headdim"}),
}

#: Keys that say which layers slide; a list of layers overrules them.
_ORDER = re.compile(r"pattern|interval|every_n|_idxs$|layout|block_type|window_layers|attn_type")
_WINDOW_ORDER = re.compile(r"window_layers|sliding_window_pattern")
_NEVER = re.compile(r"(?!)")

#: Keys of models in which some layers keep a state, attend to an image or differ in shape, where
#: the class of transformers, if there is one, does not read them.
_STATES = (
    "attn_layer_period",
    "block_configs",
    "conv_L_cache",
    "mamba_d_state",
    "ssm_cfg",
    "state_size",
    "hybrid_override_pattern",
    "full_attn_idxs",
)


#: Classes of transformers whose caches are not counted, and why.
_UNCOUNTED = {
    "blt": "it caches patches of bytes, and how many there are depends on the text",
    "cpmant": "a prompt of its own lies before the text, and each step reads the text again",
    "deepseek_v4": "its layers cache compressed blocks, and buffers that fill and empty",
    "openai-gpt": "its class has no cache",
    "pi0": "it caches what its action expert reads, images and states of a robot",
    "qwen4_exp_text": "the indexer of its full layers caches averages of blocks",
    "reformer": "it caches hashed buckets of hidden states",
    "unlimited_ocr_text": "it keeps the prompt in full and a window of what follows",
    "xlm": "its class has no cache",
    "xlnet": "it caches hidden states of segments, and no keys",
    "xlstm": "its states are matrices whose shapes are set by options of its kernels",
}


def refuse_encoders(fields: Fields, known: DecoderType | None) -> None:
    """Raise GeometryError for an encoder with a decoder, which also caches what it reads of it."""
    by_class = known is not None and known.defaults.get("is_encoder_decoder") is True
    if fields.flag("is_encoder_decoder") or (by_class and not fields.states("is_encoder_decoder")):
        raise GeometryError(f"{fields.name}: is_encoder_decoder is true: only decoders are counted")


def refuse_other_caches(fields: Fields, kind: str) -> None:
    """Raise GeometryError if layers cache what is not counted."""
    if kind in _UNCOUNTED:
        raise GeometryError(f"{fields.name}: {kind} is not counted: {_UNCOUNTED[kind]}")
    if kind in types():
        return
    for key in _STATES:
        if fields.has(key):
            raise GeometryError(
                f"{fields.name}: {fields.written(key)} is set: only decoders whose layers all "
                "cache keys and values are counted"
            )


def refuse_unread(fields: Fields, kind: str) -> None:
    """Raise GeometryError naming a key that looks like structure and was not read.

    Fields of a class of transformers are known: its cache was measured with them.
    """
    own = types()[kind].defaults if kind in types() else {}
    passed = _HARMLESS | _HARMLESS_IN.get(kind, frozenset()) | fields.read | set(own)
    overruled = _overruled(fields)
    for key, value in fields.data.items():
        if not isinstance(key, str) or not value or key in passed or not _STRUCTURE.search(key):
            continue
        if key in fields.spelled.values() or overruled.search(key):
            continue
        raise GeometryError(
            f"{fields.name}: {fields.prefix}{quoted(key)[1:-1]} is set, looks as if it changed "
            f"what {kind} caches, and is not read: no figure rather than one that may be too small"
        )


def _overruled(fields: Fields) -> re.Pattern[str]:
    """The keys that say nothing more: a list of layers overrules an order of them.

    Without a window, nothing that orders windows matters.
    """
    if fields.has("layer_types") and "layer_types" not in fields.defaults:
        return _ORDER
    return _NEVER if fields.value("sliding_window") else _WINDOW_ORDER
