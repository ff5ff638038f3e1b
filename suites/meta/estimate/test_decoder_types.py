"""The decoder types of transformers: the table of their fields, and how their layers alternate.

`DECODERS=all pytest suites/meta/estimate/test_decoder_types.py` compares the cache of every type;
without it, those of `SAMPLE`.
"""

from __future__ import annotations

import csv
import inspect
import os
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import decoder_fields
import pytest
import torch
from decoder_sweep import outcome
from tiny_decoders import decoder_types, default_fields

from harness.estimate import hf_config
from harness.estimate.decoders import measured, table
from harness.estimate.decoders.rules import RULES
from harness.estimate.decoders.states import FORMULAS
from harness.estimate.geometry import Geometry

pytestmark = pytest.mark.needs("transformers")

#: One type of each way to cache: windows, chunks, shared caches, latents, indexers, states.
SAMPLE = (
    *("afmoe", "cohere2_moe", "falcon", "flint", "gemma3n_text", "gemma4_text", "gpt_bigcode"),
    *("gpt_neo", "gpt_oss", "jetmoe", "llama", "llama4_text", "mimo_v2_flash", "mistral"),
    *("modernbert-decoder", "mpt", "qwen2_moe", "smollm3"),
    *("axk1", "deepseek_v3", "deepseek_v32", "dots3_note_text", "hy_v4", "longcat_flash"),
    *("bamba", "falcon_h1", "jamba", "lfm3", "mamba", "mamba2", "minimax", "nemotron_h"),
    *("olmo_hybrid", "qwen3_next", "rwkv", "zamba", "zaya"),
)

#: Types with a state whose numbers are stored otherwise than keys are.
STATES = (
    *("bailing_hybrid", "falcon_h1", "jamba", "kimi_linear", "lfm3", "minimax", "nemotron_h"),
    *("olmo_hybrid", "qwen3_next", "zamba"),
)

EVERY = decoder_types() if os.environ.get("DECODERS") == "all" else SAMPLE


def rows() -> dict[str, dict[str, str]]:
    with measured.TABLE.open(encoding="utf-8", newline="") as file:
        return {row["type"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("model_type", EVERY)
def test_the_cache_of_a_tiny_instance(model_type: str) -> None:
    """Equal to the byte, or refused or not run for the reason that the table gives."""
    row, found = rows()[model_type], outcome(model_type)
    assert (found.verdict, found.why) == (row["verdict"], row["why"])


@pytest.mark.parametrize("model_type", STATES)
def test_states_in_half_precision(model_type: str) -> None:
    """Nearly every class keeps recurrent states in float32 whatever the type of the model."""
    assert outcome(model_type, torch.bfloat16).verdict == measured.EQUAL


def test_the_sweep_covers_every_type_and_finds_none_wrong() -> None:
    found = Counter(row["verdict"] for row in rows().values())
    assert sorted(rows()) == decoder_types()
    assert set(found) == {measured.EQUAL, measured.REFUSED, measured.NOT_RUN}
    assert found[measured.EQUAL] >= 230
    assert all(row["why"] for row in rows().values() if row["verdict"] != measured.EQUAL)


def test_the_table_of_fields_is_that_of_the_installed_classes() -> None:
    """`python suites/meta/support/decoder_fields.py` writes it."""
    assert table.TABLE.read_text(encoding="utf-8") == decoder_fields.text()


def test_rules_and_formulas_are_of_types_that_exist() -> None:
    known = set(table.types()) | {"minimax_m1", "minimax_text_01"}
    assert set(RULES) <= known
    assert set(FORMULAS) <= known


#: Values of the fields that move a layer from one kind to another.
MOVES: tuple[dict[str, Any], ...] = (
    {},
    {"sliding_window": 64},
    {"sliding_window_pattern": 3},
    {"full_attention_interval": 3},
    {"global_attn_every_n_layers": 3},
    {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 2},
    {"no_rope_layer_interval": 3},
    {"layer_group_size": 3},
    {"attn_layer_period": 3, "attn_layer_offset": 1},
    {"first_k_dense_replace": 2},
    {"block_types": ["recurrent", "attention"]},
    {"hybrid_override_pattern": "ME*-M"},
)

Kinds = list[tuple[str, int | None]]


def made(kind: Any, fields: dict[str, Any]) -> Kinds | None:
    """The kind and reach of each layer of a class's cache; None if it refuses these fields."""
    from transformers.cache_utils import get_layer_types_and_kwargs

    try:
        config = kind(**fields).get_text_config(decoder=True)
        names, more = get_layer_types_and_kwargs(config)
    except Exception:  # a depth or a field that this class refuses
        return None
    windows = [item.get("sliding_window") for item in more]
    return [_kind(name, window) for name, window in zip(names, windows, strict=True)]


def _kind(name: str, window: int | None) -> tuple[str, int | None]:
    if name in {"linear_attention", "conv", "dummy"}:
        return "none", None
    if "sliding" in name or "chunk" in name:
        return "bounded", window
    return "full", None


def read(geometry: Geometry) -> Kinds:
    return [
        ("none", None)
        if layer.kind in {"state", "nothing"} or not layer.owns
        else ("bounded" if layer.reach else "full", layer.reach)
        for layer in geometry.layers
    ]


def cases(kind: Any) -> Iterator[dict[str, Any]]:
    """Depths and fields, of those that the class reads."""
    source = inspect.getsource(inspect.getmodule(kind))
    fields = default_fields(kind)
    for n in (2, 13, *({54} if kind.model_type == "zamba2" else ())):
        for move in MOVES:
            if all(key in fields or f'"{key}"' in source for key in move):
                yield {"num_hidden_layers": n} | move


#: Classes whose layers are not those that their caches have, or that are refused.
OTHERWISE = frozenset({"gemma3n_text", "longcat_flash", "mllama_text_model", "rwkv"})


#: Types that are no more than a decoder; in the others it has a type of its own.
ALONE = sorted({name for name, row in table.types().items() if not row.text} - OTHERWISE)


@cache
def classes() -> dict[str, Any]:
    return {kind.model_type: kind for kind in decoder_fields.classes()}


@pytest.mark.parametrize("model_type", ALONE)
def test_layers_alternate_as_the_class_has_them(model_type: str) -> None:
    """At two depths, with every field that moves a layer."""
    kind = classes()[model_type]
    for fields in cases(kind):
        theirs = made(kind, fields)
        if theirs is None or ("bounded", None) in theirs:
            continue  # a class that has windows of no length
        try:
            ours = read(hf_config.read({"model_type": model_type} | fields))
        except hf_config.GeometryError as error:
            assert "not counted" in str(error) or "only decoders" in str(error)  # noqa: PT017
            continue
        assert ours == theirs, fields
