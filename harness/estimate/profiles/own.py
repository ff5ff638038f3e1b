"""The harness's own caches: rings, growing caches, and the caches of its static graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from harness.estimate.geometry import Geometry, KVLayer
from harness.estimate.profiles.base import (
    Honours,
    Profile,
    Request,
    SlotProfile,
    UnsupportedCache,
    check_int,
    slot_bytes,
)

_POSITION = 8  # bytes: a ring stores the position of each slot as an int64


@dataclass(frozen=True)
class OwnRing(Profile):
    """`SinkRingCache` in sliding layers, `GrowingCache` in all others.

    chunk: the longest chunk that is fed (`CacheShape.max_chunk`).
    Raises RequestError naming the option.
    """

    chunk: int = 512

    name: ClassVar[str] = "harness.ring"
    evidence: ClassVar[str] = "its own storages"

    def __post_init__(self) -> None:
        check_int("chunk", self.chunk)

    def honours(self, geometry: Geometry) -> Honours:
        """Windows are honoured; a model with chunked layers is not: they are kept in full."""
        if any(layer.law.chunk is not None for layer in geometry.layers):
            return Honours.NO
        return Honours.YES if geometry.bounded else Honours.NOTHING

    def layer_bytes(self, geometry: Geometry, request: Request) -> list[int]:
        """Bytes per layer: all of a ring from the start, of a growing cache what is filled."""
        self.check_types(request)
        self.check_states(geometry)
        filled = {
            "peak": request.prompt_len,
            "prefill": request.prompt_len,
            "first_decode": request.prompt_len + 1,
            "steady": request.context,
        }[request.phase]
        sizes = []
        for layer in geometry.layers:
            width, window = request.sequences * slot_bytes(layer, request), layer.law.window
            if not layer.owns:
                sizes.append(0)
            elif window is None:
                sizes.append(filled * width)
            else:
                # Room for window - 1 keys and a chunk.  A chunk longer than window + 1 needs no
                # more: it is answered from outside the ring, which then keeps its last keys.
                slots = layer.law.sink + window - 1 + min(self.chunk, window + 1)
                sizes.append(slots * (width + _POSITION))
        return sizes


@dataclass(frozen=True)
class OwnStatic(SlotProfile):
    """`StaticLayout`, with the lengths that `model_cache_lens` gives.

    input_len: tokens of one step; their keys and values are not in the cache during the step.
    Raises RequestError naming the option.
    """

    input_len: int = 32

    name: ClassVar[str] = "harness.static"
    evidence: ClassVar[str] = "its own storages"

    def __post_init__(self) -> None:
        check_int("input_len", self.input_len)

    def honours(self, geometry: Geometry) -> Honours:
        """Windows and chunks are honoured."""
        return Honours.YES if geometry.bounded else Honours.NOTHING

    def layer_slots(self, layer: KVLayer, request: Request, *, honoured: bool) -> int:  # noqa: ARG002
        """min(sink + window or chunk, context - input_len) slots.

        Raises UnsupportedCache if one step fills the context.
        """
        room = request.context - self.input_len
        if room < 1:
            raise UnsupportedCache(f"a step of {self.input_len} tokens leaves no room for a cache")
        return room if layer.reach is None else min(room, layer.law.sink + layer.reach)
