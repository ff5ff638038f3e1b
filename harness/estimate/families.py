"""Architectures: what they are called, and what their files leave out because the code fixes it."""

from __future__ import annotations

from dataclasses import dataclass

#: Spellings that are no mere variant of the name: "gemma3_text" and "gpt_oss" need no row.
_ALIASES = {"llama3": "llama", "gptoss": "gpt-oss"}

_SUFFIXES = ("_text", "_vl", "forcausallm", "forconditionalgeneration")


def canonical(name: str) -> str:
    """The family of a model_type, a class name or a GGUF architecture, in one spelling.

    "gemma3_text" and "Gemma3ForConditionalGeneration" are "gemma3"; "gpt_oss" is "gpt-oss".
    Names are compared whole: "gemma" and "gemma3" are two families.
    """
    name = name.lower()
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    name = name.replace("_", "-")
    return _ALIASES.get(name, name)


@dataclass(frozen=True)
class Family:
    """What code fixes for a family.

    period: layer i is full iff (i + 1) % period == 0, where a file states no pattern.
    window, chunk: where a GGUF file states none (llama.cpp's own constants).
    heads: num_attention_heads, num_key_value_heads and head_dim where a config.json leaves them
    out (the defaults of the transformers class, which released files rely on).
    caches: how many layers own a cache, where a GGUF file states nothing of sharing.
    """

    period: int | None = None
    window: int | None = None
    chunk: int | None = None
    heads: tuple[int, int, int] | None = None
    caches: int | None = None


#: Families whose layers slide: a file without a window of theirs says too little.
FAMILIES: dict[str, Family] = {
    "gemma2": Family(period=2, window=4096),
    "gemma3": Family(period=6, heads=(8, 4, 256)),
    "gemma3n": Family(period=5, caches=20),
    "gemma4": Family(),
    "gpt-oss": Family(period=2),
    "cohere2": Family(period=4),
    "llama4": Family(period=4, chunk=8192),
    "mistral": Family(),
}
