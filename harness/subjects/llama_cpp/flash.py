"""llama.cpp as its command line runs it: flash attention, keys and values in float16."""

from __future__ import annotations

from dataclasses import replace

from harness.runtimes.llama_context import Options
from harness.subjects.llama_cpp.decoder import LlamaCppSubject, LlamaDecoder


class FlashDecoder(LlamaDecoder):
    """The fused kernel over a float16 cache."""

    def options(self) -> Options:
        """As `llama-cli` sets them without options."""
        return replace(super().options(), flash="on", k_type="f16", v_type="f16")


class Flash(LlamaCppSubject):
    """llama.cpp with flash attention; `values` and what depends on a bound are left out.

    The kernel sums values in float16, in its own order, so no dense float32 run can say how far off
    they may be.  `llama.cpp` checks them with plain attention.
    """

    name = "llama.cpp.flash"
    decoder = FlashDecoder
    checks = frozenset({"visibility", "reset", "purity"})  # those that need no bound
