"""mlx-lm's RotatingKVCache as one layer's cache, sinks included, in the harness's small decoder.

``make_prompt_cache(model, max_kv_size)`` makes one with ``keep=4`` for every layer: the first
positions stay, the others are overwritten in turn.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.contract import CacheShape, LayerCache, Unsupported
from harness.law import Layer
from harness.results.finding import NAMES
from harness.runtimes.mlx_arrays import to_mlx, to_torch
from harness.schemes.validation import check_rewind


class RotatingLayer:
    """A RotatingKVCache of window + sink slots that keeps the sinks."""

    def __init__(self, layer: Layer, shape: CacheShape) -> None:
        if layer.window is None:
            raise Unsupported("a RotatingKVCache needs a window")
        self.size, self.keep = layer.window + layer.sink, layer.sink
        self.expected = (shape.batch, shape.n_kv_heads, shape.head_dim, shape.dtype)
        self.cache = self._new()

    def _new(self) -> Any:
        from mlx_lm.models.cache import RotatingKVCache

        return RotatingKVCache(max_size=self.size, keep=self.keep)

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Ask for the mask first, then store and fetch, as mlx-lm's models do."""
        mask = self.cache.make_mask(k.shape[2])
        keys, values = (to_torch(x) for x in self.cache.update_and_fetch(to_mlx(k), to_mlx(v)))
        return keys, values, _as_bool(mask, k.shape[2], keys.shape[2])

    def reset(self) -> None:
        """Take a new cache: mlx-lm's have no reset."""
        self.cache = self._new()

    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return int(self.cache.nbytes)

    def rewind(self, length: int) -> None:
        """`trim`.  Raises RuntimeError if the cache says that it cannot be trimmed.

        Raises ValueError for a length that is not held: it is trimmed by a count of tokens.
        """
        if not self.cache.is_trimmable():
            raise RuntimeError(f"cannot go back to {length}: is_trimmable() is False")
        held = self.cache.offset
        self.cache.trim(held - check_rewind(length, held))


def _as_bool(mask: Any, queries: int, keys: int) -> Tensor:
    """The mask that mlx-lm hands to attention, as bool (queries, keys): True = visible."""
    if mask is None:
        return torch.ones(queries, keys, dtype=torch.bool)
    if isinstance(mask, str):  # "causal": the queries are the last of the keys
        return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    return to_torch(mask).view(queries, keys)


class Rotating:
    """One RotatingKVCache per sliding layer."""

    package = "mlx-lm"
    name = "mlx.rotating"
    schemes = frozenset({"uniform", "sink"})
    #: Not the bytes: the harness would look for them in PyTorch's storages.
    checks = frozenset(NAMES) - {"cache_bytes", "peak_bytes"}

    def new_cache(self, layer: Layer, shape: CacheShape) -> LayerCache:
        """An empty cache.  Raises Unsupported for a layer without a window."""
        return RotatingLayer(layer, shape)
