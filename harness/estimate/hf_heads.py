"""Heads and widths of the keys and values of each layer of a Hugging Face config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.estimate.decoders.table import types
from harness.estimate.fields import Fields
from harness.estimate.geometry import GeometryError, Sure
from harness.law import Layer

Laws = Sequence[Layer]

#: Counts of heads.
_HEADS = ("num_attention_heads", "num_key_value_heads", "num_kv_heads")

#: Widths of heads, which latents do not have.
_DIMS = ("head_dim", "v_head_dim", "qk_nope_head_dim")

#: Types whose full layers are wider and have fewer heads than the others, by two keys of their own.
_WIDE = frozenset(
    {"gemma4_text", "gemma4_unified_text", "diffusion_gemma_text", "embedding_gemma2_text"}
)

#: Heads of the sliding layers, where they have a key of their own, by `model_type`.
_SLIDING_HEADS = frozenset({"inkling_text", "inkling2_text", "mimo_v2_flash", "step3p5"})


@dataclass(frozen=True)
class Heads:
    """What each layer stores for a position: heads, and numbers per head of keys and of values.

    latent: one latent and one rotary key stand for all heads.  repeats: see `KVLayer`.
    """

    heads: list[int]
    k_dims: list[int]
    v_dims: list[int]
    latent: bool = False
    repeats: int = 1


def none(fields: Fields, n: int) -> Heads:
    """Those of n layers without keys and values; what the file says of heads has no effect."""
    fields.read.update(_HEADS, _DIMS)
    return Heads([0] * n, [0] * n, [0] * n)


def heads(fields: Fields, kind: str, laws: Laws) -> Heads:
    """The heads and widths of each layer.

    kind: the decoder's `model_type`.  Raises GeometryError naming a missing or wrong key.
    """
    if fields.has("kv_lora_rank"):
        return _latent(fields, kind, laws)
    dim = _head_dim(fields, kind)
    k_dims = _wider(fields, kind, laws, [dim] * len(laws))
    k_dims = fields.overridden("head_dim", k_dims)
    v_dims = k_dims
    if fields.has("v_head_dim"):
        v_dims = fields.per_layer("v_head_dim", len(laws)) or k_dims
        fields.stated("head_dim of values", fields.data["v_head_dim"], "v_head_dim")
        own = fields.integer("swa_v_head_dim") if kind in _SLIDING_HEADS else None
        if own is not None:
            v_dims = [own if law.bounded else v for v, law in zip(v_dims, laws, strict=True)]
            fields.stated("head_dim of values of sliding layers", own, "swa_v_head_dim")
    counts = _kv_heads(fields, kind, laws)
    return Heads(counts, k_dims, v_dims, repeats=_repeats(fields, kind, counts[0]))


def _latent(fields: Fields, kind: str, laws: Laws) -> Heads:
    """Latent attention: transformers 5 caches the latent and the rotary key, once for all heads."""
    n = len(laws)
    fields.read.update(_HEADS, _DIMS)
    rank, rope = fields.first("kv_lora_rank")[1], fields.first("qk_rope_head_dim", least=0)[1]
    fields.stated("latent", rank, "kv_lora_rank")
    fields.stated("rotary key", rope, "qk_rope_head_dim")
    ranks = fields.overridden("kv_lora_rank", [rank] * n)
    ropes = [rope] * n
    if kind == "dots3_note_text":
        ranks, ropes = _sliding_latent(fields, laws, ranks, ropes)
    if kind == "mistral_large4_text":
        ropes = [rope if turned else 0 for turned in _rotary(fields, n)]
    return Heads([1] * n, ranks, ropes, latent=True)


def _sliding_latent(
    fields: Fields, laws: Laws, ranks: list[int], ropes: list[int]
) -> tuple[list[int], list[int]]:
    """Dots 3: sliding layers have figures of their own, with constants where a file has none."""
    n = len(laws)
    if fields.has("per_layer_config"):
        wide, plain = fields.overridden("head_dim", [0] * n), [0] * n
        plain = fields.overridden("qk_nope_head_dim", plain)
    else:
        own = fields.integer("swa_kv_lora_rank") or 1024
        ranks = [own if law.bounded else rank for law, rank in zip(laws, ranks, strict=True)]
        wide = [fields.integer("swa_head_dim") or 256] * n
        plain = [fields.integer("swa_qk_nope_head_dim") or 192] * n
    turned = [max(0, a - b) for a, b in zip(wide, plain, strict=True)]
    return ranks, [t if law.bounded else r for law, r, t in zip(laws, ropes, turned, strict=True)]


def _rotary(fields: Fields, n: int) -> list[int]:
    """For each layer, 1 if its keys are rotated: listed, or all but the last of each period."""
    if fields.has("no_rope_layers"):
        flags = fields.sequence("no_rope_layers", n)
        return [fields.check("no_rope_layers", flag, 0, 1) for flag in flags]
    step = fields.integer("no_rope_layer_interval") or 4
    return [int((i + 1) % step != 0) for i in range(n)]


def _wider(fields: Fields, kind: str, laws: Laws, dims: list[int]) -> list[int]:
    """Widths, where full or sliding layers have a key of their own."""
    wide, source = fields.integer("global_head_dim"), "global_head_dim"
    if wide is None and kind in _WIDE and not fields.has("per_layer_config"):
        wide = 512  # the class's constant
        fields.note("head_dim of full layers", wide, f"constant of {kind}", Sure.FAMILY)
    elif wide is not None:
        fields.stated("head_dim of full layers", wide, source)
    if wide is not None and not fields.has("per_layer_config"):
        dims = [dim if law.bounded else wide for dim, law in zip(dims, laws, strict=True)]
    narrow = fields.integer("swa_head_dim") if kind in _SLIDING_HEADS else None
    if narrow is not None:
        fields.stated("head_dim of sliding layers", narrow, "swa_head_dim")
        dims = [narrow if law.bounded else dim for dim, law in zip(dims, laws, strict=True)]
    return dims


def _head_dim(fields: Fields, kind: str) -> int:
    dim = fields.integer("head_dim")
    if dim is not None:
        fields.stated("head_dim", dim, "head_dim")
        return dim
    width = fields.first("hidden_size")[1]
    count = fields.first("num_attention_heads")[1]
    times = 2 if kind in {"zamba", "zamba2"} else 1  # its attention reads two inputs side by side
    if times * width % count and kind not in types():  # transformers rounds down
        raise GeometryError(
            f"{fields.name}: {fields.written('head_dim')} is missing, and "
            f"{fields.written('hidden_size')} {width} is not a multiple of "
            f"{fields.written('num_attention_heads')} {count}"
        )
    rule = f"{'2 * ' * (times - 1)}hidden_size / num_attention_heads"
    fields.note("head_dim", times * width // count, rule, Sure.DERIVED)
    return times * width // count


def _kv_heads(fields: Fields, kind: str, laws: Laws) -> list[int]:
    """Key/value heads of each layer."""
    counts = _grouped(fields, kind, len(laws))
    twice = kind == "mimo_v2_flash" and not fields.has("swa_num_key_value_heads")
    if twice:
        fields.note("kv heads of sliding layers", 2 * counts[0], f"{kind}: twice", Sure.FAMILY)
        counts = [2 * c if law.bounded else c for c, law in zip(counts, laws, strict=True)]
    few = fields.integer("num_global_key_value_heads")
    # Gemma 4 uses the separate head count of full layers only if their keys serve as values.
    if few is not None and fields.flag("attention_k_eq_v"):
        counts = [c if law.bounded else few for c, law in zip(counts, laws, strict=True)]
        fields.stated("kv heads of full layers", few, "num_global_key_value_heads")
    own = _sliding_heads(fields, kind)
    if own is not None:
        counts = [own if law.bounded else c for c, law in zip(counts, laws, strict=True)]
    return fields.overridden("num_key_value_heads", counts)


def _sliding_heads(fields: Fields, kind: str) -> int | None:
    """Key/value heads of the sliding layers, of types that have a key for them."""
    if kind not in _SLIDING_HEADS:
        return None
    own, key = fields.integer("swa_num_key_value_heads"), "swa_num_key_value_heads"
    other = fields.part("attention_other_setting")
    if other is not None:
        own, key = other.integer("num_attention_groups"), "attention_other_setting"
    if own is not None:
        fields.stated("kv heads of sliding layers", own, key)
    return own


def _grouped(fields: Fields, kind: str, n: int) -> list[int]:
    """Key/value heads of each layer, before single layers are told apart."""
    fields.read.update(_HEADS)  # those that come first overrule the others
    inside = fields.part("attn_config") if kind == "dbrx" else None
    if kind == "dbrx":
        count = (inside and inside.integer("kv_n_heads")) or 1
        fields.note("kv heads", count, "attn_config.kv_n_heads", Sure.STATED)
        return [count] * n
    if fields.flag("multi_query_attention") and fields.has("multi_query_group_num"):
        count = fields.first("multi_query_group_num")[1]
        fields.stated("kv heads", count, "multi_query_group_num")
        return [count] * n
    # Falcon: `multi_query` is one head whatever num_kv_heads says, but not in the new layout.
    if fields.flag("multi_query") and not fields.flag("new_decoder_architecture"):
        fields.stated("kv heads", 1, "multi_query")
        return [1] * n
    for key in ("num_key_value_heads", "num_kv_heads"):
        counts = fields.per_layer(key, n)
        if counts is not None:
            fields.stated("kv heads", fields.data[key], key)
            return counts
    count = fields.first("num_attention_heads")[1]
    rule = f"{fields.written('num_attention_heads')}: one per query head"
    fields.note("kv heads", count, rule, Sure.DERIVED)
    return [count] * n


def _repeats(fields: Fields, kind: str, count: int) -> int:
    """How often transformers stores a head: Falcon's new layout spreads keys to all heads."""
    if kind != "falcon" or not fields.flag("new_decoder_architecture"):
        return 1
    return max(1, fields.first("num_attention_heads")[1] // count)
