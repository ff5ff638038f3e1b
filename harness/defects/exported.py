"""Defects of exported programs: correct in eager mode, wrong or less general once exported.

Only the `export` check runs the programs, and only that check is planned for these.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from harness.cases.case import Case
from harness.contract import Decoder
from harness.export.exportable import Dynamic, Exportable
from harness.subjects.own import exported as own_export


class SinkGraph:
    """The sink scheme of this package as a graph, correct."""

    name = "correct.sink_graph"
    schemes = frozenset({"uniform", "sink"})
    checks = frozenset({"export"})  # the only check that exports

    def open(self, case: Case) -> Decoder:
        what = own_export.sink_exportable(case)
        return what.drive(what.module)

    def exportable(self, case: Case) -> Exportable:
        """The graph, for chunks of any length."""
        return own_export.sink_exportable(case)


class _Branch(nn.Module):
    """A graph that computes something else once it is exported."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        logits: Tensor = self.module(tokens, positions)
        late = (positions >= 11)[None, :, None]
        return torch.where(late, logits * 1.01, logits) if torch.compiler.is_exporting() else logits


class OffOnceExported(SinkGraph):
    """Takes another branch under torch.export: rows from position 11 on are 1% too large."""

    def exportable(self, case: Case) -> Exportable:
        what = own_export.sink_exportable(case)
        return replace(what, module=_Branch(what.module), dynamic=None)


class SpecializedOnOneLength(SinkGraph):
    """Claims that its program takes chunks of any length, but exports it for a single one."""

    def exportable(self, case: Case) -> Exportable:
        what = own_export.sink_exportable(case)
        assert what.dynamic is not None
        return replace(what, methods={}, dynamic=Dynamic(what.dynamic.args, None))
