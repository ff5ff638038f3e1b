"""The band of blocks as subjects: with its own block sizes, and with tiny ones."""

from __future__ import annotations

from torch import Tensor

from harness.contract import Unsupported
from harness.law import Layer
from harness.schemes.band.kernel import Sizes, banded


class Banded:
    """`banded` as it is used."""

    name = "harness.banded"
    suite = "fa2_routing"
    schemes = frozenset({"uniform"})
    linear_memory = True
    sizes: Sizes | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        return banded(q, k, v, window_of(layer), sizes=self.sizes)


class TinyBlocks(Banded):
    """Blocks of three queries and five keys: tiny models then have many of them, and ragged ends.

    By default a block is never below 64 rows, which is longer than most schedules.
    """

    name = "harness.banded.blocks"
    linear_memory = False  # 1024 rows are no multiple of 3: the last block differs
    sizes = Sizes(3, 5)


def window_of(layer: Layer) -> int:
    """The window of a layer that has nothing else.  Raises Unsupported for any other."""
    if layer.window is None or layer.sink or layer.chunk is not None:
        raise Unsupported(f"needs a layer with a window and no more, got {layer}")
    return layer.window
