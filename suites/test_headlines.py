"""Headline figures of the work that this harness grew out of, reproduced as integers.

The sums are those of the report page, `harness.report.headlines`.  Each test pins a sum as it is
written there, its result, and how that is shown, and compares the result with the bytes that one of
our schemes allocates or a profile predicts.
"""

from __future__ import annotations

import torch

from harness.cases.models import PUBLISHED, Model
from harness.estimate.profiles import Heuristic, Ideal, LlamaCpp, Request
from harness.estimate.resolve import resolve
from harness.report.headlines import headlines
from harness.schemes.static.cache import StaticLayout, resolve_cache_lens

HEADLINES = {headline.of: headline for headline in headlines()}


def figure(of: str, arithmetic: str, shown: str) -> int:
    """The bytes of a headline, whose sum must be written out and shown like this."""
    found = HEADLINES[of]
    assert (found.arithmetic.partition(":")[0], found.shown) == (arithmetic, shown)
    return found.nbytes


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
    # A slot: 8 kv heads × 128 × key and value × 2 bytes = 4096 bytes.
    before = figure("32 layers, 8192 positions", "32 × 8,192 × 4,096", "1.07 GB")
    after = figure("32 layers, a window of 4096", "32 × 4,096 × 4,096", "0.54 GB")
    assert cache_bytes(model, [8192] * 32) == before == 1_073_741_824
    assert resolve_cache_lens(32, 8192, 32, 4096) == [4096] * 32
    assert cache_bytes(model, [4096] * 32) == after == 536_870_912
    # The scheme's own caches leave out a chunk of 32, whose keys are not cached: also 1.07 GB.
    assert resolve_cache_lens(32, 8192, 32) == [8160] * 32
    assert cache_bytes(model, [8160] * 32) == 1_069_547_520


def test_the_e2b_example_counts_keys_alone_in_units_of_1000_kib() -> None:
    """pytorch/executorch#19251: Gemma 4 E2B at 8192, window 4096, pattern 5: 143 MB to 86 MB.

    The figures hold for 35 caches of 1 head of 256, at 2 bytes per position and element: keys
    without values (or both at one byte each), counted in units of 1000 KiB = 1,024,000 bytes.
    With keys and values in fp16 they are twice as large; the saving, 40 %, is the same.
    """
    of = "E2B as in the example"
    before = figure(f"{of}, all layers full", "35 × 8,160 × 512", "143 MB")
    sums = "28 × 4,096 × 512 + 7 × 8,160 × 512"
    after = figure(f"{of}, window 4096, every fifth full", sums, "86 MB")
    assert (before, after) == (146_227_200, 87_965_696)
    assert round(100 * (1 - after / before)) == 40
    # What a runner would allocate for such a model, keys and values:
    model = Model("35x1x256", "gemma4", ("full_attention",) * 35, n_kv_heads=1, head_dim=256)
    full = resolve_cache_lens(35, 8192, 32)
    hybrid = resolve_cache_lens(35, 8192, 32, 4096, 5)
    assert cache_bytes(model, full) == 2 * before == 292_454_400
    assert cache_bytes(model, hybrid) == 2 * after == 175_931_392


def test_the_real_e2b_owns_fifteen_caches() -> None:
    """Gemma 4 E2B: 20 of 35 layers share, 3 of 15 caches are full and twice as wide, window 512.

    At 8192 cached positions: 151 MB if every layer kept them all, 56.6 MB with the window.
    """
    model = PUBLISHED["gemma4-e2b"]
    assert len(model.cached_layers) == 15
    # A slot: key and value of 512 or of 256 elements, × 2 bytes = 2048 or 1024 bytes.
    of, full_sum = "E2B as published", "3 × 8,192 × 2,048 + 12 × 8,192 × 1,024"
    before = figure(f"{of}, all positions kept", full_sum, "151.0 MB")
    windowed = "3 × 8,192 × 2,048 + 12 × 512 × 1,024"
    after = figure(f"{of}, its window", windowed, "56.6 MB")
    full = resolve_cache_lens(35, 8193, 1)
    hybrid = resolve_cache_lens(35, 8193, 1, model.window, layer_types=model.layer_types)
    assert hybrid == resolve_cache_lens(35, 8193, 1, 512, 5)
    assert cache_bytes(model, full) == before == 150_994_944
    assert cache_bytes(model, hybrid) == after == 56_623_104


def test_the_rule_of_thumb_gives_its_figures() -> None:
    """Andyyyy64/whichllm#124: Gemma 3 27B at 128K, 12.68 GB to 2.20 GB; Mistral 7B, 3.29 GB.

    27 and 7 billion parameters, 3.5 MiB for each of them and 1024 positions; a window of 1024
    leaves 1/6 * 131072 + 5/6 * 1024 positions.  Mistral's window is not honoured: unchanged.
    """
    request = Request(131_072)
    dense = figure(
        "gemma-3-27b, rule of thumb, no window",
        "27 × 128 × 3,670,016",
        "12.68 GB, 1.11 of llama.cpp's",
    )
    assert dense == 27 * 128 * 3_670_016 == 12_683_575_296
    windows = "the same, at the effective context of the windows that it honours"
    gemma = figure("gemma-3-27b, rule of thumb", windows, "2.20 GB, 0.19 of llama.cpp's")
    assert Heuristic(27).total(resolve("gemma-3-27b"), request) == gemma == 2_196_504_575
    mistral = figure("mistral-7b-v0.1, rule of thumb", windows, "3.29 GB, 0.19 of llama.cpp's")
    assert Heuristic(7).total(resolve("mistral-7b-v0.1"), request) == mistral == 3_288_334_336
    assert mistral == 7 * 128 * 3_670_016


def test_the_true_figures_are_five_times_as_large() -> None:
    """What llama.cpp allocates, and the least that right answers need: keys and values in fp16.

    Gemma 3 27B: slots of 16 heads × (128 + 128) × 2 = 8192 bytes, 131,072 of them in 10 full
    layers; in 52 sliding ones llama.cpp keeps the window and a micro-batch, 1024 + 512.
    Mistral 7B: slots of 4096 bytes; llama.cpp does not know its window of 4096.
    """
    request = Request(131_072)
    gemma, mistral = resolve("gemma-3-27b"), resolve("mistral-7b-v0.1")
    full, slot, small = 10 * 131_072, 16 * (128 + 128) * 2, 8 * (128 + 128) * 2
    for name, geometry, of_llama, of_ideal in (
        ("gemma-3-27b", gemma, (52 * (1024 + 512) + full) * slot, (52 * 1024 + full) * slot),
        ("mistral-7b-v0.1", mistral, 32 * 131_072 * small, 32 * 4096 * small),
    ):
        allocated = HEADLINES[f"{name}, what llama.cpp allocates"].nbytes
        assert LlamaCpp().total(geometry, request) == allocated == of_llama
        least = HEADLINES[f"{name}, the least that answers need"].nbytes
        assert Ideal().total(geometry, request) == least == of_ideal
        rule = HEADLINES[f"{name}, rule of thumb"].nbytes
        assert round(allocated / rule, 1) == 5.2
    assert HEADLINES["gemma-3-27b, what llama.cpp allocates"].shown == "11.39 GB"
