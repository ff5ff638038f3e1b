"""Geometry from a Hugging Face config: a dict, a config.json, or a transformers config object."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.estimate import files, hf_layers, hf_unread
from harness.estimate.decoders import states as states_of
from harness.estimate.decoders.complete import complete
from harness.estimate.decoders.kinds import CONV, HYBRID, HYBRID_SLIDING, INDEXED, LINEAR
from harness.estimate.decoders.table import types
from harness.estimate.families import canonical
from harness.estimate.fields import MAX_LAYERS, Fields
from harness.estimate.geometry import Geometry, GeometryError, KVLayer, LayerState, Sure
from harness.estimate.hf_heads import heads, none

#: Keys under which multimodal configs hold the decoder's config.
_NESTED = ("text_config", "language_config", "llm_config", "thinker_config", "decoder")

#: The decoder of a released model lies two deep at most.
_MOST_NESTED = 8


def read_file(path: Path) -> Geometry:
    """The geometry that a config.json describes; path: the file, or the folder that holds it.

    Raises GeometryError naming the file if it is not such a config.
    """
    # Path.is_dir() raises where a folder above may not be searched.
    path = path / "config.json" if os.path.isdir(path) else path
    text = files.read_config(path)
    try:
        data = json.loads(text.decode("utf-8-sig"))  # editors of Windows begin with a BOM
    except (ValueError, RecursionError) as error:  # not JSON, or not UTF-8
        raise GeometryError(f"{path}: not a JSON file: {error}") from error
    if not isinstance(data, dict):
        raise GeometryError(f"{path}: must hold a JSON object, got {type(data).__name__}")
    return read(data, str(path))


def read(config: object, name: str = "config") -> Geometry:
    """The geometry of a config: a mapping, or an object with `to_dict()`.

    name: used in messages and tables.  Raises GeometryError naming a missing or wrong field.
    """
    data = config if isinstance(config, Mapping) else _to_dict(config, name)
    fields, kind = _decoder(data, name)
    hf_unread.refuse_other_caches(fields, kind)
    layout = hf_layers.layout(fields, kind)
    caching = hf_layers.CACHING.intersection(layout.kinds)
    held = heads(fields, kind, layout.laws) if caching else none(fields, len(layout.laws))
    reads = _shared(fields, layout.laws)
    layers = tuple(
        KVLayer(
            law,
            held.heads[i] if layout.kinds[i] in hf_layers.CACHING else 0,
            held.k_dims[i],
            held.v_dims[i],
            reads[i],
            states=_states(fields, kind, layout.kinds, i),
            latent=held.latent and layout.kinds[i] in hf_layers.CACHING,
            repeats=held.repeats,
        )
        for i, law in enumerate(layout.laws)
    )
    hf_unread.refuse_unread(fields, kind)
    return Geometry(name, canonical(kind), layers, tuple(fields.facts))


def _to_dict(config: object, name: str) -> Mapping[str, Any]:
    make = getattr(config, "to_dict", None)
    data = make() if callable(make) else None
    if not isinstance(data, Mapping):
        raise GeometryError(f"{name}: must be a mapping or a config, got {type(config).__name__}")
    return data


def _decoder(data: Mapping[str, Any], name: str) -> tuple[Fields, str]:
    """The part of a config that describes the decoder, and its type."""
    prefix, kind = "", None
    for _ in range(_MOST_NESTED):
        fields = Fields(name, data, prefix)
        kind = fields.text("model_type") or kind
        known = types().get(kind or "")
        hf_unread.refuse_encoders(fields, known)
        inside = known.text if known is not None else None
        names = (inside[0], *_NESTED) if inside else _NESTED
        nested = next((k for k in names if isinstance(data.get(k), Mapping)), None)
        if nested is None:
            # Older files have the decoder's fields beside the others.
            kind = inside[1] if inside else kind
            break
        kind = inside[1] if inside and inside[0] == nested else kind
        data, prefix = data[nested], f"{prefix}{nested}."
    else:
        raise GeometryError(f"{name}: {prefix[:40]}… nests more than {_MOST_NESTED} configs")
    if kind is None and fields.has("architectures"):
        kind = _of_class(fields)
    if kind is None:
        raise fields.missing("model_type")
    fields = complete(name, data, kind, prefix)
    fields.note("family", canonical(kind), f"model_type {kind}", Sure.STATED)
    return fields, kind


def _of_class(fields: Fields) -> str | None:
    """The type that the name of the first class stands for."""
    names = fields.data["architectures"]
    first = names[:1] if isinstance(names, list) else []
    only = dict(zip(["architectures[0]"], first, strict=False))
    name = Fields(fields.name, only, fields.prefix).text("architectures[0]")
    return None if name is None else canonical(name)


def _states(fields: Fields, kind: str, kinds: Sequence[str], at: int) -> tuple[LayerState, ...]:
    """What a layer keeps beside or instead of keys and values."""
    layer = kinds[at]
    if layer == INDEXED:
        size = fields.first("index_head_dim")[1]
        if kind == "glm5_next_text":
            size = 2 * size + 1  # a key, the gate that pools it, and whether it counts
        own = _indexers(fields, kind, len(kinds))[at]
        return (LayerState("index", size, per_position=True),) if own else ()
    if layer not in {LINEAR, CONV, HYBRID, HYBRID_SLIDING}:
        return ()
    formula = states_of.FORMULAS.get(kind)
    if layer == HYBRID_SLIDING:
        formula = states_of.SLIDING_FORMULAS.get(kind, formula)
    if formula is None:
        raise GeometryError(
            f"{fields.name}: {fields.written('layer_types')}: layer {at} keeps a state "
            f"({layer}), and its size in {kind} is not known"
        )
    return formula(fields)


def _indexers(fields: Fields, kind: str, n: int) -> list[bool]:
    """For each layer, whether its indexer keeps keys of its own: the others share them."""
    if not fields.has("indexer_types"):
        return [kind != "hy_v4" or i == 0 or (i - 1) % 4 == 0 for i in range(n)]
    names = fields.sequence("indexer_types", n)
    for name in names:
        if name not in ("full", "shared"):
            raise fields.error(f"{fields.written('indexer_types')} must hold full or shared", name)
    return [name == "full" for name in names]


def _shared(fields: Fields, laws: hf_layers.Laws) -> list[int | None]:
    """For each layer, the layer whose cache it reads; None if it owns one.

    The last layers may read the cache of an earlier layer of their kind.
    """
    n = len(laws)
    key = "num_kv_shared_layers"
    # The class refuses its own default for a model of fewer layers; then none is shared.
    most = n - 1 if key not in fields.defaults else MAX_LAYERS
    shared = fields.integer(key, least=0, most=most) or 0
    shared = shared if shared < n else 0
    if shared:
        fields.stated("layers without a cache", shared, key)
    return read_earlier(fields, laws, n - shared)


def read_earlier(fields: Fields, laws: hf_layers.Laws, own: int) -> list[int | None]:
    """For each layer, the layer whose cache it reads; None for the first `own`, which own one.

    Every other layer reads the last of the first `own` that has the same law.  Raises GeometryError
    if there is none.
    """
    last = {law: i for i, law in enumerate(laws[:own])}
    for law in laws[own:]:
        if law not in last:
            raise GeometryError(
                f"{fields.name}: a layer that shares a cache has the law {law}, but none of the "
                f"{own} layers with a cache has"
            )
    return [None if i < own else last[law] for i, law in enumerate(laws)]
