"""llama.cpp as its command line opens a context: flash attention, keys and values in float16."""

from __future__ import annotations

from dataclasses import replace

from harness.runtimes.llama_context import Options
from harness.subjects.llama_cpp.decoder import LlamaCppSubject, LlamaDecoder


class FlashDecoder(LlamaDecoder):
    """The fused kernel over a float16 cache."""

    def options(self) -> Options:
        """As `llama-cli` without options."""
        return replace(super().options(), flash="on", k_type="f16", v_type="f16")


class Flash(LlamaCppSubject):
    """llama.cpp with flash attention: who attends to whom, resets and purity.

    The kernel sums values in float16, in an order of its own, so that no dense run in float32
    tells how far its values may be off; with plain attention they are shown.
    """

    name = "llama.cpp.flash"
    decoder = FlashDecoder
    checks = frozenset({"visibility", "reset", "purity"})  # what needs no bound of float16
