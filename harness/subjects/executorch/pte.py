"""ExecuTorch's own windowed attention as its users ship it: lowered to .pte and run from there.

`executorch.static.pte` is lowered as in the release's `export_static_llm_coreml.py`, but with
portable kernels instead of Core ML's delegate.  `executorch.sink.pte` is lowered as by
``export_llama --use_attention_sink S,W --disable_dynamic_shape``, whose program takes one token at
a time.  `executorch.sink.dynamic` is what that command makes without ``--disable_dynamic_shape``.
The programs are fed like the eager subjects, by the same conventions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from harness.cases.case import Case
from harness.contract import Decoder
from harness.export.exportable import Dynamic, Exportable, Graph, quiet
from harness.export.program_cache import Entry
from harness.results.finding import NAMES
from harness.subjects.executorch import body, lowering
from harness.subjects.executorch import static as executorch_static
from harness.subjects.executorch.runtime import Lazy, LoweredSubject
from harness.subjects.executorch.sink import RingDecoder

#: Positions that sink programs are lowered for; positions remapped to the ring never reach it.
CONTEXT = 128


class StandIn(nn.Module):
    """A graph wrapped as the module that the eager decoders call."""

    def __init__(self, graph: Graph, convert: Callable[..., tuple[Any, ...]] | None = None) -> None:
        super().__init__()
        self.graph, self.convert = graph, convert

    def forward(self, *args: Any) -> Any:
        return self.graph(*(self.convert(*args) if self.convert else args))


def _as_int32(tokens: Tensor, options: Any) -> tuple[Tensor, Any]:
    """Tokens as int32, as the release's manager makes them and its export takes them."""
    return tokens.int() if tokens.dtype == torch.int64 else tokens, options


def _start_alone(tokens: Tensor, options: Any) -> tuple[Tensor, Any]:
    """With dynamic shapes the release takes only the first position of a chunk."""
    return tokens, {"input_pos": options["input_pos"][:1]}


class StaticProgramDecoder(executorch_static.StaticAttentionDecoder):
    """The release's manager around a program, or around another form of its graph."""

    def __init__(self, case: Case, graph: Graph | None = None) -> None:
        super().__init__(case, "shift_pointer", split=False)
        self.module = self.model
        if graph is not None:
            self.model = StandIn(graph, _as_int32)

    def example(self) -> tuple[Tensor, dict[str, Any]]:
        """Arguments of the first run, as the release's export script makes them."""
        manager, n = self.manager, self.input_len
        options = {
            "masks": manager.masks,
            "freqs_cos_override": manager.freqs_cos[:n],
            "freqs_sin_override": manager.freqs_sin[:n],
            "in_cache_state": (manager.k_caches, manager.v_caches),
        }
        return torch.zeros(1, n, dtype=torch.int32), options


class StaticPte(LoweredSubject):
    """`StaticAttention` in style shift_pointer as .pte, one program per input length."""

    name = "executorch.static.pte"
    schemes = frozenset({"uniform", "interleaved"})
    checks = frozenset(NAMES) - {"cache_bytes", "peak_bytes"}

    @staticmethod
    def covers(check: str, case: Case) -> bool:
        """A few input lengths of one uniform model, and one of an interleaved one."""
        name = case.schedule.name
        if case.batch != 1 or case.dtype != "float32":
            return False
        if case.model.name == "gemma2":
            return name == "chunk-4" and check != "refusal"
        wanted = {"chunk-4", "chunk-w", "short-prefill-by-4-then-decode", "decode-3wraps"}
        return case.model.name == "mistral" and name in wanted | {"reset-after-3wraps"}

    def open(self, case: Case) -> Decoder:
        """A manager with empty caches around the program."""
        self.claim(case)
        return StaticProgramDecoder(case, Lazy(lambda: self.program(case).graph()))

    def exportable(self, case: Case) -> Exportable:
        """The graph that is lowered."""
        self.claim(case)
        decoder = StaticProgramDecoder(case)
        return Exportable(
            module=decoder.module,
            methods={"forward": decoder.example()},
            drive=lambda graph: StaticProgramDecoder(case, graph),
        )

    def lowered(self, case: Case) -> Entry:
        """The program of a case's model, input length and cache lengths."""

        def make() -> Entry:
            programs = self.exportable(case).export_static()
            return lowering.lower(programs, "portable")

        about = {"cache_lens": executorch_static.cache_lens(case), "input_len": case.max_chunk}
        return _cached("static", case, about, make)


class SinkDecoder(RingDecoder):
    """A one-token program, or another form of its graph: a feed of n tokens is n runs."""

    def __init__(self, case: Case, graph: Graph, layer_bytes: Callable[[], list[int]]) -> None:
        super().__init__(case, StandIn(graph))
        self.layer_bytes = layer_bytes

    def feed(self, tokens: Tensor) -> Tensor:
        one_by_one = (tokens[:, i : i + 1].contiguous() for i in range(tokens.shape[1]))
        return torch.cat([RingDecoder.feed(self, token) for token in one_by_one], 1)

    def cache_bytes(self) -> list[int]:
        return self.layer_bytes()


class SinkPte(LoweredSubject):
    """`enable_attention_sink` as .pte, one token at a time."""

    name = "executorch.sink.pte"
    schemes = frozenset({"sink", "uniform"})
    checks = frozenset(NAMES) - {"peak_bytes"}

    @staticmethod
    def covers(check: str, case: Case) -> bool:
        """Three models, and the schedules that still differ if every feed is one token."""
        if case.batch != 1 or case.dtype != "float32":
            return False
        wanted = {"decode-3wraps", "chunk-4", "prefill-w", "prefill-3w+5"}
        named = case.schedule.name in wanted or check in {"reset", "cache_bytes"}
        return case.model.name in {"llama3-sink2", "llama3-sink4", "mistral"} and named

    def open(self, case: Case) -> Decoder:
        """A decoder around the program, with empty rings."""
        self.claim(case)
        return SinkDecoder(
            case, Lazy(lambda: self.program(case).graph()), lambda: self._layer_bytes(case)
        )

    def exportable(self, case: Case) -> Exportable:
        """The graph that is lowered."""
        self.claim(case)
        return Exportable(
            module=transformer(case, dynamic=False),
            methods={"forward": _example(1)},
            drive=lambda graph: SinkDecoder(case, graph, lambda: self._layer_bytes(case)),
        )

    def profile(self, case: Case) -> list[int]:
        """Bytes per layer of keys and values in sink + 2W slots, and of each slot's position."""
        slots = case.model.sink + 2 * case.window
        return [body.kv_bytes(case, slots) + 8 * slots] * case.model.n_layers

    def lowered(self, case: Case) -> Entry:
        """The program of a case's model."""
        return _cached("sink", case, {"context": CONTEXT}, lambda: _lower_as_users_do(case))

    def _layer_bytes(self, case: Case) -> list[int]:
        """Mutable buffers of the program, by layer: names read "layers.<i>.attention…"."""
        buffers = self.lowered(case).facts["buffers"]["forward"]
        return [
            sum(size for name, size in buffers.items() if name.startswith(f"layers.{i}."))
            for i in range(case.model.n_layers)
        ]


class SinkDynamic:
    """`enable_attention_sink` exported for chunks of any length, the release's default."""

    name = "executorch.sink.dynamic"
    package = "executorch"
    schemes = frozenset({"sink"})
    checks = frozenset({"export", "values"})  # whether it can be exported, and whether it runs

    @staticmethod
    def covers(check: str, case: Case) -> bool:  # noqa: ARG004 - the contract's signature
        """A single case, which is enough to show both."""
        one = case.model.name == "llama3-sink2" and case.schedule.name == "chunk-4"
        return one and case.batch == 1

    def open(self, case: Case) -> Decoder:
        """The eager transformer: it cannot be exported, so there is no program."""
        return RingDecoder(case, StandIn(transformer(case, dynamic=True), _start_alone))

    def exportable(self, case: Case) -> Exportable:
        """The graph and dynamic shapes of the release's export."""
        length = torch.export.Dim("token_dim", max=CONTEXT - 1)
        return Exportable(
            module=transformer(case, dynamic=True),
            methods={},
            drive=lambda graph: RingDecoder(case, StandIn(graph, _start_alone)),
            dynamic=Dynamic(_example(3), ({1: length}, {"input_pos": {0: 1}})),
        )


def transformer(case: Case, *, dynamic: bool) -> nn.Module:
    """The released transformer with sinks and rings, not yet exported."""
    with body.quiet_import():
        from executorch.examples.models.llama.source_transformation.attention_sink import (
            enable_attention_sink,
        )
    args = body.model_args(
        case.model, case.vocab, CONTEXT, use_kv_cache=True, enable_dynamic_shape=dynamic
    )
    model = body.construct(args)
    enable_attention_sink(model, args, sink_size=case.model.sink, window_size=case.window)
    return body.in_precision(body.load_weights(model, case), case.dtype)


def _example(n: int) -> tuple[Tensor, dict[str, Tensor]]:
    return torch.ones(1, n, dtype=torch.int64), {"input_pos": torch.tensor([0])}


def _lower_as_users_do(case: Case) -> Entry:
    """The steps of ``export_llama`` without a backend, run by the release's own manager."""
    with quiet():
        from executorch.exir.passes.init_mutable_pass import InitializedMutableBufferPass
        from executorch.extension.llm.export.builder import DType, LLMEdgeManager

        builder = LLMEdgeManager(
            model=transformer(case, dynamic=False),
            modelname="sink",
            max_seq_len=CONTEXT,
            dtype=DType.fp32,
            use_kv_cache=True,
            generate_full_logits=True,
            example_inputs=_example(1),
            enable_dynamic_shape=False,
        ).export()
        builder.run_canonical_optimizations()
        builder.export_to_edge()
        edge: Any = builder.edge_manager
        exported = edge.exported_program()
        buffers = lowering.mutable_buffers(exported)
        builder.to_executorch(passes=[InitializedMutableBufferPass(["cache_positions"])])
    return lowering.entry(builder.export_program, {"forward": buffers}, {"forward": exported})


def _cached(kind: str, case: Case, about: dict[str, object], make: Callable[[], Entry]) -> Entry:
    what = {"model": repr(case.model), "vocab": case.vocab, "seed": case.weights_seed, **about}
    return lowering.cached(f"executorch-{kind}-{case.model.name}", [__name__], what, make)
