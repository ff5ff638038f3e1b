"""The harness's own schemes as subjects.  No known failure is allowed for any of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.contract import CacheShape, Unsupported
from harness.export.exportable import Exportable
from harness.law import SCHEMES, Layer
from harness.reference.decoder import dense_logits, make_weights
from harness.schemes.growing import GrowingCache
from harness.schemes.sink.evict import SinkEvict
from harness.schemes.sink.ring import SinkRingCache, ring_bytes
from harness.schemes.static.cache import StaticDecoder, StaticIO, StaticLayout, model_cache_lens
from harness.schemes.static.layout import Style
from harness.schemes.validation import check_attention
from harness.subjects.own import exported as own_export


class Sdpa:
    """PyTorch's scaled_dot_product_attention with the law's mask given explicitly."""

    name = "harness.sdpa"
    schemes = SCHEMES

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        check_attention(q, k, v)
        n, keys = q.shape[2], k.shape[2]
        mask = layer.mask(keys - n, n, keys).to(q.device)
        return torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, enable_gqa=True
        )


class Full:
    """`GrowingCache`: keeps all keys, for full attention."""

    name = "harness.full"
    schemes = frozenset({"full"})

    def new_cache(self, layer: Layer, shape: CacheShape) -> GrowingCache:
        return GrowingCache(layer, shape)

    def profile(self, layer: Layer, shape: CacheShape) -> int:  # noqa: ARG002  # for any law
        """Bytes at max_context: a growing cache has no other steady state."""
        return shape.max_context * _slot_bytes(shape)


class Sink:
    """`SinkRingCache`: sinks and a ring."""

    name = "harness.sink"
    schemes = frozenset({"sink", "uniform"})

    def new_cache(self, layer: Layer, shape: CacheShape) -> SinkRingCache:
        return SinkRingCache(_windowed(layer), shape)

    def exportable(self, case: Case) -> Exportable:
        """`SinkDecoder` over the same rings, for chunks of any length."""
        return own_export.sink_exportable(case)

    def profile(self, layer: Layer, shape: CacheShape) -> int:
        """Bytes of the sink and ring slots and of each slot's position; the same at any context."""
        return ring_bytes(layer, shape)


class Evict:
    """`SinkEvict`: sinks and a window by eviction, keys at their original positions."""

    name = "harness.sink_evict"
    schemes = frozenset({"sink", "uniform"})

    def new_cache(self, layer: Layer, shape: CacheShape) -> SinkEvict:
        return SinkEvict(_windowed(layer), shape)

    def profile(self, layer: Layer, shape: CacheShape) -> int:
        """Bytes of the sinks and the window - 1 keys that the next query needs."""
        assert layer.window is not None
        return min(shape.max_context, layer.sink + layer.window - 1) * _slot_bytes(shape)


class Static:
    """The static graph in style "shift_pointer", one cache per layer; shorter feeds are padded."""

    name = "harness.static"
    dense_key = "harness.static"
    schemes = SCHEMES
    style: Style = "shift_pointer"
    split_heads = False
    transpose_k = False
    #: It adds nothing: it is what exporters reduce gemma4-e2b to, which is run itself.
    left_out = frozenset({"gemma4-static"})
    #: Models whose graph another style exports already: exporting a deep one takes a second.
    not_exported: frozenset[str] = frozenset()

    @classmethod
    def covers(cls, check: str, case: Case) -> bool:
        """False for models that are left out, and for graphs that another style exports already."""
        name = case.model.name.partition(".")[0]
        return name not in cls.left_out and not (check == "export" and name in cls.not_exported)

    def open(self, case: Case) -> StaticRun:
        weights = make_weights(case.model, case.vocab, case.weights_seed)
        layout = self._layout(case)
        graph = StaticDecoder(layout, weights)
        io = StaticIO(
            layout, dict.fromkeys(self.input_lens(case), graph), case.vocab, case.max_context
        )
        return StaticRun(io, case)

    def exportable(self, case: Case) -> Exportable:
        """The graph, one method per input length."""
        return own_export.static_exportable(case, self._layout(case), self.input_lens(case))

    def profile(self, case: Case) -> list[int]:
        """Bytes of each layer's keys and values in cache_len slots; the same at any context."""
        layout = self._layout(case)
        return [layout.layer_bytes(i) for i in range(case.model.n_layers)]

    def input_lens(self, case: Case) -> tuple[int, ...]:
        """Input lengths of the graphs: the longest feed, but no more than four windows."""
        return (min(case.max_chunk, 4 * case.window),)

    def _layout(self, case: Case) -> StaticLayout:
        # Room for the padding of a last chunk that starts just before the end of the context.
        longest = max(self.input_lens(case))
        # Besides the sinks there is at least one slot, however short the context.
        context = max(case.max_context, case.model.sink + 1)
        return StaticLayout(
            case.model,
            model_cache_lens(case.model, context + longest, longest),
            batch=case.batch,
            dtype=getattr(torch, case.dtype),
            style=self.style,
            split_heads=self.split_heads,
            transpose_k=self.transpose_k,
        )


class StaticSmart(Static):
    """The static graph in style "smart_mask", in chunks half as long as the longest feed."""

    name = "harness.static.smart"
    style: Style = "smart_mask"
    #: gemma4-26b is gemma4-e2b without shared caches, and gemma3 with another layer pattern.
    left_out = Static.left_out | {"gemma4-26b"}
    not_exported = frozenset({"gemma4-e2b"})

    def input_lens(self, case: Case) -> tuple[int, ...]:
        return (max(1, (case.max_chunk + 1) // 2),)


class StaticSplit(Static):
    """The static graph with transposed keys and a cache per head, for prefill and decode graphs."""

    name = "harness.static.split"
    split_heads = True
    transpose_k = True
    #: Their heads are split just like those of gemma2, gemma3 and mistral.
    left_out = Static.left_out | {"gemma4-26b", "gpt-oss", "cohere2", "qwen2", "mistral-w9"}
    not_exported = frozenset({"gemma4-e2b"})

    def input_lens(self, case: Case) -> tuple[int, ...]:
        return (1, *super().input_lens(case))


class StaticRun:
    """A `StaticIO` as a `Decoder`."""

    def __init__(self, io: StaticIO, case: Case) -> None:
        self.io = io
        weights = make_weights(case.model, case.vocab, case.weights_seed)
        self.weights = weights.to(getattr(torch, case.dtype))
        self.feed, self.reset, self.rewind = io.feed, io.reset, io.rewind
        self.cache_bytes = io.cache_bytes

    def dense(self, tokens: Tensor, layers: Sequence[Layer] | None = None) -> Tensor:
        return dense_logits(self.weights, tokens, layers)


def _windowed(layer: Layer) -> Layer:
    if layer.window is None or layer.chunk is not None:
        raise Unsupported(f"needs a layer with a window, got {layer}")
    return layer


def _slot_bytes(shape: CacheShape) -> int:
    """Bytes of one position's key and value."""
    item = torch.empty((), dtype=shape.dtype).element_size()
    return 2 * shape.batch * shape.n_kv_heads * shape.head_dim * item
