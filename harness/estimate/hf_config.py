"""Geometry from a Hugging Face config: a dict, a config.json, or a transformers config object."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.estimate import files, hf_layers
from harness.estimate.families import FAMILIES, canonical
from harness.estimate.fields import MAX_LAYERS, Fields
from harness.estimate.geometry import Geometry, GeometryError, KVLayer, Sure

#: Keys under which multimodal configs hold the decoder's config.
_NESTED = ("text_config", "language_config", "llm_config", "thinker_config")

#: The decoder of a released model lies two deep at most.
_MOST_NESTED = 8

#: Keys of models in which some layers keep a state, attend to an image or differ in shape.
_STATES = (
    "attn_layer_period",
    "block_configs",
    "conv_L_cache",
    "cross_attention_layers",
    "full_attn_idxs",
    "hybrid_override_pattern",
    "mamba_d_state",
    "ssm_cfg",
    "state_size",
)


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
    fields, family = _decoder(data, name)
    _refuse_other_caches(fields)
    n = _layer_count(fields)
    laws = hf_layers.laws(fields, family, n)
    k_dims, v_dims = _head_dims(fields, family, laws)
    heads = _kv_heads(fields, family, laws)
    reads = _shared(fields, laws)
    layers = tuple(
        KVLayer(law, heads[i], k_dims[i], v_dims[i], reads[i]) for i, law in enumerate(laws)
    )
    return Geometry(name, family, layers, tuple(fields.facts))


def _to_dict(config: object, name: str) -> Mapping[str, Any]:
    make = getattr(config, "to_dict", None)
    data = make() if callable(make) else None
    if not isinstance(data, Mapping):
        raise GeometryError(f"{name}: must be a mapping or a config, got {type(config).__name__}")
    return data


def _decoder(data: Mapping[str, Any], name: str) -> tuple[Fields, str]:
    """The part of a config that describes the decoder, and its family."""
    prefix, kind = "", None
    for _ in range(_MOST_NESTED):
        fields = Fields(name, data, prefix)
        kind = fields.text("model_type") or kind
        nested = next((k for k in _NESTED if isinstance(data.get(k), Mapping)), None)
        if nested is None:
            break
        data, prefix = data[nested], f"{prefix}{nested}."
    else:
        raise GeometryError(f"{name}: {prefix[:40]}… nests more than {_MOST_NESTED} configs")
    if kind is None and fields.has("architectures"):
        names = fields.data["architectures"]
        first = names[:1] if isinstance(names, list) else []
        kind = Fields(name, dict(zip(["architectures[0]"], first, strict=False)), prefix).text(
            "architectures[0]"
        )
    if kind is None:
        raise fields.missing("model_type")
    fields.note("family", canonical(kind), f"model_type {kind}", Sure.STATED)
    return fields, canonical(kind)


def _refuse_other_caches(fields: Fields) -> None:
    """Raise GeometryError if a cache holds anything but each position's keys and values."""
    if fields.has("kv_lora_rank"):
        raise GeometryError(
            f"{fields.name}: {fields.prefix}kv_lora_rank is set: latent attention does not cache "
            "keys and values per head, and is not counted"
        )
    for key in _STATES:
        if fields.has(key):
            raise GeometryError(
                f"{fields.name}: {fields.prefix}{key} is set: only decoders whose layers all cache "
                "keys and values are counted"
            )
    if fields.flag("is_encoder_decoder"):
        raise GeometryError(f"{fields.name}: is_encoder_decoder is true: only decoders are counted")


def _layer_count(fields: Fields) -> int:
    key, n = fields.first("num_hidden_layers", "n_layer", "num_layers", most=MAX_LAYERS)
    fields.stated("layers", n, key)
    return n


def _head_dims(fields: Fields, family: str, laws: hf_layers.Laws) -> tuple[list[int], list[int]]:
    """Numbers per head of the keys and of the values, for each layer."""
    dims = [_head_dim(fields, family)] * len(laws)
    wide = fields.integer("global_head_dim")
    if wide is not None:
        dims = [dim if law.bounded else wide for dim, law in zip(dims, laws, strict=True)]
        fields.stated("head_dim of full layers", wide, "global_head_dim")
    dims = fields.overridden("head_dim", dims)
    v_dim = fields.integer("v_head_dim")
    if v_dim is None:
        return dims, dims
    fields.stated("head_dim of values", v_dim, "v_head_dim")
    return dims, [v_dim] * len(laws)


def _class_heads(family: str) -> tuple[int, int, int] | None:
    return FAMILIES[family].heads if family in FAMILIES else None


def _head_dim(fields: Fields, family: str) -> int:
    dim = fields.integer("head_dim")
    if dim is not None:
        fields.stated("head_dim", dim, "head_dim")
        return dim
    fixed = _class_heads(family)
    if fixed is not None:
        fields.note("head_dim", fixed[2], f"{family} files omit it", Sure.FAMILY)
        return fixed[2]
    width = fields.first("hidden_size", "n_embd")[1]
    heads = fields.first("num_attention_heads", "n_head")[1]
    if width % heads:
        raise GeometryError(
            f"{fields.name}: {fields.prefix}head_dim is missing, and hidden_size {width} is not a "
            f"multiple of num_attention_heads {heads}"
        )
    fields.note("head_dim", width // heads, "hidden_size / num_attention_heads", Sure.DERIVED)
    return width // heads


def _kv_heads(fields: Fields, family: str, laws: hf_layers.Laws) -> list[int]:
    """Key/value heads of each layer."""
    n = len(laws)
    key = next((k for k in ("num_key_value_heads", "num_kv_heads") if fields.has(k)), None)
    heads = None if key is None else fields.per_layer(key, n)
    if key is not None and heads is not None:
        fields.stated("kv heads", fields.data[key], key)
    elif fields.flag("multi_query"):
        heads = [1] * n
        fields.stated("kv heads", 1, "multi_query")
    elif (fixed := _class_heads(family)) is not None:
        heads = [fixed[1]] * n
        fields.note("kv heads", fixed[1], f"{family} files omit it", Sure.FAMILY)
    else:
        key, count = fields.first("num_attention_heads", "n_head")
        fields.note("kv heads", count, f"{key}: one per query head", Sure.DERIVED)
        heads = [count] * n
    # Gemma 4 uses the separate head count of full layers only if their keys serve as values.
    few = fields.integer("num_global_key_value_heads")
    if few is not None and fields.flag("attention_k_eq_v"):
        heads = [h if law.bounded else few for h, law in zip(heads, laws, strict=True)]
        fields.stated("kv heads of full layers", few, "num_global_key_value_heads")
    return fields.overridden("num_key_value_heads", heads)


def _shared(fields: Fields, laws: hf_layers.Laws) -> list[int | None]:
    """For each layer, the layer whose cache it reads; None if it owns one.

    The last layers may read the cache of an earlier layer of their kind.
    """
    n = len(laws)
    shared = fields.integer("num_kv_shared_layers", least=0, most=n - 1) or 0
    if shared:
        fields.stated("layers without a cache", shared, "num_kv_shared_layers")
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
