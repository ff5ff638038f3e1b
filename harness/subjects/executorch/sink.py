"""ExecuTorch's ring buffers: attention sinks, and local layers without sinks.

`executorch.sink` is `enable_attention_sink` (the export option ``--use_attention_sink S,W``),
`executorch.ring` is `replace_kv_cache_with_ring_kv_cache` (``--local_global_attention``).  Both use
the released Llama transformer, with the caches as its buffers.  Shapes are static: ``input_pos``
holds the positions of the whole chunk, and a chunk may cross a wrap (with dynamic shapes, 1.4.1
raises there).  In both, a window is W keys, the query's own included, in a ring of 2W slots.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from harness.cases.case import Case
from harness.contract import Unsupported
from harness.law import Layer
from harness.memory.storage import storage_bytes
from harness.subjects.executorch import body


class RingDecoder:
    """One run of a transformer whose layers hold ring caches."""

    def __init__(self, case: Case, model: nn.Module) -> None:
        self.case, self.model = case, model
        self.length = 0

    @torch.no_grad()
    def feed(self, tokens: Tensor) -> Tensor:
        if self.case.dtype == "float64":
            raise Unsupported(
                "1.4.1 makes float32 masks for its rings, whatever the dtype of the model; with "
                "float64 queries torch's attention on the CPU misreads them"
            )
        end = self.length + tokens.shape[1]
        with _no_deprecations():
            logits: Tensor = self.model(tokens, {"input_pos": torch.arange(self.length, end)})
        self.length = end
        return logits

    def reset(self) -> None:
        """Start again at position 0, so that the caches forget: the release has no other way."""
        self.length = 0

    def cache_bytes(self) -> list[int]:
        blocks: Any = self.model.layers
        caches = [block.attention.kv_cache for block in blocks]
        return [storage_bytes([cache.k_cache, cache.v_cache]) for cache in caches]

    def dense(self, tokens: Tensor, layers: Sequence[Layer] | None = None) -> Tensor:
        laws = self.case.model.layers if layers is None else layers
        return body.dense_logits(self.case, tokens, body.law_masks(laws, tokens.shape[1]))


@contextmanager
def _no_deprecations() -> Iterator[None]:
    """Hide a warning: at each update the release calls a torch function that is to be removed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="_check_is_size", category=FutureWarning)
        yield


def _claim_chunks(case: Case) -> None:
    """Raise Unsupported for a feed that the release's own assertions refuse."""
    ring, sink = 2 * case.window, case.model.sink
    for start, end in case.schedule.spans():
        in_ring = end - max(start, min(end, sink))  # the rest goes to the slots of the sinks
        if in_ring > ring:
            raise Unsupported(
                f"a feed of {end - start} puts {in_ring} keys into a ring of {ring} slots; "
                "1.4.1 asserts that they fit"
            )


def _transformer(case: Case, table: int) -> tuple[nn.Module, Any]:
    """The released transformer with plain caches of `table` slots, and its ModelArgs."""
    args = body.model_args(
        case.model, case.vocab, table, use_kv_cache=True, max_batch_size=case.batch
    )
    return body.construct(args), args


class Sink:
    """`enable_attention_sink`, with sinks or, with none, for a plain window."""

    name = "executorch.sink"
    package = "executorch"
    dense_key = "executorch.body"
    schemes = frozenset({"sink", "uniform"})

    def open(self, case: Case) -> RingDecoder:
        """A transformer with empty sinks and rings."""
        with body.quiet_import():
            from executorch.examples.models.llama.source_transformation.attention_sink import (
                enable_attention_sink,
            )
        body.claim_geometry(case.model)
        _claim_chunks(case)
        sink, window = case.model.sink, case.window
        model, args = _transformer(case, max(case.max_context, sink + 2 * window))
        enable_attention_sink(model, args, sink_size=sink, window_size=window)
        body.load_weights(model, case)
        return RingDecoder(case, body.in_precision(model, case.dtype))

    def profile(self, case: Case) -> list[int]:
        """Bytes of keys and values in sink + 2W slots per layer."""
        slots = case.model.sink + 2 * case.window
        return [body.kv_bytes(case, slots)] * case.model.n_layers


class Ring:
    """`replace_kv_cache_with_ring_kv_cache`: rings of 2W slots in local layers."""

    name = "executorch.ring"
    package = "executorch"
    dense_key = "executorch.body"
    schemes = frozenset({"uniform", "interleaved"})

    @staticmethod
    def covers(check: str, case: Case) -> bool:  # noqa: ARG004 - the contract's signature
        """Geometries that the released transformer takes."""
        return body.fits(case.model)

    def open(self, case: Case) -> RingDecoder:
        """A transformer with empty rings in its local layers, plain caches in the others."""
        with body.quiet_import():
            from executorch.examples.models.llama.source_transformation.custom_kv_cache import (
                replace_kv_cache_with_ring_kv_cache,
            )
        body.claim_geometry(case.model)
        _claim_chunks(case)
        model, _ = _transformer(case, case.max_context)
        with body.quiet_import():  # it imports the release's custom operators
            sizes = [law.window or 0 for law in case.model.layers]
            replace_kv_cache_with_ring_kv_cache(model, sizes)
        body.load_weights(model, case)
        return RingDecoder(case, body.in_precision(model, case.dtype))

    def profile(self, case: Case) -> list[int]:
        """Bytes of keys and values: 2W slots in a local layer, the context in a full one."""
        return [
            body.kv_bytes(case, 2 * law.window if law.window else case.max_context)
            for law in case.model.layers
        ]
