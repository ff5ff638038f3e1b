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

    period: if a file gives no pattern, layer i is full iff (i + 1) % period == 0 (but see `first`).
    window, chunk: used if a GGUF file gives none (llama.cpp's own constants).
    stated: released files always state which layers slide, and nothing stands in for it.
    caches: how many layers own a cache, used if a GGUF file does not say which layers share one.
    optional: some of its models have no window.
    first: of each period the first layer is full, not the last.
    only: llama.cpp knows the windows of models of this many layers alone.
    every: every layer slides where a file has a window.
    """

    period: int | None = None
    window: int | None = None
    chunk: int | None = None
    caches: int | None = None
    stated: bool = False
    optional: bool = False
    first: bool = False
    only: int | None = None
    every: bool = False

    def slides(self, n: int) -> list[bool]:
        """For each of n layers, whether it is no full one by the family's period."""
        if self.period is None:
            return [True] * n
        at = 0 if self.first else self.period - 1
        return [i % self.period != at for i in range(n)]


_EVERY = Family(every=True)

#: Families with sliding or chunked layers, as llama.cpp has them.
FAMILIES: dict[str, Family] = {
    "afmoe": Family(period=4, optional=True),
    "exaone4": Family(period=4, optional=True, only=64),
    "gemma2": Family(period=2, window=4096),
    "gemma3": Family(period=6),
    "gemma3n": Family(period=5, caches=20),
    "gemma4": Family(stated=True),
    "gpt-oss": Family(period=2),
    "cohere2": Family(period=4),
    "llama4": Family(period=4, chunk=8192),
    "llama": _EVERY,
    "mimo2": Family(stated=True),
    "mistral": _EVERY,
    "mistral3": _EVERY,
    "olmo2": Family(period=4, optional=True),
    "phi3": _EVERY,
    "phimoe": _EVERY,
    "plamo3": Family(period=8, optional=True),
    "smallthinker": Family(period=4, window=4096, first=True),
    "starcoder2": _EVERY,
    "step35": Family(stated=True),
}
