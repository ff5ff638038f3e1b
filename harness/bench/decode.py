"""A decode step as the context grows: the sink ring against eviction, a full cache and ExecuTorch.

A step is one update of one layer's cache and the attention over what it returns.  All caches have
the same heads and head_dim, and the same window if they have one (ExecuTorch's ring has no sink).
Steps take turns in one process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from harness.bench import timing
from harness.contract import CacheShape, LayerCache
from harness.law import Layer
from harness.memory import measure
from harness.schemes.sink.evict import SinkEvict
from harness.schemes.sink.ring import SinkRingCache

WINDOW, SINK = 1024, 4
KV_HEADS, HEADS, HEAD_DIM = 8, 16, 128
CONTEXTS = (1024, 4096, 16384, 65536)

Answer = tuple[Tensor, Tensor, Tensor | None]
Update = Callable[[Tensor, Tensor], Answer]


def run(repeats: int = 31, contexts: tuple[int, ...] = CONTEXTS) -> dict[str, Any]:
    """Time and peak bytes of one decode step of every cache at every context.

    Returns, for each context and cache, the median seconds and the peak bytes of a step, and the
    times of the sink ring and of a ring of 2W slots relative to every cache's.  For the sink ring
    it also returns its time at the longest context relative to the shortest, its time relative to
    every cache's at the longest context, and whether its peak bytes are equal at all contexts.
    Runs on one thread, in float32.  Raises ValueError for repeats < 1, or if there is no context or
    one that is shorter than the window.
    """
    timing.check_repeats(repeats)
    if not contexts or min(contexts) < WINDOW:
        raise ValueError(f"contexts must be at least the window of {WINDOW}, got {contexts!r}")
    with timing.threads(1), torch.no_grad():
        return _figures(repeats, tuple(sorted(contexts)))


def _figures(repeats: int, contexts: tuple[int, ...]) -> dict[str, Any]:
    # One ring per context, stepped in turn, so that this ratio, too, is taken within one run.
    rings = {f"at {n}": _step(_ring(n), n) for n in contexts}
    flat = timing.interleaved(rings, repeats)
    out: dict[str, Any] = {
        **timing.environment(repeats),
        "geometry": {
            "window": WINDOW,
            "sink": SINK,
            "n_kv_heads": KV_HEADS,
            "n_heads": HEADS,
            "head_dim": HEAD_DIM,
            "dtype": "float32",
        },
        "ring_longest_over_shortest": timing.ratio(flat, f"at {contexts[-1]}", f"at {contexts[0]}"),
        "contexts": {},
    }
    del rings
    for n in contexts:
        out["contexts"][str(n)] = _at(n, repeats)
    last = out["contexts"][str(contexts[-1])]
    out["ring_over_at_longest"] = last["ring_over"]
    out["ring_bytes_equal"] = len({c["peak_bytes"]["ring"] for c in out["contexts"].values()}) == 1
    return out


def _at(n: int, repeats: int) -> dict[str, Any]:
    caches: dict[str, Update] = {
        "ring": _ring(n),
        "ring of 2W": _ring(n, 2 * WINDOW),
        "eviction": _evict(n),
        "full": _full(n),
    }
    released = _executorch_ring(n)
    if released is not None:
        caches["executorch RingKVCache"] = released
    steps = {name: _step(update, n) for name, update in caches.items()}
    seconds = timing.interleaved(steps, repeats)
    return {
        "seconds": timing.medians(seconds),
        "ring_over": {name: timing.ratio(seconds, "ring", name) for name in steps},
        "ring_of_2w_over": {name: timing.ratio(seconds, "ring of 2W", name) for name in steps},
        "peak_bytes": {name: measure(step).peak_bytes for name, step in steps.items()},
    }


def _step(update: Update, seed: int) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(1, HEADS, 1, HEAD_DIM, generator=generator)
    k, v = (torch.randn(1, KV_HEADS, 1, HEAD_DIM, generator=generator) for _ in range(2))

    def step() -> Tensor:
        keys, values, mask = update(k, v)
        return scaled_dot_product_attention(q, keys, values, attn_mask=mask, enable_gqa=True)

    return step


def _shape(max_context: int, max_chunk: int) -> CacheShape:
    cpu = torch.device("cpu")
    return CacheShape(1, KV_HEADS, HEAD_DIM, max_context, max_chunk, torch.float32, cpu)


def _chunks(n: int) -> list[Tensor]:
    """Keys (or values) of n positions, in chunks of a window."""
    generator = torch.Generator().manual_seed(n)
    one = torch.randn(1, KV_HEADS, WINDOW, HEAD_DIM, generator=generator)
    return [one] * (n // WINDOW)


def _filled(cache: LayerCache, n: int) -> Update:
    for chunk in _chunks(n):
        cache.update(chunk, chunk)
    return cache.update


def _ring(n: int, ring: int | None = None) -> Update:
    # max_chunk 1 makes the ring that decoding needs.  The longer chunks that fill it are answered
    # from outside the ring, which keeps their last keys.
    shape = _shape(n, 1)
    return _filled(SinkRingCache(Layer(WINDOW, SINK), shape, ring), n)


def _evict(n: int) -> Update:
    return _filled(SinkEvict(Layer(WINDOW, SINK), _shape(2 * n, WINDOW)), n)


def _full(n: int) -> Update:
    """A full cache of n + 1 slots, allocated in advance: nothing without a window is faster."""
    keys = torch.zeros(1, KV_HEADS, n + 1, HEAD_DIM)
    values = torch.zeros_like(keys)
    for i, chunk in enumerate(_chunks(n)):
        keys[:, :, i * WINDOW : (i + 1) * WINDOW] = chunk
        values[:, :, i * WINDOW : (i + 1) * WINDOW] = chunk

    def update(k: Tensor, v: Tensor) -> Answer:
        # Always write the same slot, so that every step is one at context n.
        keys[:, :, n : n + 1], values[:, :, n : n + 1] = k, v
        return keys[:, :, : n + 1], values[:, :, : n + 1], None

    return update


def _executorch_ring(n: int) -> Update | None:
    """ExecuTorch's RingKVCache over the same steps; None if executorch is not installed."""
    try:
        from harness.subjects.executorch.body import quiet_import
    except ImportError:
        return None
    try:
        with quiet_import():
            from executorch.examples.models.llama.attention import RingKVCache
    except ImportError:
        return None
    cache = RingKVCache(1, WINDOW, KV_HEADS, HEAD_DIM, False, torch.float32)
    at = 0
    for chunk in _chunks(n):
        cache.update(torch.arange(at, at + WINDOW), chunk, chunk)
        at += WINDOW
    position = at

    def update(k: Tensor, v: Tensor) -> Answer:
        nonlocal position
        keys, values = cache.update(torch.tensor([position]), k, v)
        mask = cache.create_causal_mask_for_ring_buffer(position, 1)
        position += 1
        return keys, values, mask

    return update
