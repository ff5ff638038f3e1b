"""Geometry of a model's KV cache: the figures that its bytes depend on, and their sources.

The readers (`hf_config`, `gguf_file`, `model_id`) make a `Geometry`; profiles turn it into bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from harness.cases.models import Model
from harness.estimate.families import canonical
from harness.law import Layer


class GeometryError(Exception):
    """A model's geometry cannot be determined; one line says what was read and what is missing."""


class Sure(StrEnum):
    """How certain a figure is, most certain first."""

    STATED = "stated"  # the file says so
    FAMILY = "family"  # files of this architecture leave it out, because its code fixes it
    DERIVED = "derived"  # computed from figures in the file
    TABLE = "table"  # from the table of published models, by the model's name


@dataclass(frozen=True)
class Fact:
    """One figure, as it is printed.

    source: the key or rule that it comes from, e.g. "text_config.sliding_window".
    """

    field: str
    value: str
    source: str
    sure: Sure


@dataclass(frozen=True)
class LayerState:
    """What a layer keeps beside its keys and values, or instead of them.

    kind: "conv" (the last inputs of a convolution), "recurrent" (the state of a linear attention
    or a state space), or "index" (keys of a sparse indexer).
    numbers: how many numbers.  per_position: that many for each position, not for each sequence.
    stored: the storage type, if it is not that of the keys.
    """

    kind: str
    numbers: int
    per_position: bool = False
    stored: str | None = None


@dataclass(frozen=True)
class KVLayer:
    """One layer as its cache sees it.

    law: which keys a query sees.  kv_heads: key/value heads, 0 if it caches no keys.
    k_dim, v_dim: numbers per head.
    reads: index of the layer whose cache it reads; None if it owns a cache.
    states: what it keeps that is no window of keys and values.
    latent: one latent of k_dim numbers and one rotary key of v_dim stand for all heads (MLA).
    repeats: how many times transformers stores each head, where its code spreads the heads of a
    group before it caches them.
    """

    law: Layer
    kv_heads: int
    k_dim: int
    v_dim: int
    reads: int | None = None
    states: tuple[LayerState, ...] = ()
    latent: bool = False
    repeats: int = 1

    @property
    def owns(self) -> bool:
        return self.reads is None

    @property
    def keeps(self) -> frozenset[str]:
        """What else than a window of keys and values per head this layer keeps."""
        return frozenset({"latent"} if self.latent else ()) | {s.kind for s in self.states}

    @property
    def k_width(self) -> int:
        """How many numbers one position's keys hold."""
        return self.kv_heads * self.k_dim

    @property
    def v_width(self) -> int:
        """How many numbers one position's values hold."""
        return self.kv_heads * self.v_dim

    @property
    def reach(self) -> int | None:
        """The most keys that a query sees: the window or the chunk; None for a full layer."""
        return self.law.window or self.law.chunk

    @property
    def kind(self) -> str:
        """ "full", "sliding", "chunked", "latent"; "state" or "nothing" of a layer without keys."""
        if not self.kv_heads:
            return "state" if self.states else "nothing"
        if self.law.window is not None:
            return "sliding"
        if self.law.chunk is not None:
            return "chunked"
        return "latent" if self.latent else "full"


@dataclass(frozen=True)
class Geometry:
    """A model's layers, and the facts that they were made from.

    family: the architecture as `families.canonical` spells it, e.g. "gemma3", "gpt-oss", "llama".
    """

    name: str
    family: str
    layers: tuple[KVLayer, ...]
    facts: tuple[Fact, ...] = ()

    @property
    def bounded(self) -> bool:
        """True if any layer slides or is chunked."""
        return any(layer.law.bounded for layer in self.layers)

    @property
    def keeps(self) -> frozenset[str]:
        """What else than windows of keys and values per head its layers keep."""
        return frozenset().union(*(layer.keeps for layer in self.layers if layer.owns))


def from_model(model: Model, facts: Iterable[Fact] = ()) -> Geometry:
    """The geometry of a model in the tables of `harness.cases.models`, published or tiny."""
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
