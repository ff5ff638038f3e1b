"""Headline figures of the work that this harness grew out of, reproduced as integers.

Each test shows the arithmetic, and holds the bytes that a scheme of ours allocates to it.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from harness.cases.models import PUBLISHED, Model
from harness.estimate.profiles import Heuristic, Ideal, LlamaCpp, Request
from harness.estimate.resolve import resolve
from harness.law import Layer
from harness.schemes.static.cache import StaticLayout, resolve_cache_lens

GB, MB, KIB = 10**9, 10**6, 2**10


def cache_bytes(model: Model, cache_lens: list[int]) -> int:
    """Bytes of the fp16 caches that the static scheme would allocate."""
    layout = StaticLayout(model, tuple(cache_lens), dtype=torch.float16)
    with torch.device("meta"):  # shapes without memory
        caches = [*layout.empty_caches("k").values(), *layout.empty_caches("v").values()]
    total = sum(cache.nbytes for cache in caches)
    assert total == sum(layout.layer_bytes(i) for i in range(model.n_layers))
    return total


def test_a_window_halves_the_cache_of_32_layers() -> None:
    """pytorch/executorch#19250: 32 layers, 8 kv heads of 128, fp16: 1.07 GB to 0.54 GB."""
    model = PUBLISHED["mistral-7b-v0.1"]
    assert (model.n_layers, model.n_kv_heads, model.head_dim) == (32, 8, 128)
    slot = 8 * 128 * 2 * 2  # kv heads, head_dim, key and value, 2 bytes
    # A context of 8192 cached positions; less a chunk of 32, which is not in the cache; a window.
    for input_len, window, slots, expected, shown in (
        (0, None, 8192, 1_073_741_824, 1.07),
        (32, None, 8160, 1_069_547_520, 1.07),
        (32, 4096, 4096, 536_870_912, 0.54),
    ):
        lens = resolve_cache_lens(32, 8192, input_len, window) if input_len else [8192] * 32
        assert lens == [slots] * 32
        assert cache_bytes(model, lens) == 32 * slots * slot == expected
        assert round(expected / GB, 2) == shown


def test_the_e2b_example_counts_keys_alone_in_units_of_1000_kib() -> None:
    """pytorch/executorch#19251: Gemma 4 E2B at 8192, window 4096, pattern 5: 143 MB to 86 MB.

    The figures hold for 35 caches of 1 head of 256, at 2 bytes per position and element: keys
    without values (or both at one byte each), counted in units of 1000 KiB = 1,024,000 bytes.
    With keys and values in fp16 they are twice as large; the saving, 40 %, is the same.
    """
    full = resolve_cache_lens(35, 8192, 32)
    hybrid = resolve_cache_lens(35, 8192, 32, 4096, 5)
    assert (full.count(8160), hybrid.count(4096), hybrid.count(8160)) == (35, 28, 7)
    per_position = 1 * 256 * 2
    before, after = sum(full) * per_position, sum(hybrid) * per_position
    assert before == 35 * 8160 * 512 == 146_227_200
    assert after == (28 * 4096 + 7 * 8160) * 512 == 87_965_696
    assert (round(before / (1000 * KIB)), round(after / (1000 * KIB))) == (143, 86)
    assert round(100 * (1 - after / before)) == 40
    # What a runner would allocate for such a model, keys and values:
    model = Model("35x1x256", "gemma4", ("full_attention",) * 35, n_kv_heads=1, head_dim=256)
    assert cache_bytes(model, full) == 2 * before == 292_454_400
    assert cache_bytes(model, hybrid) == 2 * after == 175_931_392


def test_the_real_e2b_owns_fifteen_caches() -> None:
    """Gemma 4 E2B: 20 of 35 layers share, 3 of 15 caches are full and twice as wide, window 512.

    At 8192 cached positions: 151 MB if every layer kept them all, 56.6 MB with the window.
    """
    model = PUBLISHED["gemma4-e2b"]
    full = resolve_cache_lens(35, 8193, 1)
    hybrid = resolve_cache_lens(35, 8193, 1, model.window, layer_types=model.layer_types)
    assert hybrid == resolve_cache_lens(35, 8193, 1, 512, 5)
    assert len(model.cached_layers) == 15
    both, wide, narrow = 2 * 2, 3 * 512, 12 * 256  # key and value at 2 bytes; elements a position
    assert cache_bytes(model, full) == 8192 * (wide + narrow) * both == 150_994_944
    assert cache_bytes(model, hybrid) == (8192 * wide + 512 * narrow) * both == 56_623_104
    assert (round(150_994_944 / MB), round(56_623_104 / MB, 1)) == (151, 56.6)


def test_the_rule_of_thumb_gives_its_figures_and_the_true_ones_are_five_times_as_large() -> None:
    """Andyyyy64/whichllm#124: Gemma 3 27B at 128K, 12.68 GB to 2.20 GB; Mistral 7B, 3.29 GB.

    27 and 7 billion parameters, 3.5 MiB for each of them and 1024 positions; a window of 1024
    leaves 1/6 * 131072 + 5/6 * 1024 positions.  Mistral's window is not honoured: unchanged.
    """
    gemma, mistral = resolve("gemma-3-27b"), resolve("mistral-7b-v0.1")
    request, per_billion = Request(131_072), 128 * 3_670_016
    dense = replace(gemma, layers=tuple(replace(x, law=Layer()) for x in gemma.layers))
    assert Heuristic(27).total(dense, request) == 27 * per_billion == 12_683_575_296
    assert Heuristic(27).total(gemma, request) == 2_196_504_575
    assert Heuristic(7).total(mistral, request) == 7 * per_billion == 3_288_334_336
    # What llama.cpp allocates, and the least that the answers need: keys and values in fp16.
    full, slot = 10 * 131_072, 16 * (128 + 128) * 2
    assert LlamaCpp().total(gemma, request) == (52 * (1024 + 512) + full) * slot == 11_391_729_664
    assert Ideal().total(gemma, request) == (52 * 1024 + full) * slot == 11_173_625_856
    slot = 8 * (128 + 128) * 2
    assert LlamaCpp().total(mistral, request) == 32 * 131_072 * slot == 17_179_869_184
    assert Ideal().total(mistral, request) == 32 * 4096 * slot == 536_870_912
    for estimate, true in ((2_196_504_575, 11_391_729_664), (3_288_334_336, 17_179_869_184)):
        assert round(true / estimate, 1) == 5.2
