"""Geometry from Hugging Face configs: the spellings that exist, and the traps in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.estimate import hf_config, model_id
from harness.estimate.families import canonical
from harness.estimate.geometry import Geometry, GeometryError, Sure
from harness.estimate.hf_write import to_config
from harness.law import Layer


def config(**more: Any) -> dict[str, Any]:
    """A small Gemma 3 text config, flat; None drops a key."""
    base = {
        "model_type": "gemma3_text",
        "num_hidden_layers": 12,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window": 512,
    }
    return {key: value for key, value in (base | more).items() if value is not ...}


def windows(geometry: Geometry) -> list[int | None]:
    return [layer.law.window for layer in geometry.layers]


EVERY_SIXTH = [None if i % 6 == 5 else 512 for i in range(12)]
SLIDING, FULL = "sliding_attention", "full_attention"


@pytest.mark.parametrize("row", [model.row for model in model_id.RELEASED])
def test_a_config_of_every_model_reads_back(row: str) -> None:
    """A config written to JSON and read again has the same layers."""
    geometry = model_id.read(row)
    again = hf_config.read(json.loads(json.dumps(to_config(geometry))))
    assert (again.layers, again.family) == (geometry.layers, geometry.family)


def test_a_released_gemma_config_states_less_than_it_means() -> None:
    """Gemma 3 4B: nested, without pattern and heads; the facts say that files omit them."""
    text = {"model_type": "gemma3_text", "num_hidden_layers": 34, "sliding_window": 1024}
    geometry = hf_config.read(
        {"model_type": "gemma3", "text_config": {**text, "hidden_size": 2560}}
    )
    assert geometry.layers == model_id.read("gemma3-4b").layers
    sources = {fact.field: (fact.source, fact.sure) for fact in geometry.facts}
    assert sources["window"] == ("text_config.sliding_window", Sure.STATED)
    default = "gemma3_text: num_key_value_heads of its class in transformers"
    assert sources["kv heads"] == (default, Sure.FAMILY)
    assert sources["full layers"] == ("as the class of gemma3_text has it", Sure.FAMILY)


def test_what_files_leave_out_is_what_transformers_fills_in() -> None:
    from transformers import Gemma3TextConfig

    made = Gemma3TextConfig()
    geometry = hf_config.read({"model_type": "gemma3_text"})
    assert len(geometry.layers) == made.num_hidden_layers
    assert {x.kv_heads for x in geometry.layers} == {made.num_key_value_heads}
    assert {x.k_dim for x in geometry.layers} == {made.head_dim}
    assert {x.law.window for x in geometry.layers} == {made.sliding_window, None}
    assert all(fact.sure is Sure.FAMILY for fact in geometry.facts[1:])


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, EVERY_SIXTH),
        ({"sliding_window_pattern": 4}, [None if i % 4 == 3 else 512 for i in range(12)]),
        ({"_sliding_window_pattern": 3}, [None if i % 3 == 2 else 512 for i in range(12)]),
        ({"sliding_window_pattern": 1}, [None] * 12),
        ({"sliding_window_pattern": "LLG"}, [None if i % 3 == 2 else 512 for i in range(12)]),
        ({"sliding_window_pattern": None}, EVERY_SIXTH),
        ({"layer_types": [SLIDING] * 11 + [FULL]}, [512] * 11 + [None]),
        # The list of layers takes precedence over the period.
        (
            {"layer_types": [FULL] + [SLIDING] * 11, "sliding_window_pattern": 6},
            [None] + [512] * 11,
        ),
        ({"layer_types": [FULL] * 12}, [None] * 12),
        ({"sliding_window": None}, [None] * 12),
        ({"sliding_window": 0}, [None] * 12),
        ({"sliding_window": -1}, [None] * 12),
        ({"sliding_window": 512.0}, EVERY_SIXTH),
        ({"sliding_window": ...}, [4096 if w else None for w in EVERY_SIXTH]),
        ({"model_type": "olmo3"}, [None if i % 4 == 3 else 512 for i in range(12)]),
        ({"model_type": "vaultgemma"}, [None if i % 2 else 512 for i in range(12)]),
        (
            {"model_type": "qwen2_moe", "use_sliding_window": False, "sliding_window": 0},
            [None] * 12,
        ),
        ({"use_sliding_window": False}, [None] * 12),
        ({"use_sliding_window": False, "layer_types": [SLIDING] * 12}, [None] * 12),
        ({"use_sliding_window": True}, EVERY_SIXTH),
        ({"use_sliding_window": None}, EVERY_SIXTH),
        ({"model_type": "gemma", "sliding_window": ...}, [None] * 12),
        ({"model_type": "mistral"}, [512] * 12),
        ({"model_type": "gpt_oss"}, [None if i % 2 else 512 for i in range(12)]),
        ({"model_type": "cohere2"}, [None if i % 4 == 3 else 512 for i in range(12)]),
        ({"model_type": "qwen2", "use_sliding_window": False, "max_window_layers": 2}, [None] * 12),
        (
            {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 2},
            [None] * 2 + [512] * 10,
        ),
        (
            {"per_layer_config": {"3": {"sliding_window": 7}, "5": {"head_dim": 1}}},
            [7 if i == 3 else w for i, w in enumerate(EVERY_SIXTH)],
        ),
    ],
)
def test_windows(more: dict[str, Any], expected: list[int | None]) -> None:
    assert windows(hf_config.read(config(**more))) == expected
    nested = {"model_type": "outer", "sliding_window": 9, "text_config": config(**more)}
    assert windows(hf_config.read(nested)) == expected, "the decoder's part alone counts"


def test_chunks_of_llama_4() -> None:
    chunked, full = Layer(chunk=8192), Layer()
    base = {"model_type": "llama4_text", "attention_chunk_size": 8192, "sliding_window": ...}
    for more in ({}, {"no_rope_layers": []}, {"no_rope_layer_interval": 4}):
        geometry = hf_config.read(config(**base, **more))
        assert [x.law for x in geometry.layers] == [chunked, chunked, chunked, full] * 3
    geometry = hf_config.read(config(**base, no_rope_layers=[0, 1] * 6))
    assert [x.law for x in geometry.layers] == [full, chunked] * 6


def test_heads_and_widths_of_single_layers() -> None:
    """Full layers may be wider, and have fewer heads if keys serve as values.

    A list gives each layer's own figure.
    """
    base = {"model_type": "gemma4_text", "layer_types": ([SLIDING] * 5 + [FULL]) * 2}
    wide = hf_config.read(config(**base, global_head_dim=512, num_global_key_value_heads=2))
    assert [x.k_dim for x in wide.layers[4:6]] == [256, 512]
    assert [x.kv_heads for x in wide.layers[4:6]] == [4, 4], "used only with attention_k_eq_v"
    both = config(**base, num_global_key_value_heads=2, attention_k_eq_v=True)
    assert [x.kv_heads for x in hf_config.read(both).layers[4:6]] == [4, 2]
    listed = hf_config.read(config(num_key_value_heads=[*range(1, 13)]))
    assert [x.kv_heads for x in listed.layers] == [*range(1, 13)]
    single = hf_config.read(config(per_layer_config={"5": {"head_dim": 512}}))
    assert [x.k_dim for x in single.layers[4:7]] == [256, 512, 256]
    values = hf_config.read(config(v_head_dim=128))
    assert (values.layers[0].k_width, values.layers[0].v_width) == (4 * 256, 4 * 128)


def test_a_width_that_is_left_out_follows_from_the_hidden_size() -> None:
    base = {"model_type": "llama", "sliding_window": ..., "head_dim": ...}
    derived = hf_config.read(config(**base, hidden_size=4096, num_attention_heads=32))
    assert derived.layers[0].k_dim == 128
    sure = {fact.field: fact.sure for fact in derived.facts}
    assert sure["head_dim"] is Sure.DERIVED
    without = config(**base, num_key_value_heads=..., hidden_size=4096, num_attention_heads=32)
    assert hf_config.read(without).layers[0].kv_heads == 32


def test_other_spellings_of_the_number_of_heads() -> None:
    base = {"model_type": "falcon", "sliding_window": ..., "num_key_value_heads": ...}
    for more, heads in (
        ({"num_kv_heads": 8, "new_decoder_architecture": True, "num_attention_heads": 128}, 8),
        ({"num_kv_heads": 71, "multi_query": True}, 1),
        ({"multi_query": True, "num_attention_heads": 71}, 1),
        ({"multi_query": False, "num_attention_heads": 71}, 71),
    ):
        assert hf_config.read(config(**base, **more)).layers[0].kv_heads == heads


def test_layers_that_share_read_the_last_of_their_kind() -> None:
    kinds = [SLIDING, SLIDING, FULL] * 4
    geometry = hf_config.read(config(layer_types=kinds, num_kv_shared_layers=6))
    assert [x.reads for x in geometry.layers] == [None] * 6 + [4, 4, 5] * 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"sliding_window": True}, "sliding_window must be an integer in -1…2147483648, got True"),
        ({"sliding_window": -2}, "sliding_window must be an integer in -1…2147483648, got -2"),
        ({"sliding_window": "512"}, "sliding_window must be an integer in -1…2147483648, got '512"),
        (
            {"sliding_window": 512.5},
            "sliding_window must be an integer in -1…2147483648, got 512.5",
        ),
        ({"num_hidden_layers": ..., "model_type": "x"}, "num_hidden_layers is missing"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers must be an integer in 1…4096"),
        ({"num_hidden_layers": None}, "num_hidden_layers is missing"),
        ({"model_type": None}, "model_type is missing"),
        ({"model_type": 3}, "model_type must be a string of at most 200 characters, got 3"),
        ({"use_sliding_window": "no"}, "use_sliding_window must be true, false or null, got 'no'"),
        ({"layer_types": [FULL] * 11}, "layer_types must have one entry per layer, 12, got 11"),
        ({"layer_types": FULL}, "layer_types must be a list of 12, got 'full_attention'"),
        ({"layer_types": [FULL] * 11 + ["hashed"]}, "layer_types[11] must be one of"),
        (
            {"layer_types": [FULL] * 11 + ["linear_attention"]},
            "layer_types: layer 11 keeps a state (linear_attention), and its size in gemma3_text",
        ),
        (
            {"layer_types": [SLIDING] * 12, "sliding_window": None},
            "layer_types names sliding_attention layers, but sliding_window is None",
        ),
        ({"sliding_window_pattern": 0}, "sliding_window_pattern must be an integer in 1…"),
        ({"sliding_window_pattern": True}, "sliding_window_pattern must be an integer in 1…"),
        ({"sliding_window_pattern": "LXG"}, "sliding_window_pattern must be an integer in 1…"),
        ({"num_key_value_heads": [4] * 11}, "num_key_value_heads must have one entry per layer"),
        ({"num_key_value_heads": 0}, "num_key_value_heads must be an integer in 1…"),
        ({"num_kv_shared_layers": 12}, "num_kv_shared_layers must be an integer in 0…11"),
        ({"num_kv_shared_layers": 11, "layer_types": [SLIDING, FULL] * 6}, "a layer that shares"),
        ({"per_layer_config": {"12": {}}}, "per_layer_config must map layers to fields"),
        (
            {"per_layer_config": [{}] * 12},
            "per_layer_config must map layers to fields, got [{}, {}",
        ),
        ({"per_layer_config": "wide"}, "per_layer_config must map layers to fields, got 'wide'"),
        (
            {"model_type": "x" * 201},
            "model_type must be a string of at most 200 characters, got 'x",
        ),
        ({"kv_lora_rank": 512}, "qk_rope_head_dim is missing"),
        ({"model_type": "x"}, "sliding_window is set, but which layers of 'x' slide is not known"),
        ({"model_type": "rembert", "is_encoder_decoder": True}, "only decoders are counted"),
        ({"model_type": "bart"}, "is_encoder_decoder is true: only decoders are counted"),
        ({"model_type": "xlnet"}, "xlnet is not counted: it caches hidden states of segments"),
        ({"cla_share_factor": 2}, "cla_share_factor is set, looks as if it changed what gemma3_t"),
        ({"swa_num_heads": 2}, "swa_num_heads is set, looks as if it changed"),
        ({"hybrid_layer_pattern": [0, 1]}, "hybrid_layer_pattern is set, looks as if"),
        ({"is_encoder_decoder": True}, "only decoders are counted"),
        (
            {"mamba_d_state": 16, "model_type": "x", "sliding_window": ...},
            "mamba_d_state is set: only decoders whose layers all cache",
        ),
        ({"multi_query": 1, "num_key_value_heads": ...}, "multi_query must be true, false or null"),
        (
            {
                "model_type": "x",
                "sliding_window": ...,
                "head_dim": ...,
                "hidden_size": 10,
                "num_attention_heads": 3,
            },
            "head_dim is missing, and hidden_size 10 is not a multiple of num_attention_heads 3",
        ),
    ],
)
def test_what_cannot_be_told_is_one_line(more: dict[str, Any], message: str) -> None:
    with pytest.raises(GeometryError) as caught:
        hf_config.read(config(**more), "my-config")
    assert message in str(caught.value)
    assert str(caught.value).startswith("my-config: ")
    assert "\n" not in str(caught.value)


def test_files(tmp_path: Path) -> None:
    """A config.json and its folder are read; anything else is refused."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config()), encoding="utf-8")
    assert hf_config.read_file(path).layers == hf_config.read_file(tmp_path).layers
    for text, message in (
        ("{", "not a JSON file"),
        ("[1]", "must hold a JSON object, got list"),
        ("[" * 100_000, "not a JSON file"),
        ("\udcff", "not a JSON file"),
    ):
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(GeometryError, match=message):
            hf_config.read_file(path)
    with pytest.raises(GeometryError, match="cannot be read"):
        hf_config.read_file(tmp_path / "none.json")
    with pytest.raises(GeometryError, match="must be a mapping or a config, got int"):
        hf_config.read(3)


def test_config_objects_of_transformers() -> None:
    """Any object with to_dict() is read, including nested configs."""
    from transformers import Gemma3Config, Gemma4TextConfig, Qwen2Config

    outer = Gemma3Config(text_config={"num_hidden_layers": 7, "sliding_window": 1024})
    assert windows(hf_config.read(outer)) == [1024] * 5 + [None, 1024]
    wide = Gemma4TextConfig(num_hidden_layers=6, global_head_dim=512, attention_k_eq_v=True)
    assert [x.k_dim for x in hf_config.read(wide).layers] == [256] * 5 + [512]
    qwen = Qwen2Config(num_hidden_layers=4, use_sliding_window=True, max_window_layers=3)
    assert windows(hf_config.read(qwen)) == [None] * 3 + [4096]
    assert windows(hf_config.read(Qwen2Config(num_hidden_layers=4))) == [None] * 4


def test_families_are_compared_whole() -> None:
    spellings = ("gemma3", "gemma3_text", "Gemma3ForCausalLM", "Gemma3ForConditionalGeneration")
    assert {canonical(name) for name in spellings} == {"gemma3"}
    assert {canonical(n) for n in ("gpt_oss", "gpt-oss", "GptOssForCausalLM")} == {"gpt-oss"}
    assert canonical("gemma") == canonical("GemmaForCausalLM") == "gemma"
    assert canonical("llama") == canonical("LlamaForCausalLM") == "llama"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@given(
    st.sampled_from(
        [
            *config(),
            "layer_types",
            "text_config",
            "per_layer_config",
            "sliding_window_pattern",
            "no_rope_layers",
            "architectures",
            "attention_chunk_size",
            "num_kv_shared_layers",
        ]
    ),
    JSON,
)
def test_no_value_of_any_key_ends_in_a_traceback(key: str, value: Any) -> None:
    """A geometry, or a GeometryError; any other exception fails."""
    try:
        geometry = hf_config.read(config(**{key: value}))
    except GeometryError:
        return
    assert all(
        (layer.kv_heads > 0 and layer.k_dim > 0) or layer.kind in {"state", "nothing"}
        for layer in geometry.layers
    )
