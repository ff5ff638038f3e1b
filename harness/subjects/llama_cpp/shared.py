"""llama.cpp with two conversations in one unified cache, as in a server with parallel slots.

Cells that one conversation's window has passed are free for the other: a short window loses them as
soon as the other conversation is fed, where alone it would need hundreds of tokens.  So eviction
happens at any window, and shows whether rewinds by ``llama_memory_seq_rm`` are right after it.
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
    """After each feed, a second conversation takes as many tokens as there are cells, and ends."""

    def __init__(self, case: Case) -> None:
        if case.batch != 1:
            raise Unsupported("claimed at batch 1 only, beside a second conversation")
        super().__init__(case)

    def options(self) -> Options:
        """Two sequences in one buffer; in full layers there is room for both."""
        room = padded(self.case.max_context) + CELLS
        return replace(super().options(), n_ctx=room, n_seq_max=2, unified=True)

    def feed(self, tokens: Tensor) -> Tensor:
        """Feed the conversation, then the second one."""
        logits = super().feed(tokens)
        self._neighbour_speaks()
        return logits

    def _neighbour_speaks(self) -> None:
        """Sliding layers have CELLS cells: as many tokens overwrite every free one."""
        spoken = torch.zeros(1, CELLS, dtype=torch.int64)
        llama_sequences.decode(self.context, spoken, 0, [_NEIGHBOUR], self.case.vocab)
        llama_sequences.forget(self.context, _NEIGHBOUR, 0)


class Shared(LlamaCppSubject):
    """llama.cpp with a second conversation in the same cache."""

    name = "llama.cpp.shared"
    decoder = SharedDecoder
    schemes = frozenset({"interleaved"})
    models = ("gemma3",)

    @classmethod
    def covers(cls, check: str, case: Case) -> bool:
        """`values` and `rewind`; `visibility`, one run per token, on one schedule that evicts."""
        if case.batch != 1 or not super().covers(check, case):
            return False
        if check == "visibility":
            return case.model.name == "gemma3.sliding" and case.schedule.name == "chunk-w+1"
        return check in {"values", "rewind"}
