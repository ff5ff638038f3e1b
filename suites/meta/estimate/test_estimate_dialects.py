"""Config files as people publish them: what each means, in bytes of transformers' own cache.

The figures were measured, or follow from the shapes that the class caches, in f16 at 131072.
"""

from __future__ import annotations

from typing import Any

import pytest

from harness.estimate import evidence, hf_config
from harness.estimate.geometry import GeometryError
from harness.estimate.profiles import LlamaCpp, Mlx, Request, UnsupportedCache, transformers

K128 = Request(131072)
WIDE = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
}


def total(config: dict[str, Any]) -> int:
    return transformers.Dynamic().total(hf_config.read(config), K128)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param(
            {
                "model_type": "falcon",
                "hidden_size": 4544,
                "num_attention_heads": 71,
                "num_kv_heads": 71,
                "num_hidden_layers": 32,
                "multi_query": True,
                "new_decoder_architecture": False,
            },
            1_073_741_824,
            id="falcon-7b as transformers saves it: one head, whatever num_kv_heads says",
        ),
        pytest.param(
            {
                "model_type": "falcon",
                "hidden_size": 8192,
                "new_decoder_architecture": True,
                "num_attention_heads": 128,
                "num_hidden_layers": 60,
                "num_kv_heads": 8,
                "multi_query": True,
            },
            257_698_037_760,
            id="falcon-40b: keys are spread to all heads before they are cached",
        ),
        pytest.param({"model_type": "jetmoe"}, 12_884_901_888, id="jetmoe: kv_channels"),
        pytest.param(
            {"model_type": "mimo_v2_flash"},
            3_045_657_600,
            id="mimo: sliding layers have twice the heads",
        ),
        pytest.param(
            {
                "model_type": "mimo_v2_flash",
                "head_dim": 192,
                "v_head_dim": 128,
                "num_attention_heads": 64,
                "num_key_value_heads": 4,
                "num_hidden_layers": 48,
                "swa_head_dim": 192,
                "swa_v_head_dim": 128,
                "swa_num_attention_heads": 64,
                "swa_num_key_value_heads": 8,
                "sliding_window": 128,
                "sliding_window_size": 128,
                "hybrid_layer_pattern": [int(i > 0 and i % 6 != 5) for i in range(48)],
            },
            3_045_657_600,
            id="mimo as published",
        ),
        pytest.param(
            {
                "model_type": "chatglm",
                "hidden_size": 4096,
                "kv_channels": 128,
                "multi_query_attention": True,
                "multi_query_group_num": 2,
                "num_attention_heads": 32,
                "num_layers": 40,
            },
            5_368_709_120,
            id="glm-4-9b-chat: groups of queries",
        ),
        pytest.param(
            {
                "model_type": "step3p5",
                "hidden_size": 4096,
                "head_dim": 128,
                "num_attention_heads": 64,
                "num_attention_groups": 8,
                "num_hidden_layers": 45,
                "sliding_window": 512,
                "layer_types": [
                    "sliding_attention" if i % 4 else "full_attention" for i in range(45)
                ],
                "attention_other_setting": {
                    "attention_type": "sliding_attention",
                    "num_attention_heads": 96,
                    "num_attention_groups": 8,
                },
            },
            6_511_656_960,
            id="step-3.5-flash: groups, and other heads in sliding layers",
        ),
        pytest.param(
            {
                "model_type": "deepseek_v3",
                "num_attention_heads": 128,
                "num_hidden_layers": 61,
                "kv_lora_rank": 512,
                "qk_rope_head_dim": 64,
            },
            61 * 576 * 2 * 131072,
            id="deepseek-v3: latents",
        ),
        pytest.param(
            WIDE | {"model_type": "qwen2_moe", "use_sliding_window": False, "sliding_window": 0},
            32 * 8 * 256 * 2 * 131072,
            id="qwen2-moe as transformers saves it: a window of 0",
        ),
        pytest.param(
            WIDE | {"model_type": "olmo3", "sliding_window": 4096},
            8 * 256 * 2 * (8 * 131072 + 24 * 4096),
            id="olmo3: one layer in four is full",
        ),
        pytest.param(
            WIDE | {"model_type": "afmoe", "sliding_window": 2048, "head_dim": 128},
            8 * 256 * 2 * (8 * 131072 + 24 * 2048),
            id="afmoe: one layer in four is full",
        ),
        pytest.param(
            WIDE | {"model_type": "vaultgemma", "sliding_window": 512, "head_dim": 256},
            8 * 512 * 2 * (16 * 131072 + 16 * 512),
            id="vaultgemma: every second layer is full",
        ),
        pytest.param(
            {
                "model_type": "mpt",
                "d_model": 4096,
                "n_heads": 32,
                "n_layers": 32,
                "max_seq_len": 2048,
            },
            32 * 32 * 256 * 2 * 131072,
            id="mpt: names of its own",
        ),
        pytest.param(
            {
                "model_type": "dbrx",
                "d_model": 6144,
                "n_heads": 48,
                "n_layers": 40,
                "attn_config": {"kv_n_heads": 8},
            },
            40 * 8 * 256 * 2 * 131072,
            id="dbrx: heads inside attn_config",
        ),
        pytest.param(
            {"model_type": "bloom", "n_embed": 1024, "num_attention_heads": 16, "n_layer": 24},
            24 * 16 * 128 * 2 * 131072,
            id="bloom: n_embed",
        ),
        pytest.param(
            WIDE
            | {
                "model_type": "granitemoehybrid",
                "layer_types": ["attention"] * 32,
                "mamba_d_state": 256,
            },
            32 * 8 * 256 * 2 * 131072,
            id="granite 4 dense: a state's size, and no layer that has one",
        ),
    ],
)
def test_what_a_published_config_means(config: dict[str, Any], expected: int) -> None:
    assert total(config) == expected


def test_indices_of_layers_may_be_padded() -> None:
    """transformers pads them to the width of the last: "05" of 30 layers is layer 5."""
    kinds = ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(30)]
    wide = {f"{i:02d}": {"head_dim": 512} for i in range(5, 30, 6)}
    config = {
        "model_type": "gemma4_text",
        "num_hidden_layers": 30,
        "layer_types": kinds,
        "sliding_window": 1024,
        "head_dim": 256,
        "per_layer_config": wide,
    }
    geometry = hf_config.read(config)
    assert [layer.k_dim for layer in geometry.layers] == [256, 256, 256, 256, 256, 512] * 5


STATES = 36 * (4 * 128 * 32 * 128 + 2 * 4 * (2 * 16 * 128 + 32 * 128))


def test_states_do_not_grow() -> None:
    """Qwen3-Next as published: 12 full layers of 48, and the states of the other 36."""
    config = {
        "model_type": "qwen3_next",
        "head_dim": 256,
        "num_key_value_heads": 2,
        "num_hidden_layers": 48,
        "full_attention_interval": 4,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
    }
    geometry = hf_config.read(config)
    for context in (8192, 131072):
        keys = 12 * 2 * 512 * 2 * context
        assert transformers.Dynamic().total(geometry, Request(context)) == keys + STATES
    two = transformers.Dynamic().total(geometry, Request(8192, sequences=2))
    assert two == 2 * transformers.Dynamic().total(geometry, Request(8192))
    for runtime in (LlamaCpp(), Mlx()):
        with pytest.raises(UnsupportedCache, match="a recurrent state, which nobody has measured"):
            runtime.total(geometry, K128)


def test_latents_are_rows_of_keys_in_llama_cpp() -> None:
    """Four layers of DeepSeek at 8192: 36 MiB, as its log says, and no values."""
    config = {
        "model_type": "deepseek_v3",
        "num_hidden_layers": 4,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
    }
    geometry = hf_config.read(config)
    assert [layer.kind for layer in geometry.layers] == ["latent"] * 4
    assert LlamaCpp().total(geometry, Request(8192)) == 36 << 20
    assert LlamaCpp(flash_attention=False).total(geometry, Request(8192)) == 36 << 20


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"full_attention_interval": 4}, "full_attention_interval is set, looks as if"),
        ({"num_query_groups_kv": 2}, "num_query_groups_kv is set"),
        ({"block_types": ["recurrent"]}, "block_types is set"),
        ({"attn_type_list": [0, 1]}, "attn_type_list is set"),
        ({"sliding_window_layout": [1, 0]}, "sliding_window_layout is set"),
        ({"use_cla": True}, "use_cla is set"),
        ({"local_window": 9}, "local_window is set"),
        ({"swa_num_key_value_heads": 9}, "swa_num_key_value_heads is set"),
        ({"sliding_window": 9}, "which layers of 'unheard' slide is not known; add layer_types"),
        ({"attention_chunk_size": 9}, "layer_types is missing"),
    ],
)
def test_a_key_that_looks_like_structure_is_never_passed_over(
    more: dict[str, Any], message: str
) -> None:
    """Of a family that nobody has measured, and of one that everybody has."""
    for model_type in ("unheard", "llama"):
        if model_type == "llama" and not message.endswith(("is set", "if")):
            continue
        with pytest.raises(GeometryError) as caught:
            hf_config.read(WIDE | more | {"model_type": model_type})
        assert message.replace("unheard", model_type) in str(caught.value)


def test_how_a_figure_is_known_is_true_per_family_and_runtime() -> None:
    """A family of the table: in every runtime; one of the sweep: in transformers; others: not."""
    known = {}
    for name in ("gemma2", "olmo3", "unheard"):
        geometry = hf_config.read(WIDE | {"model_type": name})
        for profile in (transformers.Dynamic(), transformers.Static(), LlamaCpp(), Mlx()):
            known[name, profile.name] = evidence.known_by(profile, geometry)
    measured = {pair for pair, words in known.items() if words != evidence.FORMULA}
    assert {name for name, _ in measured} == {"gemma2", "olmo3"}
    assert {runtime for name, runtime in measured if name == "olmo3"} == {"transformers.dynamic"}
    assert len([pair for pair in measured if pair[0] == "gemma2"]) == 4


def test_the_families_of_the_table_are_those_that_the_tests_allocate() -> None:
    from harness.estimate import model_id

    rows = [model_id.read(model.row).family for model in model_id.RELEASED]
    assert set(rows) >= evidence.TABLED
