"""Block-banded attention as subjects: with its own block sizes, and with tiny ones."""

from __future__ import annotations

from torch import Tensor

from harness.contract import Unsupported
from harness.law import Layer
from harness.schemes.band.kernel import banded
from harness.schemes.band.sizes import Sizes


class Banded:
    """`harness.schemes.band.kernel.banded`, with its own block sizes."""

    name = "harness.banded"
    suite = "fa2_routing"
    schemes = frozenset({"uniform"})
    linear_memory = True
    sizes: Sizes | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        return banded(q, k, v, window_of(layer), sizes=self.sizes)


class TinyBlocks(Banded):
    """`banded` in blocks of 3 queries and 5 keys: many blocks, and ragged ends, in tiny models.

    By default a block has at least 64 rows, which is longer than most schedules.
    """

    name = "harness.banded.blocks"
    linear_memory = False  # 1024 rows are not a multiple of 3, so the last block differs
    sizes = Sizes(3, 5)


def window_of(layer: Layer) -> int:
    """The window of a layer without sinks or chunks.  Raises Unsupported for any other."""
    if layer.window is None or layer.sink or layer.chunk is not None:
        raise Unsupported(f"needs a layer with a window and nothing else, got {layer}")
    return layer.window
