"""Static decoders lowered by ExecuTorch's Core ML partitioner and run by our MIL interpreter.

They are lowered as in the release's `export_static_llm_coreml.py`: the whole graph goes to Core ML
ahead of time.  Linux can do that but cannot load the result, so the model is taken back out of the
delegate, and its program is run op by op.  A program must be one delegate and nothing else: the
rest would run on the CPU of a phone.

On macOS `executorch.coreml.predict` runs the same program in ExecuTorch's own runtime.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from harness.cases.case import Case
from harness.contract import Decoder, Unsupported
from harness.export.exportable import Exportable, Graph
from harness.export.program_cache import Entry
from harness.mil.arrays import Array
from harness.mil.conversion import hushed
from harness.mil.engines import require_macos
from harness.mil.executorch_blob import delegated, names, unpack
from harness.results.finding import NAMES
from harness.schemes.static.cache import StaticLayout, model_cache_lens
from harness.subjects.executorch import lowering
from harness.subjects.executorch import pte as executorch_pte
from harness.subjects.executorch.runtime import Lazy, LoweredSubject
from harness.subjects.executorch.static import StatedStaticDecoder
from harness.subjects.own import exported as own_export

if importlib.util.find_spec("coremltools") is None:  # imported late, since that takes seconds
    raise ModuleNotFoundError("No module named 'coremltools'", name="coremltools")

#: For the harness's own graph: tokens per chunk, and positions that full layers are lowered for.
CHUNK, CONTEXT = 4, 128

#: Added to the scores of hidden keys: an engine's softmax may not handle infinities.
MASKED = -1e4


def lower(program: ExportedProgram) -> Entry:
    """Lower one method, "forward", entirely to Core ML, for iOS 18 in float32."""
    with hushed():
        import coremltools as ct
        from executorch.backends.apple.coreml.compiler import CoreMLBackend
        from executorch.backends.apple.coreml.partition import CoreMLPartitioner
        from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

        specs = CoreMLBackend.generate_compile_specs(
            minimum_deployment_target=ct.target.iOS18, compute_precision=ct.precision.FLOAT32
        )
        lowered = to_edge_transform_and_lower(
            {"forward": program},
            partitioner=[CoreMLPartitioner(compile_specs=specs)],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        ).to_executorch()
    return lowering.entry(lowered, {"forward": {}}, {"forward": program})


def interpreted(entry: Entry) -> Graph:
    """The method of a lowered program, run from its MIL; called like the exported module.

    Raises MilError unless the program is one Core ML delegate.
    """
    from harness.mil.interpreter import Interpreter, load

    model = delegated(entry.payload)
    with tempfile.TemporaryDirectory() as folder, hushed():
        package = unpack(model.blob, Path(folder))
        called = names(package)
        interpreter = Interpreter(load(str(package)))
    spec = pytree.treespec_loads(entry.facts["outputs"]["forward"])

    def call(*args: Any) -> Any:
        leaves = [_as_delegate(leaf) for leaf in pytree.tree_leaves(args)]
        outputs = model.call(leaves, interpreter.run, called)
        return pytree.tree_unflatten([torch.from_numpy(np.array(x)) for x in outputs], spec)

    return call


#: Graphs by the program that they run.
_graphs: dict[bytes, Graph] = {}


def _as_delegate(x: Tensor) -> Array:
    """An argument as the delegate passes it to Core ML, which has no int64."""
    return np.asarray((x.int() if x.dtype == torch.int64 else x).numpy())


class _CoreML(LoweredSubject):
    """What the subjects share.  They cover few cases, since each graph takes a lowering."""

    suite = "coreml"
    checks = frozenset(NAMES) - {"cache_bytes", "peak_bytes"}
    #: The schedules covered, by model.
    wanted: Mapping[str, frozenset[str]] = {}

    @classmethod
    def covers(cls, check: str, case: Case) -> bool:  # noqa: ARG003 - the contract's signature
        """A few schedules of a few models, at batch 1."""
        if case.batch != 1 or case.dtype != "float32":
            return False
        return case.schedule.name in cls.wanted.get(case.model.name, ())

    def graph(self, case: Case) -> Graph:
        """The graph that runs a case's program; it holds no state, so that one is enough."""
        entry = self.lowered(case.with_dtype("float32"))
        if entry.payload not in _graphs:
            _graphs[entry.payload] = interpreted(entry)
        return _graphs[entry.payload]

    def exportable(self, case: Case) -> Exportable:
        """The graph that is lowered."""
        raise NotImplementedError

    def _cached(self, case: Case, what: Mapping[str, object]) -> Entry:
        about = {
            "model": repr(case.model),
            "seed": case.weights_seed,
            "vocab": case.vocab,
            "coremltools": metadata.version("coremltools"),
            **what,
        }
        return lowering.cached(
            f"coreml-{case.model.name}",
            [__name__],
            about,
            lambda: lower(self.exportable(case).export_static()["forward"]),
        )


class Stated(executorch_pte.StaticProgramDecoder, StatedStaticDecoder):
    """The release's manager around a program, judged by the law that 1.4.1 states for itself."""


class Static(_CoreML):
    """The release's `StaticAttention` in style shift_pointer, lowered to Core ML.

    It is judged by its stated law: `executorch.static` shows what the manager's masks get wrong.
    """

    name = "executorch.coreml"
    schemes = frozenset({"uniform", "interleaved"})
    wanted: Mapping[str, frozenset[str]] = {
        "mistral": frozenset({"decode-3wraps", "prefill-3w+5", "prefill-w+1", "chunk-4"}),
        "gemma2": frozenset({"decode-3wraps"}),
    }
    checks = _CoreML.checks - {"refusal"}

    def open(self, case: Case) -> Decoder:
        """A manager with empty caches around the program."""
        self.claim(case)
        return Stated(case, Lazy(lambda: self.graph(case)))

    def exportable(self, case: Case) -> Exportable:
        """The graph that is lowered."""
        decoder = executorch_pte.StaticProgramDecoder(case)
        return Exportable(
            module=decoder.module,
            methods={"forward": decoder.example()},
            drive=lambda graph: Stated(case, graph),
        )

    def lowered(self, case: Case) -> Entry:
        """The program of a case's model, input length and cache lengths."""
        what = {
            "graph": "executorch.static",
            "input_len": case.max_chunk,
            "context": case.max_context,
        }
        return self._cached(case, what)


class StaticPredict(Static):
    """The program of `executorch.coreml`, run by ExecuTorch's runtime and Core ML on macOS."""

    name = "executorch.coreml.predict"
    checks = Static.checks - {"visibility", "purity", "reset", "rewind"}

    def graph(self, case: Case) -> Graph:
        """The program in ExecuTorch's runtime, which can run it on macOS only."""
        return self.program(case).graph()

    def open(self, case: Case) -> Decoder:
        """As `Static.open`.  Raises Unsupported except on macOS."""
        require_macos()
        return super().open(case)


class OwnStatic(_CoreML):
    """The harness's static graph lowered to Core ML: exact windows, alternating layers, sinks."""

    name = "harness.static.coreml"
    schemes = frozenset({"uniform", "interleaved", "sink", "chunked"})
    wanted: Mapping[str, frozenset[str]] = dict.fromkeys(
        ("mistral", "gemma2", "llama3-sink4", "llama4"),
        frozenset(
            {"chunk-4", "decode-3wraps", "prefill-3w+5", "ragged-primes", "reset-after-3wraps"}
        ),
    )

    @classmethod
    def covers(cls, check: str, case: Case) -> bool:
        """`visibility` on the short models only: it runs the program once per token."""
        if check == "visibility" and case.model.name not in {"mistral", "llama3-sink4"}:
            return False
        return super().covers(check, case)

    def open(self, case: Case) -> Decoder:
        """A decoder around the program.  Raises Unsupported for what it was not lowered for."""
        self.claim(case)
        graph = Lazy(lambda: self.graph(case))
        return own_export.static_run(case, self._layout(case), {"forward": CHUNK}, graph)

    def exportable(self, case: Case) -> Exportable:
        """The graph that is lowered."""
        return own_export.static_exportable(case, self._layout(case), (CHUNK,))

    def lowered(self, case: Case) -> Entry:
        """The program of a case's model."""
        layout = self._layout(case.with_dtype("float32"))
        return self._cached(case, {"graph": "harness.static", "layout": repr(layout)})

    def profile(self, case: Case) -> list[int]:
        """Bytes of each layer's keys and values in cache_len slots; the same at any context."""
        layout = self._layout(case)
        return [layout.layer_bytes(i) for i in range(case.model.n_layers)]

    def _layout(self, case: Case) -> StaticLayout:
        room = CONTEXT - CHUNK
        if case.max_context > room and not all(layer.bounded for layer in case.model.layers):
            raise Unsupported(
                f"full layers are lowered for {room} positions, the case needs {case.max_context}"
            )
        lens = model_cache_lens(case.model, CONTEXT, CHUNK)
        dtype = getattr(torch, case.dtype)
        return StaticLayout(case.model, lens, dtype=dtype, mask_value=MASKED)
