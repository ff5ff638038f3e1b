"""What single classes need to become tiny: figures that agree, and fields without a default."""

from __future__ import annotations

from typing import Any

_ATTENTION_AT = ["attention" if i in (2, 9) else "mamba" for i in range(12)]
_LFM = ["full_attention" if i % 4 == 2 else "conv" for i in range(12)]


def _sections(*sizes: int) -> dict[str, Any]:
    """Rotary positions in three sections."""
    return {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "mrope_section": list(sizes),
        }
    }


_BY_KIND = {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}

_EXPERTS = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 32,
    "n_group": 1,
    "topk_group": 1,
}

#: Fields by `model_type`, over those of `tiny_decoders.SIZES`.
FIELDS: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [2, 9]},
    "chameleon": {"vocabulary_map": {"<image>": 4}},
    "codegen": {"rotary_dim": 8},
    "cosmos3_edge": {"text_config": _sections(4, 2, 2)},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "diffusion_gemma": {
        "text_config": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32}
    },
    "dots1": _EXPERTS,
    "dots3_note": {"vision_config": {"pyramid_num_routed": [-1, 4], "adapter_in_dim": 64}},
    "gemma3n": {"text_config": {"num_hidden_layers": 20, "num_kv_shared_layers": 10}},
    "gemma3n_text": {"num_hidden_layers": 20, "num_kv_shared_layers": 10},
    "gemma4_unified_assistant": {"text_config": {"num_kv_shared_layers": 0}},
    "glm46v": {"text_config": _sections(4, 2, 2)},
    "glm4v": {"text_config": _sections(4, 2, 2)},
    "glm4v_moe": {"text_config": _sections(2, 1, 1)},
    "glm_ocr": {"text_config": _sections(4, 2, 2)},
    "glmga": {"text_config": _sections(4, 2, 2)},
    "gpt_neo": {"attention_types": [[["global", "local"], 6]]},
    "gptj": {"rotary_dim": 8},
    "granite_docling": {"vision_config": {"out_hidden_size": 64}},
    "granitemoehybrid": {"layer_types": _ATTENTION_AT},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "hunyuan_vl": {"text_config": {"head_dim": 16} | _sections(4, 2, 2)},
    "inkling2": {"vision_config": {"text_hidden_size": 64}},
    "lfm2": {"layer_types": _LFM},
    "lfm2_moe": {"layer_types": _LFM},
    "longcat_flash": {"head_dim": 8},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "ministral": {"head_dim": 16},
    "molmo2": {"adapter_config": {"vision_feature_layer": [0, 1]}},
    "nemotron": {"head_dim": 16, "num_key_value_heads": 2},
    "paddleocr_vl": {"text_config": _sections(4, 2, 2)},
    "qwen2_5_omni_thinker": {"text_config": _sections(4, 2, 2)},
    "qwen2_5_vl": {"text_config": _sections(4, 2, 2)},
    "qwen2_vl": {"text_config": _sections(4, 2, 2)},
    "step3p7": {"text_config": {"sliding_window": 8}},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "zamba2": {"num_hidden_layers": 54},
    "zaya": {"num_experts_per_tok": 1},
    "cohere_compass": {"text_config": {"rope_parameters": _BY_KIND}},
    "cohere_compass_text": {"rope_parameters": _BY_KIND},
    "ernie4_5_vl_moe": {"text_config": _sections(3, 3, 2)},
    "deepseek_ocr2": {"text_config": {"mlp_layer_types": ["dense"] * 12}},
    "muse_spark": {"audio_config": {"num_hidden_layers": 4}},
    "nemotron_h_omni": {"vision_config": {"video_temporal_patch_size": 2}},
}
