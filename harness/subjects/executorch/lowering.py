"""Graphs lowered to ExecuTorch programs (.pte), kept in the program cache.

executorch is imported only when a program has to be lowered or run.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from typing import Any, Literal

from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from harness.export import sources
from harness.export.exportable import quiet
from harness.export.program_cache import Entry, ProgramCache

Backend = Literal["portable", "xnnpack"]

#: Folders of the release whose code determines what a program looks like.
_RELEASED = ("exir", "examples/models/llama", "extension/llm/export", "backends/xnnpack")

#: Modules whose source is not hashed: a program depends on a case only by its model, seed and
#: shapes, whose values are in the key.  So a new schedule lowers nothing again.
_BY_VALUE = frozenset({"harness.cases.case", "harness.cases.schedules"})

_memory: dict[str, Entry] = {}


def cached(
    name: str, sources_of: Sequence[str], what: Mapping[str, object], make: Callable[[], Entry]
) -> Entry:
    """The program that `make()` lowers, taken from the cache if it is there.

    sources_of: modules whose code, with all that they import from this package, builds the graph;
    what: everything else that determines the graph (geometry, shapes, seed, backend), as values
    that JSON can hold.
    """
    key = {
        "what": dict(what),
        "sources": sources.digest(__name__, *sources_of, apart=_BY_VALUE),
        "release": sources.digest_folders("executorch", *_RELEASED),
        "versions": {p: metadata.version(p) for p in ("executorch", "torch", "torchao")},
        "machine": platform.machine(),  # random weights may differ in their last bits
    }
    cache = ProgramCache()
    path = str(cache.path(name, key))
    if path not in _memory:
        _memory[path] = cache.get(name, key, make)
    return _memory[path]


def lower(
    programs: Mapping[str, ExportedProgram],
    backend: Backend,
    *,
    constants: Mapping[str, Any] | None = None,
    initialised: Sequence[str] = (),
) -> Entry:
    """One program with a method per exported program.

    constants: constant methods; initialised: parts of the names of those mutable buffers that
    start with the module's values.  All others start as zeros: only their shapes are stored.
    """
    with quiet():
        from executorch.exir import (
            EdgeCompileConfig,
            ExecutorchBackendConfig,
            to_edge_transform_and_lower,
        )
        from executorch.exir.passes.init_mutable_pass import InitializedMutableBufferPass

        edge = to_edge_transform_and_lower(
            dict(programs),
            partitioner=_partitioners(backend),
            constant_methods=dict(constants or {}),
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        buffers = {name: mutable_buffers(edge.exported_program(name)) for name in programs}
        lowered = edge.to_executorch(
            ExecutorchBackendConfig(
                passes=[InitializedMutableBufferPass(list(initialised))],
                emit_mutable_buffer_names=True,
            )
        )
    return entry(lowered, buffers, programs)


def entry(
    lowered: Any,
    buffers: Mapping[str, Mapping[str, int]],
    programs: Mapping[str, ExportedProgram],
) -> Entry:
    """A lowered program with the facts that checks and runtime need.

    planned: bytes of each method's memory plan, including its inputs and mutable buffers;
    buffers: bytes of each mutable buffer; outputs: how each method's outputs are nested.
    """
    plans = {p.name: p for p in lowered.executorch_program.execution_plan}
    facts = {
        "planned": {name: sum(plans[name].non_const_buffer_sizes) for name in programs},
        "buffers": {name: dict(buffers[name]) for name in programs},
        "outputs": {
            name: pytree.treespec_dumps(_spec(exported)) for name, exported in programs.items()
        },
    }
    return Entry(bytes(lowered.buffer), facts)


def _spec(exported: ExportedProgram) -> pytree.TreeSpec:
    spec: pytree.TreeSpec = exported.call_spec.out_spec
    return spec


def mutable_buffers(exported: ExportedProgram) -> dict[str, int]:
    """Bytes of each buffer that an exported program changes, by its name in the module."""
    names = exported.graph_signature.buffers_to_mutate.values()
    state = {**exported.constants, **exported.state_dict}
    return {name: state[name].nbytes for name in names}


def _partitioners(backend: Backend) -> list[Any]:
    if backend == "portable":
        return []
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    return [XnnpackPartitioner()]


@lru_cache(maxsize=1)
def runtime() -> Any:
    """The one ExecuTorch runtime of this process."""
    with quiet():
        from executorch.runtime import Runtime
    return Runtime.get()
