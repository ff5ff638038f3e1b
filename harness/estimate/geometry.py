"""Geometry of a model's KV cache: all that its bytes depend on, and where each figure comes from.

Readers make a `Geometry` (`hf_config`, `gguf_file`, `model_id`); profiles turn one into bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from harness.cases.models import Model
from harness.estimate.families import canonical
from harness.law import Layer


class GeometryError(Exception):
    """A model's geometry cannot be told; one line says what was read and what is missing."""


class Sure(StrEnum):
    """How sure a figure is, from the surest down."""

    STATED = "stated"  # the file says so
    FAMILY = "family"  # the files of this architecture leave it out and its code fixes it
    DERIVED = "derived"  # follows from stated figures
    TABLE = "table"  # the published geometry of the model of this name


@dataclass(frozen=True)
class Fact:
    """One figure, as shown to people.

    source: the key or rule that it was read from, e.g. "text_config.sliding_window".
    """

    field: str
    value: str
    source: str
    sure: Sure


@dataclass(frozen=True)
class KVLayer:
    """One attention layer as its cache sees it.

    law: who sees whom; kv_heads, k_dim, v_dim: key/value heads and numbers per head.
    reads: index of the layer whose keys and values it reads; None: it owns a cache.
    """

    law: Layer
    kv_heads: int
    k_dim: int
    v_dim: int
    reads: int | None = None

    @property
    def owns(self) -> bool:
        return self.reads is None

    @property
    def k_width(self) -> int:
        """Numbers of one position's keys."""
        return self.kv_heads * self.k_dim

    @property
    def v_width(self) -> int:
        """Numbers of one position's values."""
        return self.kv_heads * self.v_dim

    @property
    def reach(self) -> int | None:
        """Keys that a query sees at most: the window, the chunk, or None for all of them."""
        return self.law.window or self.law.chunk

    @property
    def kind(self) -> str:
        """ "full", "sliding" or "chunked"."""
        if self.law.window is not None:
            return "sliding"
        return "full" if self.law.chunk is None else "chunked"


@dataclass(frozen=True)
class Geometry:
    """A model's layers, and the facts that they were made from.

    family: architecture as `families.canonical` spells it, e.g. "gemma3", "gpt-oss", "llama".
    """

    name: str
    family: str
    layers: tuple[KVLayer, ...]
    facts: tuple[Fact, ...] = ()

    @property
    def bounded(self) -> bool:
        """True if any layer slides or is chunked."""
        return any(layer.law.bounded for layer in self.layers)


def from_model(model: Model, facts: Iterable[Fact] = ()) -> Geometry:
    """The geometry of a model of the table (`harness.cases.models`), published or tiny."""
    layers = tuple(
        KVLayer(
            law=model.layers[i],
            kv_heads=model.layer_kv_heads(i),
            k_dim=model.layer_head_dim(i),
            v_dim=model.layer_head_dim(i),
            reads=None if source == i else source,
        )
        for i, source in enumerate(model.kv_sources)
    )
    return Geometry(model.name, canonical(model.family), layers, tuple(facts))
