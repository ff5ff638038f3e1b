"""Architectures: their names, and the figures that the code fixes and files therefore leave out."""

from __future__ import annotations

from dataclasses import dataclass

#: Names that `canonical` cannot derive by rule ("gemma3_text" and "gpt_oss" need no row).
_ALIASES = {"llama3": "llama", "gptoss": "gpt-oss"}

_SUFFIXES = ("_text", "_vl", "forcausallm", "forconditionalgeneration")


def canonical(name: str) -> str:
    """The family, in one spelling, of a model_type, a class name or a GGUF architecture.

    "gemma3_text" and "Gemma3ForConditionalGeneration" are "gemma3"; "gpt_oss" is "gpt-oss".
    "gemma" and "gemma3" are two families: a prefix does not match.
    """
    name = name.lower()
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    name = name.replace("_", "-")
    return _ALIASES.get(name, name)


@dataclass(frozen=True)
class Family:
    """The figures that the code fixes for a family, used where a file leaves them out.

    period: if a file gives no pattern, layer i is full iff (i + 1) % period == 0.
    window, chunk: used if a GGUF file gives none (llama.cpp's own constants).
    heads: num_attention_heads, num_key_value_heads and head_dim, used if a config.json leaves them
    out (the defaults of the transformers class, which released files rely on).
    stated: released files always state which layers slide, and nothing stands in for it.
    caches: how many layers own a cache, used if a GGUF file does not say which layers share one.
    """

    period: int | None = None
    window: int | None = None
    chunk: int | None = None
    heads: tuple[int, int, int] | None = None
    caches: int | None = None
    stated: bool = False


#: Families with sliding or chunked layers.  A config.json of a sliding family is refused unless it
#: has `sliding_window` or `layer_types`.
FAMILIES: dict[str, Family] = {
    "gemma2": Family(period=2, window=4096),
    "gemma3": Family(period=6, heads=(8, 4, 256)),
    "gemma3n": Family(period=5, caches=20),
    "gemma4": Family(stated=True),
    "gpt-oss": Family(period=2),
    "cohere2": Family(period=4),
    "llama4": Family(period=4, chunk=8192),
    "mistral": Family(),
}
