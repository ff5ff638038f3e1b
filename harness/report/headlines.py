"""The headline figures and the sums that give them, computed when the page is made.

These sums are written nowhere else; `suites/test_headlines.py` compares their results with the
bytes that the schemes allocate and with the figures as they were published.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from math import prod

from harness.cases.models import PUBLISHED
from harness.estimate.profiles import Heuristic, Ideal, LlamaCpp, Request
from harness.estimate.resolve import resolve
from harness.law import Layer
from harness.schemes.static.cache import resolve_cache_lens

_GB, _MB, _UNIT_1000_KIB = 10**9, 10**6, 1_024_000
_F16 = 2

Products = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Headline:
    """A figure that people rely on.  of: what it measures.  arithmetic: the sum that gives it."""

    of: str
    arithmetic: str
    nbytes: int
    shown: str


def headlines() -> list[Headline]:
    """All headlines, in the order of the page."""
    return [*_uniform(), *_example(), *_e2b(), *_estimates()]


def _uniform() -> list[Headline]:
    """pytorch/executorch#19250: 32 layers with 8 kv heads of width 128, in fp16."""
    model = PUBLISHED["mistral-7b-v0.1"]
    slot = model.n_kv_heads * model.head_dim * 2 * _F16
    out = []
    for of, slots in (("8192 positions", 8192), ("a window of 4096", 4096)):
        text, total = _sum(((model.n_layers, slots, slot),))
        text += ": layers × slots × bytes (8 heads × 128 × key and value × 2)"
        out.append(Headline(f"32 layers, {of}", text, total, f"{total / _GB:.2f} GB"))
    return out


def _example() -> list[Headline]:
    """pytorch/executorch#19251: its example for Gemma 4 E2B, in the units that reproduce it."""
    per_slot = 1 * 256 * _F16
    out = []
    for of, lens in (
        ("all layers full", resolve_cache_lens(35, 8192, 32)),
        ("window 4096, every fifth full", resolve_cache_lens(35, 8192, 32, 4096, 5)),
    ):
        text, total = _sum(tuple((lens.count(x), x, per_slot) for x in sorted(set(lens))))
        text += ": layers × slots × bytes, keys alone, 35 caches, units of 1000 KiB"
        shown = f"{total / _UNIT_1000_KIB:.0f} MB"
        out.append(Headline(f"E2B as in the example, {of}", text, total, shown))
    return out


def _e2b() -> list[Headline]:
    """The published Gemma 4 E2B: most layers have no cache, and its full layers are wider."""
    model, context = PUBLISHED["gemma4-e2b"], 8192
    full = [i for i in model.cached_layers if model.layers[i].window is None]
    sliding = [i for i in model.cached_layers if model.layers[i].window is not None]
    wide, narrow = (
        2 * _F16 * model.layer_kv_heads(at[0]) * model.layer_head_dim(at[0])
        for at in (full, sliding)
    )
    out = []
    for of, slots in (("all positions kept", context), ("its window", model.window or context)):
        text, total = _sum(((len(full), context, wide), (len(sliding), slots, narrow)))
        text += ": full and sliding layers with a cache × slots × bytes"
        out.append(Headline(f"E2B as published, {of}", text, total, f"{total / _MB:.1f} MB"))
    return out


def _estimates() -> list[Headline]:
    """Andyyyy64/whichllm#124: the rule of thumb at 128K, next to what llama.cpp allocates."""
    request = Request(131_072)
    out = []
    for name, billions in (("gemma-3-27b", 27), ("mistral-7b-v0.1", 7)):
        geometry, rule = resolve(name), Heuristic(billions)
        dense = replace(geometry, layers=tuple(replace(x, law=Layer()) for x in geometry.layers))
        text, _ = _sum(((billions, request.context // 1024, 3_670_016),))
        text += ": billions of parameters × 1024 positions × 3.5 MiB"
        windows = "the same, at the effective context of the windows that it honours"
        cells, allocated = _by_layer(LlamaCpp().layer_bytes(geometry, request))
        slots, least = _by_layer(Ideal().layer_bytes(geometry, request))
        for of, arithmetic, total in (
            ("rule of thumb, no window", text, rule.total(dense, request)),
            ("rule of thumb", windows, rule.total(geometry, request)),
            ("what llama.cpp allocates", cells, allocated),
            ("the least that answers need", slots, least),
        ):
            share = "" if total == allocated else f", {total / allocated:.2f} of llama.cpp's"
            shown = f"{total / _GB:.2f} GB{share}"
            out.append(Headline(f"{name}, {of}", arithmetic, total, shown))
    return out


def _by_layer(layer_bytes: list[int]) -> tuple[str, int]:
    """The sum over layers, with layers of equal size in one term."""
    text, total = _sum(tuple((n, size) for size, n in Counter(layer_bytes).items()))
    return f"{text}: layers × bytes of each, keys and values in fp16", total


def _sum(products: Products) -> tuple[str, int]:
    """A sum of products, as text and as a number."""
    text = " + ".join(" × ".join(f"{factor:,}" for factor in factors) for factors in products)
    return text, sum(map(prod, products))
