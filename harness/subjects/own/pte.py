"""The harness's own schemes lowered to .pte and run by the ExecuTorch runtime.

There are few programs: each serves every schedule of its model.  A static program has a prefill and
a decode method over the same caches, and is fed as its own metadata says; a sink program has one
method for chunks of any length, and its rings are buffers inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from harness.cases.case import Case
from harness.contract import Decoder, Unsupported
from harness.export.exportable import Exportable, Graph
from harness.export.program_cache import Entry
from harness.schemes.sink.model import SinkLayout
from harness.schemes.static.cache import StaticLayout, model_cache_lens
from harness.schemes.static.constants import FlatGraph, constant_methods
from harness.schemes.static.layout import Style
from harness.subjects.executorch.lowering import Backend, cached, lower
from harness.subjects.executorch.runtime import Lazy, LoweredSubject, Program
from harness.subjects.own import exported as own

#: Positions that full layers of a static program are lowered for, including the longest chunk.
CONTEXT = 128

#: A static program with more layers than this has a single method.
DEEP = 4

#: Schedules of each check that does not run on all of them.  `visibility` runs a decoder of batch 1
#: once per token.  `peak_bytes` sees only the host's memory, not the program's.
_SCHEDULES = {
    "visibility": {"prefill-3w+5", "decode-3wraps", "chunk-4", "chunk-w+1", "ragged-primes"},
    "export": {"chunk-4", "decode-3wraps"},
    "peak_bytes": set[str](),
}


class _Own(LoweredSubject):
    """What the subjects have in common."""

    backend: Backend = "portable"
    #: Names of models; one-layer models are listed by name, too.
    models: frozenset[str] = frozenset()

    @classmethod
    def covers(cls, check: str, case: Case) -> bool:
        """A few models, at batch 1."""
        if case.model.name not in cls.models or case.batch != 1 or case.dtype != "float32":
            return False
        return case.schedule.name in _SCHEDULES.get(check, {case.schedule.name})

    def _cached(self, case: Case, what: Mapping[str, object], make: Callable[[], Entry]) -> Entry:
        about = {"model": repr(case.model), "seed": case.weights_seed, "vocab": case.vocab, **what}
        name = f"{self.name}-{case.model.name}"
        return cached(name, [__name__], about | {"backend": self.backend}, make)


class StaticPte(_Own):
    """The static graph as .pte: portable kernels, style "shift_pointer", chunks of 4 and of 1.

    Deep models have a single method: lowering takes a second per layer and method.
    """

    name = "harness.static.pte"
    schemes = frozenset({"uniform", "interleaved"})
    models = frozenset({"mistral", "mistral.sliding", "gemma2", "gemma4-e2b"})
    style: Style = "shift_pointer"
    chunk = 4

    @classmethod
    def covers(cls, check: str, case: Case) -> bool:
        """As above, without `cache_bytes` of full layers: it outgrows their context."""
        bounded = all(layer.bounded for layer in case.model.layers)
        return super().covers(check, case) and (bounded or check != "cache_bytes")

    def input_lens(self, case: Case) -> tuple[int, ...]:
        """Input lengths of the program's methods."""
        return (self.chunk,) if case.model.n_layers > DEEP else (self.chunk, 1)

    def open(self, case: Case) -> Decoder:
        """A decoder around the program.  Raises Unsupported for what it was not lowered for."""
        self.claim(case)
        methods = own.static_methods(self.input_lens(case))
        graph = Lazy(lambda: _by_metadata(self.program(case)))
        return own.static_run(case, self._layout(case), methods, graph)

    def exportable(self, case: Case) -> Exportable:
        """The graph that is lowered."""
        self.claim(case)
        return own.static_exportable(case, self._layout(case), self.input_lens(case))

    def profile(self, case: Case) -> list[int]:
        """Bytes of each layer's keys and values in cache_len slots; the same at any context."""
        layout = self._layout(case)
        return [layout.layer_bytes(i) for i in range(case.model.n_layers)]

    def lowered(self, case: Case) -> Entry:
        """The program of a case's model, with its metadata in constant methods."""
        layout = self._layout(case)

        def make() -> Entry:
            programs = self.exportable(case).export_static()
            constants = constant_methods(layout, own.static_methods(self.input_lens(case)))
            return lower(programs, self.backend, constants=constants)

        return self._cached(case, {"layout": repr(layout), "lengths": self.input_lens(case)}, make)

    def _layout(self, case: Case) -> StaticLayout:
        room = CONTEXT - self.chunk
        if case.max_context > room and not all(layer.bounded for layer in case.model.layers):
            raise Unsupported(
                f"full layers are lowered for {room} positions, the case needs {case.max_context}"
            )
        lens = model_cache_lens(case.model, CONTEXT, self.chunk)
        dtype = getattr(torch, case.dtype)
        return StaticLayout(case.model, lens, dtype=dtype, style=self.style)


def _by_metadata(program: Program) -> Graph:
    """A static program's methods, fed as the program's own metadata says."""
    return FlatGraph({name: program.execute(name) for name in program.methods}, program.ask)


class StaticXnnpack(StaticPte):
    """The static graph as .pte, delegated to XNNPACK: style "smart_mask", chunks of 5 only."""

    name = "harness.static.pte.xnnpack"
    backend: Backend = "xnnpack"
    models = frozenset({"mistral"})
    style: Style = "smart_mask"
    chunk = 5

    def input_lens(self, case: Case) -> tuple[int, ...]:  # noqa: ARG002 - the base's signature
        """One method: single tokens are padded to a chunk."""
        return (self.chunk,)


class SinkPte(_Own):
    """`harness.sink` as .pte with portable kernels, for chunks of up to window + 1."""

    name = "harness.sink.pte"
    schemes = frozenset({"sink", "uniform"})
    models = frozenset({"llama3-sink2", "llama3-sink4", "llama3-sink4.sliding", "mistral"})

    def open(self, case: Case) -> Decoder:
        """A decoder around the program.  Raises Unsupported for what it was not lowered for."""
        self.claim(case)
        graph = Lazy(lambda: self.program(case).graph())
        return own.sink_run(case, self._layout(case), graph)

    def exportable(self, case: Case) -> Exportable:
        """The graph that is lowered."""
        self.claim(case)
        return own.sink_exportable(case, self._layout(case).max_chunk)

    def profile(self, case: Case) -> list[int]:
        """Bytes of the program's mutable buffers per layer: keys, values, positions."""
        buffers = self.lowered(case).facts["buffers"]["forward"]
        return [
            sum(size for name, size in buffers.items() if name.startswith(f"rings.{i}."))
            for i in range(case.model.n_layers)
        ]

    def lowered(self, case: Case) -> Entry:
        """The program of a case's model: one method, dynamic in the chunk's length."""
        layout = self._layout(case)

        def make() -> Entry:
            exported = self.exportable(case).export_dynamic()
            # -1 in a slot means that it was never written; zeros would all be position 0.
            return lower({"forward": exported}, self.backend, initialised=["positions"])

        return self._cached(case, {"max_chunk": layout.max_chunk}, make)

    def _layout(self, case: Case) -> SinkLayout:
        return own.sink_layout(case, case.window + 1)


class SinkXnnpack(SinkPte):
    """`harness.sink` as .pte, delegated to XNNPACK."""

    name = "harness.sink.pte.xnnpack"
    backend: Backend = "xnnpack"
    models = frozenset({"llama3-sink2"})
