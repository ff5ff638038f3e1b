"""Which layers of a Hugging Face config slide, are chunked or keep a state, and their windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.cases.models import pattern_types
from harness.estimate.decoders import kinds as kinds_of
from harness.estimate.decoders.kinds import (
    CHUNKED,
    CONV,
    FULL,
    HYBRID,
    HYBRID_SLIDING,
    INDEXED,
    LINEAR,
    NOTHING,
    RENAMED,
    SLIDING,
)
from harness.estimate.decoders.rules import RULES
from harness.estimate.decoders.table import types
from harness.estimate.fields import MAX_LAYERS, Fields, quoted
from harness.estimate.geometry import GeometryError, Sure
from harness.law import Layer

_KNOWN = (FULL, SLIDING, CHUNKED, LINEAR, CONV, INDEXED, HYBRID, HYBRID_SLIDING, NOTHING)

#: Kinds of layers that cache keys and values, and those that have a window.
CACHING = frozenset({FULL, SLIDING, CHUNKED, INDEXED, HYBRID, HYBRID_SLIDING})
_WINDOWED = frozenset({SLIDING, HYBRID_SLIDING})

_PATTERN = "sliding_window_pattern"

_MOST_WINDOW = 1 << 31

Laws = Sequence[Layer]


@dataclass(frozen=True)
class Layout:
    """The kind of each layer, as transformers spells it, and its law."""

    kinds: list[str]
    laws: list[Layer]


def layout(fields: Fields, kind: str) -> Layout:
    """The layers of a config.

    kind: the decoder's `model_type`.  Raises GeometryError if a key is missing or wrong, or the
    config contradicts itself.
    """
    n = _layer_count(fields, kind)
    window, chunk = _window(fields, kind), fields.integer("attention_chunk_size")
    made = _stated_types(fields, n) or _derived_types(fields, kind, n, window, chunk)
    if fields.flag("use_sliding_window") is False:
        made = [FULL if layer == SLIDING else layer for layer in made]
    _check_reach(fields, made, window, chunk)
    if CHUNKED in made and chunk is not None:
        fields.stated("chunk", chunk, "attention_chunk_size")
    windows = fields.overridden("sliding_window", [window or 1] * len(made))
    laws = [
        Layer(window=own)
        if layer in _WINDOWED
        else Layer(chunk=chunk if layer == CHUNKED else None)
        for layer, own in zip(made, windows, strict=True)
    ]
    return Layout(made, laws)


def _layer_count(fields: Fields, kind: str) -> int:
    """How many layers own or read a cache."""
    if kind == "nemotron_h" and (listed := _listed_length(fields)):
        fields.note("layers", listed, "length of the list of layers", Sure.DERIVED)
        return listed
    key, n = fields.first("num_hidden_layers", most=MAX_LAYERS)
    fields.stated("layers", n, key)
    if kind == "hrm_text" and not fields.has("num_layers_per_stack"):
        turns = fields.first("H_cycles")[1] * (fields.first("L_cycles", least=0)[1] + 1)
        fields.note("caches", turns * n, "each turn of the cycles has its own", Sure.FAMILY)
        return turns * n
    if kind == "longcat_flash":
        fields.note("caches", 2 * n, "two attentions in each layer", Sure.FAMILY)
        return 2 * n
    return n


def _listed_length(fields: Fields) -> int:
    """Nemotron-H has as many layers as it lists, whatever num_hidden_layers says."""
    listed = fields.value("layer_types")
    if isinstance(listed, Sequence) and not isinstance(listed, str | bytes):
        return min(len(listed), MAX_LAYERS)
    letters = fields.text("hybrid_override_pattern", most=MAX_LAYERS)
    return len(letters) if letters else 4  # the class's own list


def _check_reach(fields: Fields, made: list[str], window: int | None, chunk: int | None) -> None:
    """Raise GeometryError if a layer has a window or chunk that the config does not give."""
    need = dict.fromkeys(_WINDOWED, ("sliding_window", window))
    need[CHUNKED] = ("attention_chunk_size", chunk)
    for kind, (key, reach) in need.items():
        if kind in made and reach is None:
            if not fields.states(key):
                raise fields.missing(key)
            raise GeometryError(
                f"{fields.name}: {fields.prefix}layer_types names {kind} layers, but "
                f"{fields.written(key)} is {quoted(fields.data[key])}"
            )


def _window(fields: Fields, kind: str) -> int | None:
    """The window; None for none, which files also write as 0 and -1."""
    if kind == "modernbert-decoder" and fields.has("local_attention"):
        fields.read.add("sliding_window")  # the class makes it from the other
        # It takes half of it, for either side.
        half = fields.first("local_attention")[1] // 2
        fields.stated("window", half, "local_attention")
        return half or None
    if kind == "mimo_v2_flash" and fields.has("sliding_window_size"):
        size = fields.first("sliding_window_size", most=_MOST_WINDOW)[1]
        fields.stated("window", size + 1, "sliding_window_size")  # and the query's own key
        return size + 1
    window = fields.integer("sliding_window", least=-1, most=_MOST_WINDOW)
    if fields.flag("use_sliding_window") is False:
        fields.stated("window", "none", "use_sliding_window")
        return None
    window = window if window and window > 0 else None
    if window is None and kind == "dots3_note_text":
        window = fields.integer("sliding_window_size") or 512  # the class's constant
    if window and kind == "gemma3_text" and fields.flag("use_bidirectional_attention"):
        window = window // 2 + 1
    if fields.states("sliding_window"):
        fields.stated("window", window or "none", "sliding_window")
    return window


def _stated_types(fields: Fields, n: int) -> list[str] | None:
    """`layer_types`, checked and in its newest spelling; None if it is left out."""
    if not fields.has("layer_types"):
        return None
    kinds = fields.sequence("layer_types", n)
    kinds = [RENAMED.get(kind, kind) if isinstance(kind, str) else kind for kind in kinds]
    for i, kind in enumerate(kinds):
        if kind not in _KNOWN:
            raise GeometryError(
                f"{fields.name}: {fields.written('layer_types')}[{i}] must be one of "
                f"{', '.join(_KNOWN)}, got {quoted(kind)}: what such a layer caches is not known"
            )
    full = len(kinds) - sum(kind in (*_WINDOWED, CHUNKED) for kind in kinds)
    fields.stated("full layers", f"{full} of {n}", "layer_types")
    return kinds


def _derived_types(
    fields: Fields, kind: str, n: int, window: int | None, chunk: int | None
) -> list[str]:
    """The kind of each layer if `layer_types` is left out."""
    if kind in RULES:
        return _by_rule(fields, kind, n, window)
    if chunk is not None:
        return _chunked_types(fields, kind, n)
    if window is None:
        return [FULL] * n
    if kind not in types():
        return _guessed_types(fields, kind, n)
    fields.note("full layers", f"0 of {n}", f"{kind}: every layer slides", Sure.FAMILY)
    return [SLIDING] * n


def _by_rule(fields: Fields, kind: str, n: int, window: int | None) -> list[str]:
    """As the class of this type derives them."""
    kinds = _letters(fields, n) or RULES[kind](fields, n)
    if len(kinds) != n:
        raise GeometryError(f"{fields.name}: {kind} has {len(kinds)} layers in its class, got {n}")
    if window is None and "sliding_window" not in fields.defaults:
        kinds = [FULL if layer == SLIDING else layer for layer in kinds]  # the file has none
    if SLIDING in kinds or HYBRID_SLIDING in kinds:
        full = n - sum(layer in _WINDOWED for layer in kinds)
        fields.note("full layers", f"{full} of {n}", f"as the class of {kind} has it", Sure.FAMILY)
    return kinds


def _guessed_types(fields: Fields, kind: str, n: int) -> list[str]:
    """The kinds of a family that nobody has measured: only if the file has a pattern."""
    if fields.has(_PATTERN):
        kinds = _letters(fields, n) or _period(fields, n)
        fields.stated("full layers", f"{kinds.count(FULL)} of {n}", _PATTERN)
        return kinds
    raise GeometryError(
        f"{fields.name}: {fields.written('sliding_window')} is set, but which layers of "
        f"{quoted(kind)} slide is not known; add layer_types"
    )


def _period(fields: Fields, n: int) -> list[str]:
    period = fields.check(_PATTERN, fields.data[_PATTERN])
    return [FULL] * n if period == 1 else list(pattern_types(n, period))


def _letters(fields: Fields, n: int) -> list[str] | None:
    """One period in letters: "LLLG" is three local (sliding) layers and a global (full) one."""
    value = fields.value(_PATTERN)
    if isinstance(value, str) and value and set(value.upper()) <= {"L", "G"}:
        return [SLIDING if value.upper()[i % len(value)] == "L" else FULL for i in range(n)]
    return None


def _chunked_types(fields: Fields, kind: str, n: int) -> list[str]:
    """The kind of each layer of Llama 4: full without rotary positions, otherwise chunked."""
    if fields.has("no_rope_layers") and fields.data["no_rope_layers"] != []:
        flags = [
            fields.check("no_rope_layers", v, 0, 1) for v in fields.sequence("no_rope_layers", n)
        ]
        fields.stated("full layers", f"{flags.count(0)} of {n}", "no_rope_layers")
        return [CHUNKED if flag else FULL for flag in flags]
    period = fields.integer("no_rope_layer_interval", least=2)
    if period is not None:
        kinds = list(pattern_types(n, period, CHUNKED))
        fields.stated("full layers", f"{kinds.count(FULL)} of {n}", "no_rope_layer_interval")
        return kinds
    if kind != "llama4_text":
        raise fields.missing("layer_types")
    kinds = kinds_of.every(4, local=CHUNKED)(fields, n)
    fields.note("full layers", f"{kinds.count(FULL)} of {n}", "llama4 files omit it", Sure.FAMILY)
    return kinds
