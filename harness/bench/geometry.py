"""The shape of one sliding layer's attention call, as benchmarks time it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Geometry:
    """One sliding layer: the length, window, heads and dtype of an attention call at batch 1."""

    length: int
    window: int = 1024
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 256
    dtype: str = "float32"
