"""Geometry from the metadata of a GGUF file, read with the `gguf` package.

Keys mean what they mean to llama.cpp.  Some figures its converters do not write (the layer pattern
of Gemma 2 and 3, gpt-oss and Command R7B, the chunk of Llama 4, the shared caches of Gemma 3n),
because llama.cpp has a constant for the architecture.  Such figures are marked `Sure.FAMILY`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.estimate.families import FAMILIES, Family, canonical
from harness.estimate.fields import MAX_LAYERS, Fields
from harness.estimate.geometry import Geometry, GeometryError, KVLayer, Sure
from harness.estimate.gguf_metadata import metadata
from harness.estimate.hf_config import read_earlier
from harness.law import Layer

_HEADS = "attention.head_count"
_KV_HEADS = "attention.head_count_kv"
_WINDOW = "attention.sliding_window"
_PATTERN = "attention.sliding_window_pattern"
_SHARED = "attention.shared_kv_layers"

#: Metadata of layers that cache a state or latents instead of keys and values.
_OTHER_CACHES = ("attention.kv_lora_rank", "ssm.state_size", "wkv.head_size", "shortconv.l_cache")


def read_file(path: Path) -> Geometry:
    """The geometry that a GGUF file's metadata describes; tensors are not read.

    Raises GeometryError if the file is not a GGUF file, is damaged or lacks a key.
    """
    return read(metadata(path), str(path))


def read(data: dict[str, Any], name: str = "gguf") -> Geometry:
    """The geometry that metadata describes.

    data: values by key.  Raises GeometryError naming a key that is missing or wrong.
    """
    arch = Fields(name, data).text("general.architecture")
    if arch is None:
        raise GeometryError(f"{name}: general.architecture is missing; {len(data)} keys were read")
    prefix = f"{arch}."
    own = {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}
    fields = Fields(name, own, prefix)
    family = canonical(arch)
    fields.note("family", family, f"general.architecture {arch}", Sure.STATED)
    for key in _OTHER_CACHES:
        if fields.has(key):
            raise GeometryError(
                f"{name}: {prefix}{key} is set: only caches of keys and values are counted"
            )
    key, n = fields.first("block_count", most=MAX_LAYERS)
    fields.stated("layers", n, key)
    fixed = FAMILIES.get(family, Family())
    laws = _laws(fields, family, fixed, n)
    heads = _kv_heads(fields, n)
    k_dims, v_dims = _dims(fields, "key_length", laws), _dims(fields, "value_length", laws)
    reads = read_earlier(fields, laws, _owned(fields, family, fixed, n))
    layers = tuple(
        KVLayer(law, heads[i], k_dims[i], v_dims[i], reads[i]) for i, law in enumerate(laws)
    )
    return Geometry(name, family, layers, tuple(fields.facts))


def _laws(fields: Fields, family: str, fixed: Family, n: int) -> list[Layer]:
    if fixed.chunk is not None and fields.integer(_WINDOW, least=0) != 0:
        # For such a model, llama.cpp only checks whether the key is 0.
        fields.note("chunk", fixed.chunk, f"llama.cpp's constant for {family}", Sure.FAMILY)
        local = Layer(chunk=fixed.chunk)
    else:
        window = _window(fields, family, fixed)
        if window is None:
            return [Layer()] * n
        local = Layer(window=window)
    flags = _sliding(fields, family, fixed, n)
    return [local if flag else Layer() for flag in flags]


def _window(fields: Fields, family: str, fixed: Family) -> int | None:
    # Converters write 0 for "no window".
    window = fields.integer(_WINDOW, least=0)
    constant = fixed.window is not None and (window is None or fixed.first)
    if constant:  # SmallThinker's stands whatever the key says
        fields.note("window", fixed.window, f"llama.cpp's constant for {family}", Sure.FAMILY)
        return fixed.window
    if window is not None:
        fields.stated("window", window or "none", _WINDOW)
        return window or None
    if fixed.optional:
        return None
    if fixed.period is not None or fixed.stated or fields.has(_PATTERN):
        raise fields.missing(_WINDOW)
    return None


def _sliding(fields: Fields, family: str, fixed: Family, n: int) -> list[bool]:
    """For each layer, whether it slides (or is chunked)."""
    if fixed.only is not None and n != fixed.only:
        rule = f"llama.cpp knows windows of {family} with {fixed.only} layers alone"
        fields.note("full layers", f"{n} of {n}", rule, Sure.FAMILY)
        return [False] * n
    if fields.has(_PATTERN):
        flags = _stated_pattern(fields, n)
        fields.stated("full layers", f"{flags.count(False)} of {n}", _PATTERN)
        return flags
    if fixed.period is None and not fixed.every:
        # Which layers slide is the architecture's to say, and a guess could be far too small.
        raise fields.missing(_PATTERN)
    flags = fixed.slides(n)
    if fixed.period is None:
        rule, sure = f"a window but no pattern: every layer of {family} slides", Sure.FAMILY
    else:
        rule, sure = f"llama.cpp's constant for {family}", Sure.FAMILY
    fields.note("full layers", f"{flags.count(False)} of {n}", rule, sure)
    return flags


def _stated_pattern(fields: Fields, n: int) -> list[bool]:
    """For each layer, whether it slides, from the pattern in the file.

    The pattern is a period (0: every layer slides, 1: none does), or one bool per layer.
    """
    value = fields.data[_PATTERN]
    if isinstance(value, Sequence) and not isinstance(value, str):
        flags = fields.sequence(_PATTERN, n)
        for flag in flags:
            if not isinstance(flag, bool | int) or flag not in (0, 1):
                raise fields.error(f"{fields.prefix}{_PATTERN} must hold bools", flag)
        return [bool(flag) for flag in flags]
    period = fields.check(_PATTERN, value, least=0)
    return [period == 0 or (i + 1) % period != 0 for i in range(n)]


def _kv_heads(fields: Fields, n: int) -> list[int]:
    heads = fields.per_layer(_KV_HEADS, n)
    if heads is not None:
        fields.stated("kv heads", fields.data[_KV_HEADS], _KV_HEADS)
        return heads
    heads = fields.per_layer(_HEADS, n)
    if heads is None:
        raise fields.missing(_KV_HEADS)
    fields.note("kv heads", fields.data[_HEADS], "head_count: one per query head", Sure.DERIVED)
    return heads


def _dims(fields: Fields, key: str, laws: Sequence[Layer]) -> list[int]:
    """Numbers per head, for each layer; sliding layers may have a length of their own."""
    key = f"attention.{key}"
    length = fields.integer(key)
    if length is None:
        width = fields.first("embedding_length")[1]
        heads = fields.first(_HEADS)[1]
        length = fields.check("embedding_length / head_count", width // heads)
        fields.note(key, length, "embedding_length / head_count", Sure.DERIVED)
    else:
        fields.stated(key, length, key)
    narrow = fields.integer(f"{key}_swa")
    if narrow is not None:
        fields.stated(f"{key}_swa", narrow, f"{key}_swa")
    return [narrow if narrow is not None and law.bounded else length for law in laws]


def _owned(fields: Fields, family: str, fixed: Family, n: int) -> int:
    """How many layers own a cache."""
    shared = fields.integer(_SHARED, least=0, most=n - 1)
    if shared is not None:
        fields.stated("layers without a cache", shared, _SHARED)
        return n - shared
    if fixed.caches is not None and fixed.caches < n:
        rule = f"llama.cpp's constant for {family}"
        fields.note("layers without a cache", n - fixed.caches, rule, Sure.FAMILY)
        return fixed.caches
    return n
