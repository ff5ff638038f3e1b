"""Static shapes with windowed caches: a decoder's caches as inputs of a graph of fixed shape.

For engines that compile a graph once and support no dynamic length (CoreML, QNN, an NPU).  Layers
may slide, be full, or read another layer's cache, each with its own cache length:

    lens = resolve_cache_lens(35, 8192, 64, sliding_window=512, sliding_window_pattern=5)
    layout = StaticLayout(model, tuple(lens), style="smart_mask")
    graph = StaticDecoder(layout, weights)
    io = StaticIO(layout, {64: graph, 1: graph}, vocab)      # prefill and decode share the caches
    io.feed(prompt); io.decode(token, 100)

**Exact windows.**  At every position and in both styles, a query sees its window and nothing else:
masks are made from the positions that the slots hold (`static.masks`), not from a count of keys.
"""

from __future__ import annotations

from harness.schemes.static.io import StaticIO
from harness.schemes.static.layout import StaticLayout, model_cache_lens
from harness.schemes.static.lengths import resolve_cache_len, resolve_cache_lens
from harness.schemes.static.metadata import cache_specs, example_inputs, mask_specs, metadata
from harness.schemes.static.model import StaticDecoder

__all__ = [
    "StaticDecoder",
    "StaticIO",
    "StaticLayout",
    "cache_specs",
    "example_inputs",
    "mask_specs",
    "metadata",
    "model_cache_lens",
    "resolve_cache_len",
    "resolve_cache_lens",
]
