"""A decoder's config as its class in transformers takes it: common names, and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.estimate.decoders.table import READ, DecoderType, types
from harness.estimate.fields import Fields

#: Other spellings of the common names, in files of decoders that transformers has no class of.
_SPELLINGS: dict[str, tuple[str, ...]] = {
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers", "layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads", "attention_heads"),
    "num_key_value_heads": ("num_kv_heads", "n_kv_heads", "num_attention_groups"),
    "hidden_size": ("n_embd", "n_embed", "d_model", "embed_dim"),
    "head_dim": ("kv_channels", "attention_head_dim"),
    # transformers adds the underscore when it saves a Gemma 3 config again
    "sliding_window_pattern": ("_sliding_window_pattern",),
}

_UNKNOWN = DecoderType({}, {}, None)


def complete(name: str, data: Mapping[str, Any], kind: str | None, prefix: str) -> Fields:
    """The fields of a decoder of that type.

    data: the decoder's own part of the file.  kind: its `model_type`.
    A field that the file leaves out has the class's default, and is marked so.
    """
    known = types().get(kind or "", _UNKNOWN)
    out, spelled, defaults = dict(data), {}, {}
    for key in READ:
        if key in data:
            continue
        other = _other_name(data, key, known)
        if other is not None:
            out[key], spelled[key] = data[other], other
        elif key in known.defaults:
            out[key] = known.defaults[key]
            defaults[key] = f"{kind}: {known.names.get(key, key)} of its class in transformers"
    return Fields(name, out, prefix, spelled, defaults)


def _other_name(data: Mapping[str, Any], key: str, known: DecoderType) -> str | None:
    """The name under which the file has the field, if it is another one."""
    names = (known.names.get(key, key), *_SPELLINGS.get(key, ()))
    return next((name for name in names if name in data), None)
