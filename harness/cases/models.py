"""The table of models: published geometry, and tiny versions that keep its shape.

A new model is one row in `published.csv`, whose columns are the fields of `Model`; `pattern` is
that of `pattern_types`.  Sources: the models' own config.json files, as listed in the transformers
documentation of each family; bytes of a cached layer are kv_heads * (d_k + d_v) * bytes per
element * slots, so no row needs the number of query heads.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.law import Layer

_SHORT = {
    "sliding": "sliding_attention",
    "full": "full_attention",
    "chunked": "chunked_attention",
}


@dataclass(frozen=True)
class Model:
    """Geometry of a decoder's attention layers: all that the law and the bytes depend on.

    layer_types: one Hugging Face layer type per layer.  n_shared: how many of the last layers
    own no cache and read that of the last earlier layer of their own type.  global_head_dim,
    global_kv_heads: of full layers, where they differ.  n_heads: query heads (None in the
    published rows: no byte of a cache depends on it).
    """

    name: str
    family: str
    layer_types: tuple[str, ...]
    n_kv_heads: int
    head_dim: int
    window: int | None = None
    sink: int = 0
    chunk: int | None = None
    n_shared: int = 0
    global_head_dim: int | None = None
    global_kv_heads: int | None = None
    n_heads: int | None = None
    part_of: str | None = None  # scheme of the model that a one-layer model was taken from

    @property
    def n_layers(self) -> int:
        return len(self.layer_types)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The law of each layer."""
        laws = {
            "full_attention": Layer(),
            "sliding_attention": Layer(window=self.window, sink=self.sink),
            "chunked_attention": Layer(chunk=self.chunk),
        }
        return tuple(laws[kind] for kind in self.layer_types)

    @cached_property
    def kv_sources(self) -> tuple[int, ...]:
        """For each layer, the layer whose keys and values it reads (itself if it owns them)."""
        own = self.n_layers - self.n_shared
        last = {kind: i for i, kind in enumerate(self.layer_types[:own])}
        return tuple(i if i < own else last[kind] for i, kind in enumerate(self.layer_types))

    @cached_property
    def cached_layers(self) -> tuple[int, ...]:
        """Indices of the layers that own a cache."""
        return tuple(range(self.n_layers - self.n_shared))

    def layer_head_dim(self, i: int) -> int:
        """head_dim of layer i."""
        is_full = self.layer_types[i] == "full_attention"
        return self.global_head_dim if is_full and self.global_head_dim else self.head_dim

    def layer_kv_heads(self, i: int) -> int:
        """Key/value heads of layer i."""
        is_full = self.layer_types[i] == "full_attention"
        return self.global_kv_heads if is_full and self.global_kv_heads else self.n_kv_heads

    @property
    def scheme(self) -> str:
        """The scheme under which the suites file this model."""
        if self.part_of is not None:
            return self.part_of
        kinds = set(self.layer_types)
        if "chunked_attention" in kinds:
            return "chunked"
        if self.sink:
            return "sink"
        if kinds == {"full_attention"}:
            return "full"
        return "uniform" if kinds == {"sliding_attention"} else "interleaved"

    @property
    def turn(self) -> int:
        """Positions after which a bounded layer's cache turns over; 8 where no layer is bounded."""
        return self.window or self.chunk or 8

    def isolate(self, kind: str) -> Model:
        """A one-layer model of this one's `kind` ("sliding", "full", "chunked").

        In a stack with a full layer every token reaches every later one, so the exact visible set
        of a window shows only in a single layer.
        """
        layer_type = _SHORT.get(kind, kind)
        if layer_type not in self.layer_types:
            raise ValueError(
                f"{self.name} has no {layer_type} layer; it has {sorted(set(self.layer_types))}"
            )
        is_full = layer_type == "full_attention"
        short = layer_type.removesuffix("_attention")
        return replace(
            self,
            name=f"{self.name}.{short}",
            layer_types=(layer_type,),
            window=None if is_full else self.window,
            sink=0 if is_full else self.sink,
            n_shared=0,
            part_of=self.scheme,
        )

    def tiny(self, window: int = 8, head_dim: int = 16) -> Model:
        """The same pattern, sharing and ratios, small enough to check in milliseconds.

        Keeps one period of the pattern (two where layers share caches or the period is 2), a
        GQA ratio of 2 query heads per key/value head, and the full layers' different head_dim
        and kv heads where the model has them.
        """
        period = _period(self.layer_types)
        periods = 2 if period <= 2 or self.n_shared else 1
        kinds = self.layer_types[: period * periods]
        shared = round(len(kinds) * self.n_shared / self.n_layers / period) * period
        kv_heads = min(self.n_kv_heads, 2)
        return replace(
            self,
            layer_types=kinds,
            n_heads=2 * kv_heads,
            n_kv_heads=kv_heads,
            head_dim=head_dim,
            window=None if self.window is None else window,
            chunk=None if self.chunk is None else window,
            n_shared=min(shared, len(kinds) - period),
            global_head_dim=None if self.global_head_dim is None else 2 * head_dim,
            global_kv_heads=None if self.global_kv_heads is None else 1,
        )


def _period(layer_types: Sequence[str]) -> int:
    """Length of the repeating unit of a layer pattern."""
    n = len(layer_types)
    for p in range(1, n + 1):
        if all(layer_types[i] == layer_types[i % p] for i in range(n)):
            return p
    return n


def pattern_types(
    n_layers: int, pattern: int | None, local: str = "sliding_attention"
) -> tuple[str, ...]:
    """Layer types by the Hugging Face rule: layer i is full iff (i + 1) % pattern == 0.

    pattern None: every layer is `local`.  Raises ValueError for n_layers < 1 or pattern < 2.
    """
    if n_layers < 1:
        raise ValueError(f"n_layers must be >= 1, got {n_layers!r}")
    if pattern is None:
        return (local,) * n_layers
    if isinstance(pattern, bool) or pattern < 2:
        raise ValueError(f"sliding_window_pattern must be an integer >= 2, got {pattern!r}")
    return tuple("full_attention" if (i + 1) % pattern == 0 else local for i in range(n_layers))


def _published() -> dict[str, Model]:
    """Every row of `published.csv`, which is read once, when this module is imported."""
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as file:
        return {model.name: model for model in map(_from_row, csv.DictReader(file))}


def _from_row(row: dict[str, str]) -> Model:
    """The model of a row.  An empty cell leaves the default; layer types are derived."""
    name, family = row.pop("name"), row.pop("family")
    fields: dict[str, Any] = {column: int(cell) for column, cell in row.items() if cell}
    n_layers, pattern = fields.pop("n_layers"), fields.pop("pattern", None)
    if "chunk" in fields:
        kinds = pattern_types(n_layers, pattern, "chunked_attention")
    elif "window" in fields:
        kinds = pattern_types(n_layers, pattern, "sliding_attention")
    else:
        kinds = ("full_attention",) * n_layers
    return Model(name, family, kinds, **fields)


#: Published models by name, in the order of the table.
PUBLISHED: dict[str, Model] = _published()


def _named(name: str, published: str, head_dim: int = 16) -> Model:
    return replace(PUBLISHED[published].tiny(head_dim=head_dim), name=name)


def _tiny_models() -> dict[str, Model]:
    llama3 = _named("llama3", "llama3-8b", head_dim=8)
    mistral = _named("mistral", "mistral-7b-v0.1", head_dim=8)
    sink = replace(llama3, layer_types=("sliding_attention",) * 2, window=8)
    models = [
        _named("gemma2", "gemma2-2b"),
        _named("gemma3", "gemma3-4b"),
        _named("gemma4-e2b", "gemma4-e2b"),
        _named("gemma4-26b", "gemma4-26b"),
        # The pattern of Gemma 4 E2B as static exporters support it: one head_dim, no shared caches.
        replace(
            _named("gemma4-e2b", "gemma4-e2b"),
            name="gemma4-static",
            layer_types=PUBLISHED["gemma4-e2b"].layer_types[:5],
            n_shared=0,
            global_head_dim=None,
        ),
        mistral,
        replace(mistral, name="mistral-w9", window=9),
        replace(mistral, name="mistral-w1", window=1),
        replace(mistral, name="mistral-w64", window=64),
        _named("gpt-oss", "gpt-oss-20b"),
        _named("cohere2", "command-r7b"),
        _named("llama4", "llama4-scout"),
        llama3,
        # Qwen2 slides in its last layers only, from `max_window_layers` on.
        replace(
            _named("qwen2", "qwen2.5-7b"),
            layer_types=("full_attention",) * 2 + ("sliding_attention",) * 2,
            window=8,
        ),
        *(replace(sink, name=f"llama3-sink{n}", sink=n) for n in (2, 4, 8)),
    ]
    return {m.name: m for m in models}


TINY: dict[str, Model] = _tiny_models()


def tiny(name: str) -> Model:
    """The tiny model called `name`; "gemma3.sliding" is its sliding layer by itself.

    Raises ValueError listing the names for one that is not in the table.
    """
    base, _, kind = name.rpartition(".")
    if name in TINY:
        return TINY[name]
    if base in TINY:
        return TINY[base].isolate(kind)
    raise ValueError(f"unknown model {name!r}; known: {', '.join(sorted(TINY))}")
