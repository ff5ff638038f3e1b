"""llama.cpp: one buffer of cells for full layers, one for sliding layers, allocated up front.

Sizes are those of `llama_kv_cache_iswa`: a sliding layer takes the window plus one micro-batch,
and the sum is rounded up to 256 cells.  Each sequence has a stream of its own unless the cache is
unified.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from harness.estimate.elements import GGML
from harness.estimate.geometry import Geometry, KVLayer
from harness.estimate.profiles.base import (
    PLAIN,
    Honours,
    Profile,
    Request,
    UnsupportedCache,
    check_int,
    pad,
)

_CELLS = 256  # llama.cpp rounds contexts and windows up to this


@dataclass(frozen=True)
class LlamaCpp(Profile):
    """llama.cpp with the options of `llama_context_params`.

    The request's `context` is n_ctx, the cells of all sequences together.
    n_batch, n_ubatch: tokens of a logical and of a physical batch.
    swa_full: sliding layers are kept like full ones (by default true in the C API, false on the
    command line).
    unified: all sequences share one buffer.
    flash_attention: if false, values are stored transposed, each layer as wide as the widest.
    Raises RequestError naming the option.
    """

    n_batch: int = 2048
    n_ubatch: int = 512
    swa_full: bool = False
    unified: bool = False
    flash_attention: bool = True

    name: ClassVar[str] = "llama.cpp"
    evidence: ClassVar[str] = "its own log"
    stores: ClassVar[frozenset[str]] = PLAIN | GGML
    honoured: ClassVar[frozenset[str]] = frozenset(
        {
            *("gemma2", "gemma3", "gemma3n", "gemma4", "gpt-oss", "cohere2", "llama4"),
            *("afmoe", "mimo2", "olmo2", "plamo3", "smallthinker", "step35"),
        }
    )
    ignored: ClassVar[frozenset[str]] = frozenset(
        {"mistral", "mistral3", "phi3", "phimoe", "qwen2", "llama", "starcoder2"}
    )
    keeps: ClassVar[frozenset[str]] = frozenset({"latent"})

    def __post_init__(self) -> None:
        check_int("n_batch", self.n_batch)
        check_int("n_ubatch", self.n_ubatch)

    def honours(self, geometry: Geometry) -> Honours:
        """By family; of EXAONE 4 it knows the windows of the model of 64 layers alone."""
        known = super().honours(geometry)
        if known is Honours.UNKNOWN and geometry.family == "exaone4":
            return Honours.YES if len(geometry.layers) == 64 else Honours.NO
        return known

    def layer_bytes(self, geometry: Geometry, request: Request) -> list[int]:
        """Bytes per layer, the same in every phase: nothing grows.

        Raises UnsupportedCache for a storage type that llama.cpp does not have, quantized values
        without flash attention, and a head that is not a whole number of blocks.
        """
        values = request.elements[1]
        self.check_types(request)
        self.check_states(geometry)
        if values.quantized and not self.flash_attention:
            raise UnsupportedCache(
                f"llama.cpp stores values as {values.name} only with flash attention"
            )
        honoured = self.honours(geometry) is Honours.YES and not self.swa_full
        widest = max(layer.v_width for layer in geometry.layers)
        streams = 1 if self.unified else request.sequences
        sizes = []
        for layer in geometry.layers:
            if not layer.owns:
                sizes.append(0)
                continue
            cell = self._cell(layer, request, widest)
            sizes.append(streams * self.cells(layer, request, honoured=honoured) * cell)
        return sizes

    def _cell(self, layer: KVLayer, request: Request, widest: int) -> int:
        """Bytes of one cell.  widest: the most numbers that a layer's values have."""
        keys, values = request.elements
        v_width = layer.v_width if self.flash_attention else widest
        try:
            if layer.latent:  # latent and rotary key are one row of keys, and there are no values
                return keys.bytes_of(layer.k_width + layer.v_width)
            # If one head is a whole number of blocks, a row of all heads is, too.
            keys.bytes_of(layer.k_dim)
            values.bytes_of(layer.v_dim)
        except ValueError as error:
            raise UnsupportedCache(str(error)) from error
        return keys.bytes_of(layer.k_width) + values.bytes_of(v_width)

    def cells(self, layer: KVLayer, request: Request, *, honoured: bool = True) -> int:
        """Cells of a layer in one stream.  honoured: False if it is kept like a full layer."""
        full = self._context(request)
        reach = layer.reach
        if reach is None or not honoured:
            return full
        shared = request.sequences if self.unified else 1
        return pad(min(full, reach * shared + self._micro_batch(request)), _CELLS)

    def _context(self, request: Request) -> int:
        """n_ctx_seq: cells of a full layer in one stream."""
        n_ctx = pad(request.context, _CELLS)
        return n_ctx if self.unified else pad(n_ctx // request.sequences, _CELLS)

    def _micro_batch(self, request: Request) -> int:
        return min(self.n_ubatch, self.n_batch, pad(request.context, _CELLS))
