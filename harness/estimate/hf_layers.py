"""Which layers of a Hugging Face config are sliding or chunked, and how long their windows are."""

from __future__ import annotations

from collections.abc import Sequence

from harness.cases.models import pattern_types
from harness.estimate.families import FAMILIES, Family
from harness.estimate.fields import Fields, quoted
from harness.estimate.geometry import GeometryError, Sure
from harness.law import Layer

Laws = Sequence[Layer]

_FULL, _SLIDING, _CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
_KNOWN = (_FULL, _SLIDING, _CHUNKED)

#: Keys of the period; transformers adds the underscore when it saves a Gemma 3 config again.
_PATTERN_KEYS = ("sliding_window_pattern", "_sliding_window_pattern")


def laws(fields: Fields, family: str, n: int) -> list[Layer]:
    """The law of each of n layers.

    Raises GeometryError if a key is missing or wrong, or the config contradicts itself.
    """
    window, chunk = _window(fields, family), fields.integer("attention_chunk_size")
    kinds = _stated_types(fields, n)
    if kinds is None:
        kinds = _derived_types(fields, family, n, window, chunk)
    if fields.flag("use_sliding_window") is False:
        kinds = [_FULL if kind == _SLIDING else kind for kind in kinds]
    need = {_SLIDING: ("sliding_window", window), _CHUNKED: ("attention_chunk_size", chunk)}
    for kind, (key, reach) in need.items():
        if kind in kinds and reach is None:
            if not fields.states(key):
                raise fields.missing(key)
            raise GeometryError(
                f"{fields.name}: {fields.prefix}layer_types names {kind} layers, but "
                f"{fields.prefix}{key} is null"
            )
    if _CHUNKED in kinds and chunk is not None:
        fields.stated("chunk", chunk, "attention_chunk_size")
    windows = fields.overridden("sliding_window", [window or 1] * n)
    made = {_FULL: Layer(), _CHUNKED: Layer(chunk=chunk)}
    return [
        Layer(window=own) if kind == _SLIDING else made[kind]
        for kind, own in zip(kinds, windows, strict=True)
    ]


def _window(fields: Fields, family: str) -> int | None:
    window = fields.integer("sliding_window")
    if fields.flag("use_sliding_window") is False:
        fields.stated("window", "none", "use_sliding_window")
        return None
    if window is not None or fields.states("sliding_window"):
        fields.stated("window", window or "none", "sliding_window")
        return window
    slides = family in FAMILIES and FAMILIES[family].chunk is None
    if slides and not fields.has("layer_types"):
        # transformers has a default here, but no released model has that window.
        raise fields.missing("sliding_window")
    return None


def _stated_types(fields: Fields, n: int) -> list[str] | None:
    """`layer_types`, checked; None if it is left out."""
    if not fields.has("layer_types"):
        return None
    kinds = fields.sequence("layer_types", n)
    for i, kind in enumerate(kinds):
        if kind not in _KNOWN:
            raise GeometryError(
                f"{fields.name}: {fields.prefix}layer_types[{i}] must be one of "
                f"{', '.join(_KNOWN)}, got {quoted(kind)}: only caches of keys and values are "
                "counted"
            )
    full = kinds.count(_FULL)
    fields.stated("full layers", f"{full} of {n}", "layer_types")
    return kinds


def _derived_types(
    fields: Fields, family: str, n: int, window: int | None, chunk: int | None
) -> list[str]:
    """The kind of each layer if `layer_types` is left out."""
    if chunk is not None:
        return _chunked_types(fields, family, n)
    if window is None:
        return [_FULL] * n
    for key in _PATTERN_KEYS:
        if fields.has(key):
            kinds = _pattern_types(fields, key, n)
            fields.stated("full layers", f"{kinds.count(_FULL)} of {n}", key)
            return kinds
    first = fields.integer("max_window_layers", least=0)
    if fields.flag("use_sliding_window") and first is not None:
        # Qwen2: layer max_window_layers and all later ones slide.
        fields.stated("full layers", f"{min(first, n)} of {n}", "max_window_layers")
        return [_FULL if i < first else _SLIDING for i in range(n)]
    fixed = FAMILIES.get(family, Family())
    period = fixed.period
    if fixed.stated:
        raise fields.missing("layer_types")
    kinds = list(pattern_types(n, period))
    rule = f"{family} files omit it" if period else "a window but no pattern: every layer slides"
    sure = Sure.FAMILY if period else Sure.DERIVED
    fields.note("full layers", f"{kinds.count(_FULL)} of {n}", rule, sure)
    return kinds


def _pattern_types(fields: Fields, key: str, n: int) -> list[str]:
    """The kind of each layer, from the pattern under a key.

    The pattern is a period (every period-th layer is full), or one period in letters: "LLLG" is
    three local (sliding) layers and a global (full) one.
    """
    value = fields.data[key]
    if isinstance(value, str) and value and set(value.upper()) <= {"L", "G"}:
        return [_SLIDING if value.upper()[i % len(value)] == "L" else _FULL for i in range(n)]
    period = fields.check(key, value)
    return [_FULL] * n if period == 1 else list(pattern_types(n, period))


def _chunked_types(fields: Fields, family: str, n: int) -> list[str]:
    """The kind of each layer of Llama 4: full without rotary positions, otherwise chunked."""
    if fields.has("no_rope_layers") and fields.data["no_rope_layers"] != []:
        flags = [
            fields.check("no_rope_layers", v, 0, 1) for v in fields.sequence("no_rope_layers", n)
        ]
        fields.stated("full layers", f"{flags.count(0)} of {n}", "no_rope_layers")
        return [_CHUNKED if flag else _FULL for flag in flags]
    period = fields.integer("no_rope_layer_interval", least=2)
    if period is not None:
        kinds = list(pattern_types(n, period, _CHUNKED))
        fields.stated("full layers", f"{kinds.count(_FULL)} of {n}", "no_rope_layer_interval")
        return kinds
    if family != "llama4":
        raise fields.missing("layer_types")
    period = FAMILIES[family].period
    kinds = list(pattern_types(n, period, _CHUNKED))
    fields.note("full layers", f"{kinds.count(_FULL)} of {n}", "llama4 files omit it", Sure.FAMILY)
    return kinds
