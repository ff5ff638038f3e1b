"""The harness's own schemes as graphs to export, and as decoders around such a graph.

The caller chooses what runs as the graph: the module itself, an exported program, or a method of a
lowered one.  The rest (caches, masks, positions, splitting) is the same code for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.export import Dim

from harness.cases.case import Case
from harness.contract import Unsupported
from harness.export.exportable import Dynamic, Exportable, Graph
from harness.law import Layer
from harness.reference.decoder import dense_logits, make_weights
from harness.schemes.sink.model import SinkDecoder, SinkIO, SinkLayout
from harness.schemes.static.cache import StaticDecoder, StaticIO, StaticLayout, example_inputs

#: Length of the example chunk of a dynamic export: torch specializes on 0 and 1.
EXAMPLE_CHUNK = 3


class IO(Protocol):
    """What feeds a graph: `StaticIO` or `SinkIO`."""

    def feed(self, tokens: Tensor) -> Tensor: ...
    def reset(self) -> None: ...
    def rewind(self, length: int) -> None: ...
    def cache_bytes(self) -> list[int]: ...


class IORun:
    """An `IO` as a `Decoder`, together with the dense run of the case's weights."""

    def __init__(self, io: IO, case: Case) -> None:
        self.io, self.case = io, case
        self.feed, self.reset, self.rewind = io.feed, io.reset, io.rewind
        self.cache_bytes = io.cache_bytes

    def dense(self, tokens: Tensor, layers: Sequence[Layer] | None = None) -> Tensor:
        """See `Decoder.dense`."""
        weights = make_weights(self.case.model, self.case.vocab, self.case.weights_seed)
        return dense_logits(weights.to(getattr(torch, self.case.dtype)), tokens, layers)


def static_methods(input_lens: Sequence[int]) -> dict[str, int]:
    """Method names of a static program by input length: "forward", or "prefill" and "decode".

    Raises ValueError for more than two lengths.
    """
    lengths = sorted(set(input_lens), reverse=True)
    names = {1: ("forward",), 2: ("prefill", "decode")}.get(len(lengths))
    if names is None:
        raise ValueError(f"input_lens must be one or two lengths, got {list(input_lens)}")
    return dict(zip(names, lengths, strict=True))


def static_module(case: Case, layout: StaticLayout) -> StaticDecoder:
    """The static graph with the case's weights."""
    return StaticDecoder(layout, make_weights(case.model, case.vocab, case.weights_seed))


def static_run(
    case: Case,
    layout: StaticLayout,
    methods: Mapping[str, int],
    graph: Graph,
    max_context: int | None = None,
) -> IORun:
    """A fresh decoder around a static graph; max_context: as for `StaticIO`."""
    graphs = dict.fromkeys(methods.values(), graph)
    return IORun(StaticIO(layout, graphs, case.vocab, max_context), case)


def static_exportable(case: Case, layout: StaticLayout, input_lens: Sequence[int]) -> Exportable:
    """The static scheme of a case, one method per input length; all share the caches."""
    methods = static_methods(input_lens)
    return Exportable(
        module=static_module(case, layout),
        methods={name: example_inputs(layout, n) for name, n in methods.items()},
        drive=partial(static_run, case, layout, methods),
    )


def sink_layout(case: Case, max_chunk: int) -> SinkLayout:
    """Rings for a case.  Raises Unsupported if a layer has no window, or has a chunk."""
    for layer in case.model.layers:
        if layer.window is None or layer.chunk is not None:
            raise Unsupported(f"needs layers with a window, got {layer}")
    return SinkLayout(case.model, max_chunk, case.batch, getattr(torch, case.dtype))


def sink_module(case: Case, layout: SinkLayout) -> SinkDecoder:
    """The graph over empty rings, with the case's weights."""
    return SinkDecoder(layout, make_weights(case.model, case.vocab, case.weights_seed))


def sink_run(case: Case, layout: SinkLayout, graph: Graph) -> IORun:
    """A fresh decoder around a sink graph whose rings are empty."""
    return IORun(SinkIO(layout, graph, case.vocab), case)


def sink_dynamic(layout: SinkLayout) -> Dynamic:
    """Chunks of any length from 1 to the layout's longest, which must be at least 3."""
    length = Dim("length", min=1, max=layout.max_chunk)
    return Dynamic(_sink_args(layout, EXAMPLE_CHUNK), ({1: length}, {0: length}))


def sink_exportable(case: Case, max_chunk: int | None = None) -> Exportable:
    """The sink ring scheme of a case: one static method for each chunk length, or a dynamic one.

    max_chunk: of the layout; by default the longest chunk that a full ring takes at once.
    """
    layout = sink_layout(case, max_chunk or case.window + 1)
    io = SinkIO(layout, torch.nn.Identity(), case.vocab)
    lengths = sorted({n for a, b in case.schedule.spans() for n in io.plan(a, b - a)})
    return Exportable(
        module=sink_module(case, layout),
        methods={f"chunk_{n}": _sink_args(layout, n) for n in lengths},
        drive=partial(sink_run, case, layout),
        dynamic=sink_dynamic(layout) if layout.max_chunk >= EXAMPLE_CHUNK else None,
    )


def _sink_args(layout: SinkLayout, n: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(layout.batch, n, dtype=torch.int64), torch.arange(n)
