"""What a subject hands over to be exported: its graph, and what feeds the graph.

Any subject may have the member ``exportable(case) -> Exportable``.  It raises `Unsupported` for a
case whose graph it does not export.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from harness.contract import Decoder

#: Anything that answers as the exported module does: the module, a program, a method of a runtime.
Graph = Callable[..., Any]

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Dynamic:
    """Example arguments and `torch.export`'s dynamic_shapes, for one program of all lengths."""

    args: tuple[Any, ...]
    shapes: Any


@dataclass(frozen=True)
class Exportable:
    """A graph as `torch.export` takes it, and the decoder around it.

    module: pure tensor code without gradients; its state, if any, is in buffers, and is fresh.
    methods: example arguments by method name, one method for each shape that the case needs.
    drive: makes a fresh decoder of the case around the module, or around what replaces it.
    dynamic: for graphs that take chunks of any length in one program.
    """

    module: nn.Module
    methods: Mapping[str, tuple[Any, ...]]
    drive: Callable[[Graph], Decoder]
    dynamic: Dynamic | None = None

    def export_static(self) -> dict[str, ExportedProgram]:
        """One program per method, each of fixed shapes."""
        return {name: _export(self.module, args) for name, args in self.methods.items()}

    def export_dynamic(self) -> ExportedProgram:
        """The program for all lengths.  Raises ValueError if there is none."""
        if self.dynamic is None:
            raise ValueError("this graph is exported with static shapes only")
        return _export(self.module, self.dynamic.args, self.dynamic.shapes)


def _export(module: nn.Module, args: tuple[Any, ...], shapes: Any = None) -> ExportedProgram:
    with quiet():
        return torch.export.export(module, args, dynamic_shapes=shapes, strict=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress what exporting and lowering log and warn about, except errors.

    torch logs each step of an export.  If someone listens, as pytest does, that takes longer than
    the export itself.
    """
    was = logging.root.manager.disable
    logging.disable(max(was, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(was)


def by_shape(exportable: Exportable, programs: Mapping[str, ExportedProgram]) -> Graph:
    """Static programs as one graph: a call goes to the program that was made for its shapes.

    All of them work on the same state, like methods of a lowered program that share their buffers.
    The graph raises ValueError for shapes that no program has.
    """
    graphs: dict[Shapes, nn.Module] = {}
    state: dict[str, Tensor] = {}
    for name, program in programs.items():
        graph = program.module()
        _share(graph, state)
        graphs[shapes_of(exportable.methods[name])] = graph

    def call(*args: Any) -> Any:
        shapes = shapes_of(args)
        if shapes not in graphs:
            raise ValueError(f"no method was exported for arguments of shapes {shapes}")
        return graphs[shapes](*args)

    return call


def shapes_of(args: Iterable[Any]) -> Shapes:
    """Shapes of all tensors in a tuple of arguments, in flattened order."""
    return tuple(tuple(t.shape) for t in pytree.tree_leaves(tuple(args)))


def _share(graph: nn.Module, state: dict[str, Tensor]) -> None:
    """Replace a program's buffers by those in `state`; those that `state` lacks are added to it."""
    for name, buffer in list(graph.named_buffers()):
        owner, _, leaf = name.rpartition(".")
        graph.get_submodule(owner)._buffers[leaf] = state.setdefault(name, buffer)
