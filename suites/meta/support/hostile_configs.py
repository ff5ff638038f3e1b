"""Configs and GGUF files as nobody writes them: wrong types, huge numbers, junk, flipped bytes."""

from __future__ import annotations

import json
import os
import struct

from hypothesis import settings
from hypothesis import strategies as st

#: Examples of each test: few by default, many with HOSTILE_EXAMPLES=2000.
MANY = settings(max_examples=int(os.environ.get("HOSTILE_EXAMPLES", "60")))

GEMMA = {
    "model_type": "gemma3_text",
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_size": 2048,
    "sliding_window": 512,
}

#: Every key that the reader of configs looks at, and a few that it passes over.
KEYS = (
    *GEMMA,
    *("_sliding_window_pattern", "sliding_window_pattern", "layer_types", "max_window_layers"),
    *("use_sliding_window", "attention_chunk_size", "no_rope_layers", "no_rope_layer_interval"),
    *("global_head_dim", "v_head_dim", "num_global_key_value_heads", "attention_k_eq_v"),
    *("num_kv_shared_layers", "per_layer_config", "multi_query", "num_kv_heads", "n_layer"),
    *("n_head", "n_embd", "num_layers", "architectures", "is_encoder_decoder", "kv_lora_rank"),
    *("text_config", "language_config", "llm_config", "thinker_config", "mamba_d_state", "other"),
    *("qk_rope_head_dim", "index_head_dim", "indexer_types", "linear_attn_config", "block_types"),
    *("linear_key_head_dim", "conv_L_cache", "mamba_expand", "hybrid_override_pattern"),
    *("cross_attention_layers", "full_attention_interval", "attn_layer_period", "attn_config"),
    *("attn_layer_indices", "first_k_dense_replace", "hybrid_layer_pattern", "kv_source_layers"),
)

#: Keys of GGUF metadata, without the architecture before them.
GGUF_KEYS = (
    *("block_count", "embedding_length", "attention.head_count", "attention.head_count_kv"),
    *("attention.key_length", "attention.value_length", "attention.key_length_swa"),
    *("attention.sliding_window", "attention.sliding_window_pattern", "attention.value_length_swa"),
    *("attention.shared_kv_layers", "attention.kv_lora_rank", "other"),
)

#: Types with latents, indexers, states and rules of their own.
STATEFUL = (
    *("deepseek_v3", "deepseek_v32", "qwen3_next", "kimi_linear", "jamba", "zamba2", "lfm2"),
    *("nemotron_h", "minimax", "mamba2", "recurrent_gemma", "inkling_text", "dots3_note_text"),
    *("mllama_text_model", "falcon", "dbrx", "longcat_flash", "hrm_text", "mistral_large4_text"),
)

FAMILIES = ("gemma2", "gemma3", "gemma3n", "gemma4", "gpt-oss", "cohere2", "llama4", "mistral", "x")

#: Numbers at the limits, and past them.
NUMBERS = st.integers() | st.sampled_from(
    [0, 1, -1, 2, 12, 4096, 4097, 1 << 20, (1 << 20) + 1, 1 << 31, -(1 << 63), 1 << 64, 10**300]
)

#: Texts with control characters, colours of terminals and of rich, overrides and lone surrogates.
TEXTS = st.text(max_size=12) | st.lists(
    st.sampled_from(
        ["\x1b[2J", "\x07", "\u202e", "\x85", "\n", "\ud800", "\udcff", "[bold]", "[/x]", "512"]
    ),
    max_size=5,
).map("".join)

JUNK = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)

KINDS = st.sampled_from(["full_attention", "sliding_attention", "chunked_attention"])

#: Values that come near to what a key takes.
NEAR = (
    st.sampled_from([*FAMILIES, *STATEFUL, "qwen2", "gemma4_text", "llama4_text", "LLG"])
    | st.lists(KINDS, min_size=12, max_size=12)
    | st.lists(st.integers(0, 2), min_size=12, max_size=12)
    | st.dictionaries(
        st.integers(-1, 12).map(str),
        st.dictionaries(st.sampled_from(["head_dim", "sliding_window", "x"]), NUMBERS | JUNK),
        max_size=4,
    )
)

CONFIGS = st.recursive(
    st.dictionaries(st.sampled_from(KEYS), NEAR | JUNK, max_size=6).map(lambda more: GEMMA | more),
    lambda inner: st.builds(
        lambda key, config, more: more | {key: config},
        st.sampled_from(["text_config", "thinker_config"]),
        inner,
        st.dictionaries(st.sampled_from(KEYS), JUNK, max_size=2),
    ),
    max_leaves=3,
)


@st.composite
def config_texts(draw: st.DrawFn) -> bytes:
    """A config.json with some of its bytes cut out, put in or repeated; or any bytes."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=60))
    text = json.dumps(draw(CONFIGS)).encode()
    at, end = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    junk = draw(
        st.binary(max_size=8)
        | st.sampled_from([b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"[" * 5000, b"\xff\xfe"])
    )
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + text[:at] + junk + text[end:]


_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 7: "?", 10: "Q", 11: "q"}


def _string(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(data)) + data


def _scalar(kind: int, number: int) -> bytes:
    if kind == 7:
        return struct.pack("<?", number % 2)
    size = 8 * struct.calcsize(_SCALARS[kind])
    return struct.pack(f"<{_SCALARS[kind].upper()}", number % (1 << size))


@st.composite
def gguf_values(draw: st.DrawFn, depth: int = 0) -> tuple[int, bytes]:
    """A value's type and bytes: a number, a string, or an array of either or of arrays."""
    what = draw(st.integers(0, 3 if depth < 3 else 2))
    if what < 2:
        kind = draw(st.sampled_from(sorted(_SCALARS)))
        return kind, _scalar(kind, draw(NUMBERS))
    if what == 2:
        return 8, _string(draw(TEXTS | st.sampled_from(FAMILIES)))
    kind, first = draw(gguf_values(depth + 1))
    n = draw(st.sampled_from([0, 1, 11, 12, 13, 4096]))
    items = first * n if depth == 0 or n < 20 else first
    return 9, struct.pack("<IQ", kind, n) + items


@st.composite
def gguf_files(draw: st.DrawFn) -> bytes:
    """A GGUF file of a small model with odd values, some of its bytes changed or cut off."""
    arch = draw(st.sampled_from(FAMILIES) | TEXTS)
    usual = {"block_count": 12, "attention.head_count_kv": 4, "attention.sliding_window": 512}
    usual |= {"attention.key_length": 256, "attention.value_length": 256}
    pairs = {f"{arch}.{key}": (4, _scalar(4, number)) for key, number in usual.items()}
    odd = draw(st.dictionaries(st.sampled_from(GGUF_KEYS) | TEXTS, gguf_values(), max_size=4))
    pairs |= {f"{arch}.{key}": value for key, value in odd.items()}
    pairs = {"general.architecture": (8, _string(arch))} | pairs
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs))
    for key, (kind, value) in pairs.items():
        data += _string(key) + struct.pack("<I", kind) + value
    for at in draw(st.lists(st.integers(0, len(data) - 1), max_size=3)):
        data = data[:at] + draw(st.binary(min_size=1, max_size=1)) + data[at + 1 :]
    return data[: draw(st.just(len(data)) | st.integers(0, len(data)))]
