"""Names and defaults of the config classes of transformers, from a table: no class is imported.

`python suites/meta/support/decoder_fields.py` writes the table, `fields.json`, from the installed
transformers; a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("fields.json")

#: The fields that a geometry depends on, in transformers' own common spelling.
READ = (
    *("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size"),
    *("head_dim", "v_head_dim", "num_kv_heads", "multi_query", "new_decoder_architecture"),
    *("global_head_dim", "num_global_key_value_heads", "attention_k_eq_v", "attn_config"),
    *("num_kv_shared_layers", "per_layer_config", "is_encoder_decoder", "kv_source_layers"),
    *("multi_query_attention", "multi_query_group_num", "attention_other_setting"),
    # windows, and which layers have them
    *("sliding_window", "use_sliding_window", "max_window_layers", "layer_types"),
    *(
        "attention_chunk_size",
        "sliding_window_pattern",
        "sliding_window_size",
        "global_attn_every_n_layers",
    ),
    *("no_rope_layers", "no_rope_layer_interval", "local_attention", "local_layer_ids"),
    *("prefix_dense_sliding_window_pattern", "first_k_dense_replace", "use_dsa"),
    *("cross_attention_layers", "sparse_attention_config", "use_bidirectional_attention"),
    # layers that keep a state
    *("full_attention_interval", "layer_group_size", "attn_layer_period", "attn_layer_offset"),
    *("attn_layer_indices", "full_attn_idxs", "block_types", "hybrid_override_pattern"),
    *("linear_attn_config", "indexer_types", "swa_num_key_value_heads", "swa_head_dim"),
    *("swa_v_head_dim", "hybrid_layer_pattern", "attn_type_list"),
    # latents
    *("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "index_head_dim"),
    *("swa_kv_lora_rank",),
    # states
    *("linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim"),
    *("linear_value_head_dim", "linear_conv_kernel_dim", "linear_head_dim", "linear_num_heads"),
    *("short_conv_kernel_size", "conv_kernel_size", "conv_L_cache", "conv_kernel"),
    *("mamba_d_conv", "mamba_d_state", "mamba_expand", "mamba_n_heads", "mamba_d_head"),
    *("mamba_n_groups", "mamba_d_ssm", "n_mamba_heads", "mamba_num_heads", "mamba_head_dim"),
    *("ssm_state_size", "n_groups", "expand", "state_size", "num_heads", "mamba_ngroups"),
    *("lru_width", "conv1d_width", "attention_hidden_size", "cca_time0", "cca_time1"),
    *("num_layers_per_stack", "H_cycles", "L_cycles", "ple_layer_ids"),
)


@dataclass(frozen=True)
class DecoderType:
    """A config class.

    names: the class's own names of the fields that it calls otherwise, by the common name.
    defaults: what the class takes for a field that a file leaves out, by the common name.
    text: the key of the decoder's own config in it, and that config's type; None if it has none.
    """

    names: Mapping[str, str]
    defaults: Mapping[str, Any]
    text: tuple[str, str] | None


@cache
def types() -> dict[str, DecoderType]:
    """Every config class of a decoder, by its `model_type`."""
    data = json.loads(TABLE.read_text(encoding="utf-8"))
    return {
        kind: DecoderType(
            row.get("names", {}),
            row.get("defaults", {}),
            tuple(row["text"]) if "text" in row else None,
        )
        for kind, row in data["types"].items()
    }
