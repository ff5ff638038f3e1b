"""The sink ring's options: two numbers of a flag, or a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.law import Layer
from harness.schemes.sink.config import EXAMPLE, load_config, parse_attention_sink


def test_two_numbers_make_a_law() -> None:
    assert parse_attention_sink("4,124") == Layer(window=124, sink=4)
    assert parse_attention_sink(" 0 , 8 ") == Layer(window=8)


@pytest.mark.parametrize(
    "text",
    ["4", "4,124,1", "4,2048,1024", "-1,8", "4,-8", "4,0", "a,8", "4.0,8", "", ",", "4,", None, 4],
)
def test_anything_else_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"use_attention_sink .* got"):
        parse_attention_sink(text)


def test_the_example_config_makes_a_cache() -> None:
    config = load_config(EXAMPLE)
    assert config.layer == Layer(window=124, sink=4)
    cache = config.new_cache(batch=1, n_kv_heads=2, head_dim=4)
    k = torch.zeros(1, 2, 32, 4, dtype=torch.float16)
    keys, _, mask = cache.update(k, k)
    assert keys.dtype == torch.float16
    assert mask.shape == (32, 4 + 123 + 32)


@pytest.mark.parametrize(
    ("match", "option"),
    [
        ("use_kv_cache must be true", {"use_kv_cache": False}),
        ("use_sdpa_with_kv_cache must be false", {"use_sdpa_with_kv_cache": True}),
        ("quantize_kv_cache must be false", {"quantize_kv_cache": True}),
        ("use_kv_cache must be true .* got 'yes'", {"use_kv_cache": "yes"}),
        ("eviction_batch_size.*evicts nothing", {"eviction_batch_size": 16}),
        ("sliding_window.*second number", {"sliding_window": 8}),
        ("unknown option 'sinks': known: use_attention_sink", {"sinks": 4}),
        (r"ring .*>= 11, got 10", {"ring": 10, "max_chunk": 4}),
        ("max_chunk .* got 0", {"max_chunk": 0}),
        ("dtype must be one of", {"dtype": "int8"}),
        ('use_attention_sink must be "<sink>,<window>"', {"use_attention_sink": "4,8,2"}),
    ],
)
def test_options_that_do_not_hold_together_are_refused(
    match: str, option: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=match):
        load_config({"use_attention_sink": "4,8", **option})


@pytest.mark.parametrize(
    ("match", "text"),
    [
        ("is not YAML", "use_attention_sink: ["),
        ("must hold a mapping", "- 4\n- 8\n"),
        ("use_attention_sink is missing", "max_chunk: 4\n"),
    ],
)
def test_a_file_that_cannot_be_read_as_options_is_refused(
    match: str, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "sink.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=match):
        load_config(path)
    with pytest.raises(ValueError, match=r"cannot read .*absent\.yaml"):
        load_config(tmp_path / "absent.yaml")
