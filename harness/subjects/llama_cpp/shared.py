"""llama.cpp with two conversations in one unified cache, as a server with parallel slots has it.

What one conversation's windows have passed is room for the other: a short window loses its cells
as soon as the neighbour speaks, where by itself it would need hundreds of tokens.  So eviction is
reached at any window, and with it what ``llama_memory_seq_rm`` promises behind it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.contract import Unsupported
from harness.runtimes import llama_sequences
from harness.runtimes.llama_context import Options
from harness.subjects.llama_cpp.decoder import CELLS, LlamaCppSubject, LlamaDecoder, padded

_NEIGHBOUR = 1


class SharedDecoder(LlamaDecoder):
    """After each feed another request of as many tokens as there are cells comes, and goes."""

    def __init__(self, case: Case) -> None:
        if case.batch != 1:
            raise Unsupported("one conversation beside its neighbour")
        super().__init__(case)

    def options(self) -> Options:
        """Two sequences in one buffer; in full layers there is room for both."""
        room = padded(self.case.max_context) + CELLS
        return replace(super().options(), n_ctx=room, n_seq_max=2, unified=True)

    def feed(self, tokens: Tensor) -> Tensor:
        """Feed the conversation, then its neighbour."""
        logits = super().feed(tokens)
        self._neighbour_speaks()
        return logits

    def _neighbour_speaks(self) -> None:
        """Sliding layers have CELLS cells: so many tokens pass over every one that is free."""
        spoken = torch.zeros(1, CELLS, dtype=torch.int64)
        llama_sequences.decode(self.context, spoken, 0, [_NEIGHBOUR], self.case.vocab)
        llama_sequences.forget(self.context, _NEIGHBOUR, 0)


class Shared(LlamaCppSubject):
    """llama.cpp beside a neighbour."""

    name = "llama.cpp.shared"
    decoder = SharedDecoder
    schemes = frozenset({"interleaved"})
    models = ("gemma3",)

    @classmethod
    def covers(cls, check: str, case: Case) -> bool:
        """Values and rewinds; visibility, one run per token, under one schedule that evicts."""
        if case.batch != 1 or not super().covers(check, case):
            return False
        if check == "visibility":
            return case.model.name == "gemma3.sliding" and case.schedule.name == "chunk-w+1"
        return check in {"values", "rewind"}
