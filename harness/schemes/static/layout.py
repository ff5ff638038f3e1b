"""Names and shapes of a static graph's caches, masks and rotation tables.

Everything that the graph, its caller and a runner's metadata must agree on comes from a
`StaticLayout`, so that none of them counts layers by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from harness.cases.models import Model
from harness.law import Layer, check_int
from harness.schemes.static.lengths import resolve_cache_len

Style = Literal["shift_pointer", "smart_mask"]
Kind = Literal["k", "v"]


@dataclass(frozen=True)
class StaticLayout:
    """A model's caches as inputs of a graph.

    cache_lens: one per layer, as `resolve_cache_lens` gives them; the one of a layer that reads
    another's cache is ignored.  style: "shift_pointer" keeps valid keys at the end of a cache and
    shifts them, "smart_mask" writes each key to a slot of its own and masks the rest.
    split_heads: one cache per key/value head, (B, C, D), instead of one per layer, (B, H, C, D).
    transpose_k: keys are held as (…, D, C).  mask_value: the number that is added to masked scores;
    -inf, or a large negative number for an engine without infinities.

    Raises ValueError, naming the field, for an invalid batch, style, number of cache_lens,
    cache_len or mask_value.
    """

    model: Model
    cache_lens: tuple[int, ...]
    batch: int = 1
    dtype: torch.dtype = torch.float32
    style: Style = "shift_pointer"
    split_heads: bool = False
    transpose_k: bool = False
    mask_value: float = -math.inf

    def __post_init__(self) -> None:
        check_int("batch", self.batch, 1)
        if self.style not in get_args(Style):
            raise ValueError(f"style must be one of {get_args(Style)}, got {self.style!r}")
        if len(self.cache_lens) != self.model.n_layers:
            raise ValueError(
                f"cache_lens must have one entry for each of {self.model.name}'s "
                f"{self.model.n_layers} layers, got {len(self.cache_lens)}"
            )
        for i in self.model.cached_layers:
            sink = self.model.layers[i].sink
            check_int(f"cache_lens[{i}]", self.cache_lens[i], sink + 1)
        if not self.mask_value < 0:
            raise ValueError(f"mask_value must be negative, got {self.mask_value!r}")

    def cache_len(self, layer: int) -> int:
        """Length of the cache that a layer reads."""
        return self.cache_lens[self.model.kv_sources[layer]]

    def mask_name(self, layer: int) -> str:
        """The mask of a layer: one per distinct cache length and law, "c4096w4096" or "c8160"."""
        law, name = self.model.layers[layer], f"c{self.cache_len(layer)}"
        for letter, value in (("w", law.window), ("s", law.sink or None), ("a", law.chunk)):
            name += "" if value is None else f"{letter}{value}"
        return name

    @cached_property
    def masks(self) -> dict[str, tuple[int, Layer]]:
        """Cache length and law of each mask, in the order of the first layer that uses it."""
        layers = range(self.model.n_layers)
        return {self.mask_name(i): (self.cache_len(i), self.model.layers[i]) for i in layers}

    def cache_names(self, layer: int) -> tuple[str, ...]:
        """Caches that a layer owns: "l3", or "l3h0", "l3h1" where heads are split."""
        if layer not in self.model.cached_layers:
            return ()
        if not self.split_heads:
            return (f"l{layer}",)
        return tuple(f"l{layer}h{head}" for head in range(self.model.layer_kv_heads(layer)))

    def seq_dim(self, kind: Kind) -> int:
        """The axis of a "k" or "v" cache that counts positions."""
        return -1 if kind == "k" and self.transpose_k else -2

    def cache_shape(self, layer: int, kind: Kind) -> tuple[int, ...]:
        """Shape of each of a layer's "k" or "v" caches."""
        length, width = self.cache_lens[layer], self.model.layer_head_dim(layer)
        heads = () if self.split_heads else (self.model.layer_kv_heads(layer),)
        last = (width, length) if self.seq_dim(kind) == -1 else (length, width)
        return (self.batch, *heads, *last)

    def empty_caches(self, kind: Kind) -> dict[str, Tensor]:
        """Zeros for every cache, by name, layer by layer."""
        return {
            name: torch.zeros(self.cache_shape(i, kind), dtype=self.dtype)
            for i in self.model.cached_layers
            for name in self.cache_names(i)
        }

    def rope_name(self, layer: int) -> str:
        """The rotation table of a layer: one per distinct head_dim, "d64"."""
        return f"d{self.model.layer_head_dim(layer)}"

    @cached_property
    def rope_dims(self) -> dict[str, int]:
        """head_dim of each rotation table."""
        return {self.rope_name(i): self.model.layer_head_dim(i) for i in range(self.model.n_layers)}

    def layer_bytes(self, layer: int) -> int:
        """Bytes of the caches that a layer owns, keys and values; 0 if it reads another's."""
        if layer not in self.model.cached_layers:
            return 0
        item = torch.empty((), dtype=self.dtype).element_size()
        one = math.prod(self.cache_shape(layer, "v")) * item
        return 2 * one * len(self.cache_names(layer))


def model_cache_lens(model: Model, max_context_len: int, input_len: int) -> tuple[int, ...]:
    """Cache lengths from the laws of a model's layers, including sinks and chunked layers.

    For a model with neither, they equal `resolve_cache_lens` with its window and layer types.
    """
    available = resolve_cache_len(max_context_len, input_len)

    def cache_len(layer: Layer) -> int:
        turns = [turn for turn in (layer.window, layer.chunk) if turn is not None]
        return min(available, layer.sink + min(turns)) if turns else available

    return tuple(cache_len(layer) for layer in model.layers)
