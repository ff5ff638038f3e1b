"""The headline figures with their arithmetic, computed when the page is made."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.cases.models import PUBLISHED
from harness.estimate.profiles import Heuristic, Ideal, LlamaCpp, Request
from harness.estimate.resolve import resolve
from harness.law import Layer
from harness.schemes.static.cache import resolve_cache_lens

_GB, _MB, _UNIT_1000_KIB = 10**9, 10**6, 1_024_000
_F16 = 2


@dataclass(frozen=True)
class Headline:
    """A figure that somebody relies on: what it is of, the sum behind it, and how it is shown."""

    of: str
    arithmetic: str
    nbytes: int
    shown: str


def headlines() -> list[Headline]:
    """Every headline; `suites/test_headlines.py` holds each to what is allocated."""
    return [*_uniform(), *_example(), *_e2b(), *_estimates()]


def _uniform() -> list[Headline]:
    """pytorch/executorch#19250: 32 layers of 8 kv heads of 128 in fp16."""
    model = PUBLISHED["mistral-7b-v0.1"]
    n, slot = model.n_layers, model.n_kv_heads * model.head_dim * 2 * _F16
    out = []
    for of, slots in (("8192 positions", 8192), ("a window of 4096", 4096)):
        total = n * slots * slot
        text = f"{n} layers × {slots:,} slots × {slot:,} bytes (8 heads × 128 × key and value × 2)"
        out.append(Headline(f"32 layers, {of}", text, total, f"{total / _GB:.2f} GB"))
    return out


def _example() -> list[Headline]:
    """pytorch/executorch#19251: the example for Gemma 4 E2B, by the convention that gives it."""
    per_slot = 1 * 256 * _F16
    out = []
    for of, lens in (
        ("all layers full", resolve_cache_lens(35, 8192, 32)),
        ("window 4096, every fifth full", resolve_cache_lens(35, 8192, 32, 4096, 5)),
    ):
        total = sum(lens) * per_slot
        counts = " + ".join(f"{lens.count(x)} × {x:,}" for x in sorted(set(lens)))
        text = f"({counts}) slots × {per_slot} bytes: keys alone, 35 caches, units of 1000 KiB"
        shown = f"{total / _UNIT_1000_KIB:.0f} MB"
        out.append(Headline(f"E2B as in the example, {of}", text, total, shown))
    return out


def _e2b() -> list[Headline]:
    """The published Gemma 4 E2B: most of its layers have no cache, its full ones are wider."""
    model, context = PUBLISHED["gemma4-e2b"], 8192
    full = [i for i in model.cached_layers if model.layers[i].window is None]
    sliding = [i for i in model.cached_layers if model.layers[i].window is not None]
    widths = [
        sum(2 * _F16 * model.layer_kv_heads(i) * model.layer_head_dim(i) for i in at)
        for at in (full, sliding)
    ]
    out = []
    for of, slots in (("all positions kept", context), ("its window", model.window or context)):
        total = context * widths[0] + slots * widths[1]
        text = (
            f"{len(full)} full caches: {context:,} × {widths[0]:,} bytes; "
            f"{len(sliding)} sliding: {slots:,} × {widths[1]:,} bytes"
        )
        out.append(Headline(f"E2B as published, {of}", text, total, f"{total / _MB:.1f} MB"))
    return out


def _estimates() -> list[Headline]:
    """Andyyyy64/whichllm#124: the rule of thumb at 128K, beside what llama.cpp allocates."""
    request = Request(131_072)
    out = []
    for name, billions in (("gemma-3-27b", 27.0), ("mistral-7b-v0.1", 7.0)):
        geometry = resolve(name)
        dense = replace(geometry, layers=tuple(replace(x, law=Layer()) for x in geometry.layers))
        rule, true = Heuristic(billions), LlamaCpp().total(geometry, request)
        for of, total, text in (
            (
                "rule of thumb, no window",
                rule.total(dense, request),
                f"{billions:g} billion parameters × 3.5 MiB for each 1024 of 131,072 positions",
            ),
            (
                "rule of thumb",
                rule.total(geometry, request),
                "the same, at the effective context of the windows that it honours",
            ),
            ("what llama.cpp allocates", true, "keys and values in fp16, cell by cell"),
            ("the least that answers need", Ideal().total(geometry, request), "the law"),
        ):
            share = "" if total == true else f", {total / true:.2f} of llama.cpp's"
            out.append(Headline(f"{name}, {of}", text, total, f"{total / _GB:.2f} GB{share}"))
    return out
