"""Lowered programs run by ExecuTorch in this process, and what their subjects share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from harness.cases.case import Case
from harness.contract import Unsupported
from harness.export.exportable import Graph
from harness.export.program_cache import Entry
from harness.subjects.executorch import lowering


class Program:
    """A program with its own state: in each instance the buffers start as they were lowered."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self._program = lowering.runtime().load_program(entry.payload)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods that were lowered from a graph, not of the constant ones."""
        return tuple(self.entry.facts["outputs"])

    def execute(self, name: str) -> Callable[[Sequence[Any]], list[Tensor]]:
        """A method as a function of flattened inputs."""

        def run(inputs: Sequence[Any]) -> list[Tensor]:
            # Looked up on each call (but loaded once): a method does not keep its program alive.
            outputs = self._program.load_method(name).execute(list(inputs))
            # Outputs lie in the planned memory, which the next call overwrites.
            return [output.clone() for output in outputs]

        return run

    def ask(self, name: str) -> Any:
        """The value that a constant method returns."""
        return self._program.load_method(name).execute([])[0]

    def state_bytes(self, name: str) -> int:
        """Bytes of a method's mutable buffers, as the runtime reports them."""
        about = self._program.metadata(name)
        return sum(about.attribute_tensor_meta(i).nbytes() for i in range(about.num_attributes()))

    def graph(self, name: str = "forward") -> Graph:
        """A method called like the exported module, with nested arguments and outputs."""
        run = self.execute(name)
        spec = pytree.treespec_loads(self.entry.facts["outputs"][name])

        def call(*args: Any) -> Any:
            return pytree.tree_unflatten(run(pytree.tree_leaves(args)), spec)

        return call


class Lazy:
    """A graph that is made on its first call: dense runs of a decoder need none."""

    def __init__(self, make: Callable[[], Graph]) -> None:
        self._make = make
        self._graph: Graph | None = None

    @torch.no_grad()
    def __call__(self, *args: Any) -> Any:
        if self._graph is None:
            self._graph = self._make()
        return self._graph(*args)


class LoweredSubject:
    """What all subjects share whose decoders run a lowered program.

    `program_bytes` is an optional member of any lowered subject: the export check records each of
    its numbers under its name.
    """

    name: str
    package = "executorch"

    def lowered(self, case: Case) -> Entry:
        """The program of a case, lowered if need be."""
        raise NotImplementedError

    def program_bytes(self, case: Case) -> dict[str, int]:
        """Exact bytes: planned_bytes, mutable_bytes, pte_bytes.

        XNNPACK allocates a workspace of its own when a method is loaded, which no plan shows.
        """
        entry = self.lowered(case)
        facts = entry.facts
        return {
            "planned_bytes": sum(facts["planned"].values()),
            "mutable_bytes": sum(sum(sizes.values()) for sizes in facts["buffers"].values()),
            "pte_bytes": len(entry.payload),
        }

    def claim(self, case: Case) -> None:
        """Raise Unsupported for a batch or dtype that no program is lowered for."""
        if case.batch != 1:
            raise Unsupported(f"programs are lowered for batch 1, got {case.batch}")
        # A float64 decoder is opened only for its dense runs.
        if case.dtype not in {"float32", "float64"}:
            raise Unsupported(f"programs are lowered in float32, got {case.dtype}")

    def program(self, case: Case) -> Program:
        """The program of a case, loaded with fresh state."""
        return Program(self.lowered(case.with_dtype("float32")))
