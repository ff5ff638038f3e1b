"""Which layers of a decoder slide, where its config does not list them.

Each rule is that of the class in transformers; tests compare it with the class for several depths
and for every value that moves it.  Layer i is counted from 0.
"""

from __future__ import annotations

from harness.estimate.decoders.kinds import FULL, INDEXED, NOTHING, SLIDING, flags, indices
from harness.estimate.fields import MAX_LAYERS, Fields
from harness.estimate.geometry import Sure


def sliding_from(fields: Fields, n: int) -> list[str]:
    """Qwen2 and its descendants: layer max_window_layers and all later ones slide."""
    if not fields.integer("sliding_window", least=-1, most=1 << 31):
        return [FULL] * n
    first = fields.integer("max_window_layers", least=0) or 0
    return [FULL if i < first else SLIDING for i in range(n)]


def qwen2_moe(fields: Fields, n: int) -> list[str]:
    """Below max_window_layers, every other layer slides."""
    first = fields.integer("max_window_layers", least=0) or 0
    on = fields.flag("use_sliding_window")
    return [SLIDING if on and i < first and i % 2 == 0 else FULL for i in range(n)]


def cohere2_moe(fields: Fields, n: int) -> list[str]:
    """The dense layers before the others have a period of their own."""
    dense = min(fields.integer("first_k_dense_replace", least=0) or 0, n)
    own = fields.integer("prefix_dense_sliding_window_pattern") or 1
    step = fields.integer("sliding_window_pattern") or 4
    steps = [(i, own) for i in range(dense)] + [(i, step) for i in range(n - dense)]
    return [SLIDING if (i + 1) % period else FULL for i, period in steps]


def flint(_fields: Fields, n: int) -> list[str]:
    """The first two layers, every fourth and the last are full."""
    return [FULL if i < 2 or i % 4 == 1 or i == n - 1 else SLIDING for i in range(n)]


def mimo(fields: Fields, n: int) -> list[str]:
    """A list of flags, 1 for a window; without it the first layer and every sixth are full."""
    if fields.has("hybrid_layer_pattern"):
        return [SLIDING if flag else FULL for flag in flags(fields, "hybrid_layer_pattern", n)]
    return [SLIDING if i and (i + 1) % 6 else FULL for i in range(n)]


def from_the_end(_fields: Fields, n: int) -> list[str]:
    """Counted from the end, every fourth layer is full."""
    return [SLIDING if (n - 1 - i) % 4 else FULL for i in range(n)]


def modernbert(fields: Fields, n: int) -> list[str]:
    """The first layer of each period is full; without a window all are."""
    step = fields.integer("global_attn_every_n_layers") or 3
    slides = bool(fields.integer("local_attention", least=0))
    return [SLIDING if slides and i % step else FULL for i in range(n)]


def no_rope(fields: Fields, n: int) -> list[str]:
    """SmolLM3: layers without rotary positions slide, if windows are on."""
    flags = fields.sequence("no_rope_layers", n) if fields.has("no_rope_layers") else None
    step = fields.integer("no_rope_layer_interval") or 4
    rotary = flags or [(i + 1) % step for i in range(n)]
    on = fields.flag("use_sliding_window") and fields.has("sliding_window")
    return [SLIDING if on and not rotary[i] else FULL for i in range(n)]


def mllama(fields: Fields, n: int) -> list[str]:
    """Layers that attend to an image cache its keys alone, and nothing of the text."""
    listed = fields.has("cross_attention_layers")
    images = indices(fields, "cross_attention_layers", MAX_LAYERS) if listed else range(3, 39, 5)
    images = [i for i in images if i < n]
    fields.note(
        "layers for images",
        f"{len(images)} of {n}: they cache nothing of a text",
        "cross_attention_layers",
        Sure.STATED,
    )
    return [NOTHING if i in images else FULL for i in range(n)]


def dots3(fields: Fields, n: int) -> list[str]:
    """The first two layers and every fourth attend to all; with sparse attention by an indexer."""
    wide = FULL if fields.flag("use_dsa") is False else INDEXED
    on = fields.flag("use_sliding_window") is not False
    return [SLIDING if on and i > 1 and i % 4 != 1 else wide for i in range(n)]
