"""llama.cpp from the `xllamacpp` wheel: a whole decoder, called through its C API.

Every geometry that is claimed is run as a tiny random Gemma 3, written as GGUF, because llama.cpp
bounds Gemma 3's sliding layers.  It fixes Gemma 3's pattern at five sliding layers and a full one,
so a uniform model has at most five layers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.cases.models import Model
from harness.contract import Unsupported
from harness.estimate.geometry import from_model
from harness.estimate.profiles.base import Request
from harness.estimate.profiles.llama_cpp import LlamaCpp
from harness.law import Layer
from harness.reference.decoder import check_tokens
from harness.results.finding import NAMES
from harness.runtimes import gemma3, gguf_file, llama_sequences
from harness.runtimes.llama_context import LlamaContext, LlamaModel, Options
from harness.schemes.validation import check_rewind

#: The most sequences in one context here; llama.cpp takes no more than 256.
_MOST_SEQUENCES = 64
_MICRO_BATCH = 64
#: llama.cpp rounds contexts, and windows plus a micro-batch, up to a multiple of this many cells.
CELLS = 256


class LlamaDecoder:
    """One sequence per row of the batch, each with cells of its own."""

    def __init__(self, case: Case) -> None:
        if case.batch > _MOST_SEQUENCES:
            raise Unsupported(f"one context holds up to {_MOST_SEQUENCES} sequences here")
        self.case, self.length = case, 0
        self._context: LlamaContext | None = None

    @property
    def context(self) -> LlamaContext:
        """The context, made on first use: a float64 decoder only runs the dense reference."""
        if self._context is None:
            if self.case.dtype != "float32":
                raise Unsupported("claimed in float32 only")
            model = loaded(self.case.model, self.case.vocab, self.case.weights_seed)
            self._context = LlamaContext(model, self.options())
        return self._context

    def options(self) -> Options:
        """Float32 keys and values and no flash attention, so that rounding cannot hide a key."""
        fed = self.case.batch * self.case.max_chunk
        return Options(
            n_ctx=self.case.batch * padded(self.case.max_context),
            n_batch=max(2048, fed),
            n_ubatch=_MICRO_BATCH,
            n_seq_max=self.case.batch,
            flash="off",
            k_type="f32",
            v_type="f32",
        )

    def feed(self, tokens: Tensor) -> Tensor:
        """tokens (B, t) int64 -> logits (B, t, V), by one ``llama_decode``."""
        context, most = self.context, self.options().n_batch
        check_tokens(tokens, self.case.batch, self.case.vocab)
        if tokens.numel() > most:
            raise ValueError(f"takes at most n_batch={most} tokens, got {tokens.numel()}")
        rows = range(self.case.batch)
        logits = llama_sequences.decode(context, tokens, self.length, rows, self.case.vocab)
        self.length += tokens.shape[1]
        return logits

    def reset(self) -> None:
        """``llama_memory_clear``."""
        llama_sequences.clear(self.context)
        self.length = 0

    def rewind(self, length: int) -> None:
        """``llama_memory_seq_rm`` for positions >= length, as applications do for rejected drafts.

        Raises RuntimeError if it says that it cannot, and ValueError for a length that is not held:
        there positions would be removed that nobody asked for, or none.
        """
        check_rewind(length, self.length)
        for row in range(self.case.batch):
            if not llama_sequences.forget(self.context, row, length):
                raise RuntimeError(f"llama_memory_seq_rm refused to remove positions >= {length}")
        self.length = length

    def cache_bytes(self) -> list[int]:
        """Bytes of each layer's cells."""
        return self.context.layer_bytes(self.case.model.n_layers)

    def dense(self, tokens: Tensor, layers: Sequence[Layer] | None = None) -> Tensor:
        """tokens (B, n) -> logits (B, n, V): the same weights, masks from the law."""
        weights = gemma3.make(self.case.model, self.case.vocab, self.case.weights_seed)
        return gemma3.dense(weights.to(getattr(torch, self.case.dtype)), tokens, layers)


class LlamaCppSubject:
    """llama.cpp with one sequence per row of the batch."""

    package = "xllamacpp"
    name = "llama.cpp"
    dense_key = gemma3.DENSE_KEY
    schemes = frozenset({"full", "uniform", "interleaved"})
    decoder: type[LlamaDecoder] = LlamaDecoder
    models: tuple[str, ...] = (
        "gemma3",
        "mistral",
        "mistral-w1",
        "mistral-w9",
        "mistral-w64",
        "llama3",
    )

    #: All but the check that needs PyTorch's allocator.
    checks = frozenset(NAMES) - {"peak_bytes"}

    @classmethod
    def covers(cls, check: str, case: Case) -> bool:
        """False for other models, and for byte counts that say little."""
        if case.model.name.partition(".")[0] not in cls.models:
            return False
        # llama.cpp allocates at least 256 cells, thirty times these windows.
        return check != "cache_bytes" or case.model.name == "llama3"

    def open(self, case: Case) -> LlamaDecoder:
        """A fresh decoder.  Raises Unsupported for a model or batch that is not claimed."""
        if case.model.name.partition(".")[0] not in self.models:
            raise Unsupported(f"claimed for {', '.join(self.models)} only")
        return self.decoder(case)

    def profile(self, case: Case) -> list[int]:
        """Bytes per layer, from the estimator's profile of llama.cpp."""
        options = self.decoder(case).options()
        runtime = LlamaCpp(options.n_batch, options.n_ubatch, flash_attention=False)
        request = Request(options.n_ctx, case.batch, k_type="f32", v_type="f32")
        return runtime.layer_bytes(from_model(gemma3.as_gemma3(case.model)), request)


@lru_cache(maxsize=64)
def loaded(model: Model, vocab: int, seed: int) -> LlamaModel:
    """A model, written as GGUF and loaded; kept and shared between cases."""
    path = Path(_folder()) / f"{model.name}-{seed}.gguf"
    weights, sizes = gemma3.make(model, vocab, seed).gguf(), (gemma3.HIDDEN, gemma3.FEED_FORWARD)
    gguf_file.write_weights(gemma3.as_gemma3(model), path, weights, *sizes)
    return LlamaModel(path)


def padded(positions: int) -> int:
    """Cells that llama.cpp gives to a sequence of this many positions."""
    return -(-positions // CELLS) * CELLS


@cache
def _folder() -> str:
    """A folder for this process's files; its finalizer removes it."""
    folder = tempfile.TemporaryDirectory(prefix="harness-gguf-")
    _kept.append(folder)
    return folder.name


_kept: list[tempfile.TemporaryDirectory[str]] = []
