"""mlx-lm: caches that grow as tokens are fed, laid out like those of `mlx_lm.models.cache`.

`generate` feeds the prompt except its last token in chunks of `prefill_step`, and then that token
and all later ones one at a time.  Sizes are those of the arrays (`nbytes` of the caches).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from harness.estimate.elements import MLX
from harness.estimate.geometry import Geometry, KVLayer
from harness.estimate.profiles.base import (
    PLAIN,
    Honours,
    Request,
    SlotProfile,
    UnsupportedCache,
    check_int,
    pad,
)

_STEP = 256  # slots by which mlx-lm's caches grow


@dataclass(frozen=True)
class _Held:
    """Slots that are allocated, and how many of them are filled."""

    slots: int = 0
    filled: int = 0


#: (held, tokens fed at once, reach of the layer) -> held
_Cache = Callable[[_Held, int, int], _Held]


def _growing(held: _Held, fed: int, _reach: int) -> _Held:
    """KVCache: grows in whole steps of 256 slots after the filled ones."""
    if held.filled + fed <= held.slots:
        return _Held(held.slots, held.filled + fed)
    kept = held.filled if held.filled % _STEP else held.slots
    return _Held(kept + pad(fed, _STEP), held.filled + fed)


def _rotating(held: _Held, fed: int, window: int) -> _Held:
    """RotatingKVCache: a chunk follows at most window - 1 kept slots; one token takes one slot."""
    if fed > 1:
        # Empty slots are cut off first; once the window is reached, the ring is full.
        kept = min(held.filled, held.slots, window - 1)
        return _Held(kept + fed, kept + fed)
    if held.filled >= held.slots and held.slots < window:
        return _Held(held.slots + min(_STEP, window - held.filled), held.filled + 1)
    slots = min(held.slots, window)
    return _Held(slots, min(held.filled + 1, slots))


def _chunked(held: _Held, fed: int, chunk: int) -> _Held:
    """ChunkedKVCache: is cut to one chunk before each feed, then grows like KVCache."""
    if held.filled > chunk:
        held = _Held(chunk, chunk)
    return _growing(held, fed, chunk)


_KINDS: dict[str, _Cache] = {"full": _growing, "sliding": _rotating, "chunked": _chunked}


@dataclass(frozen=True)
class Mlx(SlotProfile):
    """mlx-lm's default cache.

    prefill_step: tokens in a chunk of the prompt.  Raises RequestError naming the option.
    """

    prefill_step: int = 2048

    name: ClassVar[str] = "mlx-lm"
    evidence: ClassVar[str] = "its own arrays"
    stores: ClassVar[frozenset[str]] = PLAIN | MLX
    honoured: ClassVar[frozenset[str]] = frozenset(
        {"gemma3", "gemma3n", "gemma4", "gpt-oss", "cohere2", "llama4"}
    )
    ignored: ClassVar[frozenset[str]] = frozenset({"gemma2", "mistral", "phi3", "qwen2"})

    def __post_init__(self) -> None:
        check_int("prefill_step", self.prefill_step)

    def layer_bytes(self, geometry: Geometry, request: Request) -> list[int]:
        """Bytes per layer.

        Raises UnsupportedCache for a storage type that mlx-lm does not have, for keys and values
        of different types if either is quantized, for a quantized ring, which mlx-lm does not
        have, and for the peak of a quantized cache: it arises outside the cache.
        """
        keys, values = request.elements
        self.check_types(request)
        if keys.quantized or values.quantized:
            if keys != values:
                raise UnsupportedCache(
                    f"mlx-lm has no cache of {keys.name} keys and {values.name} values"
                )
            if self.honours(geometry) is Honours.YES:
                raise UnsupportedCache("mlx-lm's rotating and chunked caches cannot be quantized")
            if request.phase == "peak":
                raise UnsupportedCache(
                    "mlx-lm quantizes after each chunk: the peak is not in the cache"
                )
        return super().layer_bytes(geometry, request)

    def layer_slots(self, layer: KVLayer, request: Request, *, honoured: bool) -> int:
        """Slots in the arrays of one sequence."""
        kind = layer.kind if honoured else "full"
        reach = layer.reach or 0
        return _slots(
            kind, reach, request.prompt_len, request.context, self.prefill_step, request.phase
        )


@lru_cache(maxsize=1024)
def _slots(kind: str, reach: int, prompt: int, context: int, chunk: int, phase: str) -> int:
    feed = _KINDS[kind]
    held, most, left = _Held(), 0, prompt - 1
    while left:
        n = min(chunk, left)
        before, held = held, feed(held, n, reach)
        most, left = max(most, held.slots), left - n
        if held == before and left >= n:
            left %= n  # all other whole chunks leave it as it is
    if phase in {"peak", "prefill"}:
        return most if phase == "peak" else held.slots
    held = feed(held, 1, reach)
    return _after_singles(kind, reach, held, context - prompt if phase == "steady" else 0)


def _after_singles(kind: str, reach: int, held: _Held, singles: int) -> int:
    """Slots after that many more tokens, one at a time; held: after at least one such token.

    Computed at once: a context may be long, and each layer may have a window of its own.
    """
    filled = held.filled + singles
    grown = held.slots + pad(max(0, filled - held.slots), _STEP)
    if kind == "sliding":  # it grows up to the window
        return min(grown, max(held.slots, reach))
    if kind == "chunked" and singles and filled > reach + 1:
        return reach + _STEP  # every token cuts it to one chunk, and grows it by one step
    return grown
