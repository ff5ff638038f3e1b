"""vLLM: blocks of slots, and the upper bound that its planner assumes for one request.

A bounded layer may hold its window (or chunk) and one batch of prompt tokens at once.  The figure
is the most that vLLM reserves for a sequence (`max_memory_usage_bytes` of its cache specs).  Its
whole pool is as large as the memory that it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from harness.estimate.geometry import KVLayer
from harness.estimate.profiles.base import PLAIN, Request, SlotProfile, check_int, pad


@dataclass(frozen=True)
class Vllm(SlotProfile):
    """vLLM.  block: slots in a block.  batched: `max_num_batched_tokens`.

    Raises RequestError naming the option.
    """

    block: int = 16
    batched: int = 8192

    name: ClassVar[str] = "vllm"
    evidence: ClassVar[str] = "its source, not run"
    stores: ClassVar[frozenset[str]] = PLAIN | {"fp8"}
    honoured: ClassVar[frozenset[str]] = frozenset(
        {"gemma2", "gemma3", "gemma3n", "gemma4", "gpt-oss", "cohere2", "mistral", "llama4"}
    )

    def __post_init__(self) -> None:
        check_int("block", self.block)
        check_int("batched", self.batched)

    def layer_slots(self, layer: KVLayer, request: Request, *, honoured: bool) -> int:
        """Slots in the blocks that a sequence may need at most."""
        context = request.context
        full = pad(context, self.block)
        if not honoured:
            return full
        if layer.law.window is not None:
            # One more block, because a window may begin in the middle of a block.
            reach = min(layer.law.window - 1 + self.batched, context)
            return pad(reach, self.block) + self.block
        if layer.law.chunk is not None:
            return pad(min(layer.law.chunk + self.batched, context), self.block)
        return full
