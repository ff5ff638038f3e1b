"""Which layers of a decoder keep a state, where its config does not list them.

Each rule is that of the class in transformers; tests compare it with the class for several depths
and for every value that moves it.  Layer i is counted from 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.estimate.decoders.kinds import (
    CONV,
    FULL,
    HYBRID,
    HYBRID_SLIDING,
    LINEAR,
    NOTHING,
    SLIDING,
    flags,
    indices,
)
from harness.estimate.fields import Fields


def inkling(fields: Fields, n: int) -> list[str]:
    """The local layers are listed, or all but every sixth."""
    local = [i for i in range(n) if (i + 1) % 6]
    if fields.has("local_layer_ids"):
        local = indices(fields, "local_layer_ids", n)
    return [HYBRID_SLIDING if i in local else HYBRID for i in range(n)]


def listed_attention(fields: Fields, n: int) -> list[str]:
    """MiniMax-Text-01: a list of flags, 1 for attention and 0 for a state."""
    if not fields.has("attn_type_list"):
        raise fields.missing("attn_type_list")
    return [FULL if flag else LINEAR for flag in flags(fields, "attn_type_list", n)]


def bamba(fields: Fields, n: int) -> list[str]:
    held = fields.has("attn_layer_indices")
    full = indices(fields, "attn_layer_indices", n) if held else []
    return [FULL if i in full else LINEAR for i in range(n)]


def jamba(fields: Fields, n: int) -> list[str]:
    step = fields.integer("attn_layer_period") or 8
    at = fields.integer("attn_layer_offset", least=0) or 0
    return [FULL if i % step == at else LINEAR for i in range(n)]


def zamba(fields: Fields, n: int) -> list[str]:
    """Two layers without attention and one with it; then a period."""
    step = fields.integer("attn_layer_period") or 6
    at = fields.integer("attn_layer_offset", least=0) or 0
    rest = [HYBRID if i % step == at else LINEAR for i in range(n - 3)]
    return ([LINEAR, LINEAR, HYBRID, *rest])[:n]


def zamba2(_fields: Fields, n: int) -> list[str]:
    """The class has one list, of 54 layers."""
    head = [LINEAR, *([LINEAR] * 5 + [HYBRID]) * 7]
    return (head + [LINEAR] * 4 + [HYBRID] + [LINEAR] * 3 + [HYBRID] + [LINEAR] * 2)[:n]


def lfm2(fields: Fields, n: int) -> list[str]:
    if not fields.has("full_attn_idxs"):
        return [FULL] * n
    full = indices(fields, "full_attn_idxs", n)
    return [FULL if i in full else CONV for i in range(n)]


def lfm3(_fields: Fields, n: int) -> list[str]:
    """Of four layers, the first slides (not the very first), the third is full."""
    return [FULL if i % 4 == 2 else CONV if i % 2 or not i else SLIDING for i in range(n)]


def kimi(fields: Fields, n: int) -> list[str]:
    """The full layers are listed, counted from 1; or every fourth, but not the first, is full."""
    listed = fields.part("linear_attn_config")
    if listed is not None and listed.has("full_attn_layers"):
        full = [i - 1 for i in indices(listed, "full_attn_layers", n + 1)]
    else:
        full = [i for i in range(1, n) if i % 4 == 0]
    return [FULL if i in full else LINEAR for i in range(n)]


def olmo_hybrid(_fields: Fields, n: int) -> list[str]:
    """Every fourth layer is full, and if there is none, the last."""
    kinds = [LINEAR if (i + 1) % 4 else FULL for i in range(n)]
    return kinds if FULL in kinds else [*kinds[:-1], FULL]


def nemotron(fields: Fields, n: int) -> list[str]:
    """A letter a layer: M keeps a state, * keys and values, E and - nothing."""
    letters = fields.text("hybrid_override_pattern", most=4096)
    if letters is None:
        return [LINEAR, NOTHING, FULL, NOTHING]
    kinds = {"M": LINEAR, "*": FULL, "E": NOTHING, "-": NOTHING}
    for letter in letters:
        if letter not in kinds:
            rule = f"{fields.written('hybrid_override_pattern')} must hold the letters M, E, *, -"
            raise fields.error(rule, letter)
    return [kinds[letter] for letter in letters] or [NOTHING] * n


def recurrent(fields: Fields, n: int) -> list[str]:
    """RecurrentGemma: a list of block types, repeated."""
    cycle = fields.value("block_types")
    if not isinstance(cycle, Sequence) or not cycle or not set(cycle) <= {"recurrent", "attention"}:
        rule = f'{fields.written("block_types")} must be a list of "recurrent" and "attention"'
        raise fields.error(rule, cycle)
    return [LINEAR if cycle[i % len(cycle)] == "recurrent" else SLIDING for i in range(n)]
