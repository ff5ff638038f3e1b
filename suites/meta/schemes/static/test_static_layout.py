"""What a static cache is before it runs: its lengths, and what it tells a runner."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils import _pytree as pytree

from harness.cases.models import PUBLISHED, pattern_types, tiny
from harness.law import Layer
from harness.reference.decoder import make_weights
from harness.schemes.static.cache import (
    StaticDecoder,
    StaticLayout,
    cache_specs,
    example_inputs,
    mask_specs,
    metadata,
    model_cache_lens,
    resolve_cache_len,
    resolve_cache_lens,
)
from harness.schemes.static.layout import Style

VOCAB = 64
STYLES: tuple[Style, ...] = ("shift_pointer", "smart_mask")

# ── cache lengths ───────────────────────────────────────────────────────────────────────────────


def test_a_cache_is_the_context_less_the_chunk_capped_at_the_window() -> None:
    assert resolve_cache_len(8192, 32) == 8160
    assert resolve_cache_len(8192, 32, 4096) == 4096
    assert resolve_cache_len(4100, 32, 4096) == 4068  # the context ends before the window does
    assert resolve_cache_len(4096, 1, 4096) == 4095


def test_every_layer_slides_without_a_pattern_and_none_without_a_window() -> None:
    assert resolve_cache_lens(4, 1024, 16, sliding_window=256) == [256] * 4
    assert resolve_cache_lens(4, 1024, 16) == [1008] * 4


@pytest.mark.parametrize(
    ("name", "n_layers", "pattern", "sliding", "full"),
    [
        ("gemma4-e2b", 35, 5, 28, 7),
        ("gemma3-1b", 26, 6, 22, 4),
        ("gemma4-26b", 30, 6, 25, 5),
        ("gemma2-2b", 26, 2, 13, 13),
    ],
)
def test_a_pattern_puts_full_layers_where_the_model_has_them(
    name: str, n_layers: int, pattern: int, sliding: int, full: int
) -> None:
    lens = resolve_cache_lens(n_layers, 8192, 64, 512, pattern)
    assert (lens.count(512), lens.count(8128)) == (sliding, full)
    kinds = PUBLISHED[name].layer_types
    assert [n == 8128 for n in lens] == [kind == "full_attention" for kind in kinds]
    assert lens == resolve_cache_lens(n_layers, 8192, 64, 512, layer_types=kinds)


def test_gemma3_slides_five_times_before_each_full_layer() -> None:
    assert resolve_cache_lens(7, 40, 8, 16, 6) == [16, 16, 16, 16, 16, 32, 16]


@pytest.mark.parametrize(
    ("match", "kwargs"),
    [
        ("sliding_window_pattern=5 needs a sliding_window", {"sliding_window_pattern": 5}),
        ("sliding_window_pattern .* got 1", {"sliding_window": 8, "sliding_window_pattern": 1}),
        ("sliding_window_pattern .* got 0", {"sliding_window": 8, "sliding_window_pattern": 0}),
        ("sliding_window_pattern .* True", {"sliding_window": 8, "sliding_window_pattern": True}),
        ("sliding_window .* got 0", {"sliding_window": 0}),
        ("sliding_window .* got -4", {"sliding_window": -4}),
        ("sliding_window .* True", {"sliding_window": True}),
        ("at most max_context_len=64, got 65", {"sliding_window": 65}),
        ("n_layers .* got 0", {"n_layers": 0}),
        ("input_len .* got 0", {"input_len": 0}),
        ("smaller than max_context_len=64, got 64", {"input_len": 64}),
        ("max_context_len .* got 0", {"max_context_len": 0}),
        ("n_layers=3 layers, got 2", {"layer_types": ["full_attention"] * 2}),
        (r"layer_types\[0\] is sliding", {"layer_types": ["sliding_attention"] * 3}),
        (r"layer_types\[1\] .*'global'", {"layer_types": ["full_attention", "global", "x"]}),
        (
            "say the same thing twice",
            {
                "sliding_window": 8,
                "sliding_window_pattern": 3,
                "layer_types": ["full_attention"] * 3,
            },
        ),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(match: str, kwargs: dict[str, object]) -> None:
    options: dict[str, object] = {"n_layers": 3, "max_context_len": 64, "input_len": 4, **kwargs}
    with pytest.raises(ValueError, match=match):
        resolve_cache_lens(**options)  # type: ignore[arg-type]


def test_lengths_by_the_law_are_those_of_the_options() -> None:
    model = tiny("gemma3")
    assert list(model_cache_lens(model, 64, 4)) == resolve_cache_lens(
        model.n_layers, 64, 4, model.window, layer_types=model.layer_types
    )


# ── what a runner is told ───────────────────────────────────────────────────────────────────────


def twelve_layers(split_heads: bool = False, transpose_k: bool = False) -> StaticLayout:
    """With more than ten layers, "l10" sorts before "l2" as text."""
    model = replace(tiny("gemma4-e2b"), layer_types=pattern_types(12, 5), n_shared=0, name="twelve")
    lens = model_cache_lens(model, 40, 4)
    return StaticLayout(model, lens, split_heads=split_heads, transpose_k=transpose_k)


def test_a_cache_length_is_read_from_its_example_tensor() -> None:
    layout = twelve_layers(transpose_k=True)
    specs = {spec.name: spec for spec in cache_specs(layout, example_inputs(layout, 4))}
    assert list(specs) == [f"l{i}" for i in range(12)]
    assert [spec.cache_len for spec in specs.values()] == [8, 8, 8, 8, 36, 8, 8, 8, 8, 36, 8, 8]


@pytest.mark.parametrize("split_heads", [False, True])
def test_specs_point_at_the_exported_program_s_inputs_and_outputs(split_heads: bool) -> None:
    layout = twelve_layers(split_heads=split_heads)
    graph = StaticDecoder(layout, make_weights(layout.model, VOCAB, 1))
    inputs = example_inputs(layout, 4)
    program = torch.export.export(graph, inputs, strict=False)
    flat_in = pytree.tree_leaves(inputs)
    flat_out = pytree.tree_leaves(program.module()(*inputs))
    assert len(flat_in) == len(program.graph_signature.user_inputs)
    assert len(flat_out) == len(program.graph_signature.user_outputs)
    _, new_k, new_v = graph(*inputs)
    for spec in cache_specs(layout, inputs):
        assert flat_in[spec.k_input] is inputs[3][spec.name]
        assert flat_in[spec.v_input] is inputs[4][spec.name]
        assert flat_out[spec.k_output].equal(new_k[spec.name])
        assert flat_out[spec.v_output].equal(new_v[spec.name])
    for mask in mask_specs(inputs):
        assert flat_in[mask.input] is inputs[1][mask.name]
        assert mask.cache_len == layout.masks[mask.name][0]


def test_methods_of_one_program_share_the_caches() -> None:
    layout = StaticLayout(tiny("gemma4-e2b"), (8,) * 10)
    described = metadata(layout, {"prefill": 4, "decode": 1})
    prefill, decode = (described["methods"][name] for name in ("prefill", "decode"))
    assert prefill["kv_cache_specs"] == decode["kv_cache_specs"]
    assert (prefill["input_len"], decode["input_len"]) == (4, 1)
    assert described["cache_bytes"] == [layout.layer_bytes(i) for i in range(10)]
    assert metadata(layout, {"forward": 4})["methods"]["forward"] == prefill
    with pytest.raises(ValueError, match="at least one method"):
        metadata(layout, {})


def test_layers_that_share_own_no_cache_and_full_layers_have_their_own_width() -> None:
    model = tiny("gemma4-e2b")
    layout = StaticLayout(model, model_cache_lens(model, 40, 4))
    names = [name for i in range(model.n_layers) for name in layout.cache_names(i)]
    assert names == [f"l{i}" for i in model.cached_layers]
    assert layout.cache_shape(0, "k") == (1, 1, 8, 16)
    assert layout.cache_shape(4, "k") == (1, 1, 36, 32)
    assert layout.layer_bytes(0) == 2 * 8 * 16 * 4
    assert layout.layer_bytes(4) == 2 * 36 * 32 * 4
    assert layout.layer_bytes(model.n_layers - 1) == 0


def test_equal_lengths_under_different_laws_have_different_masks() -> None:
    layout = StaticLayout(tiny("gemma3"), (8,) * 6)
    assert layout.masks == {"c8w8": (8, Layer(window=8)), "c8": (8, Layer())}
