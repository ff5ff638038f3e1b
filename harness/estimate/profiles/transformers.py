"""transformers: DynamicCache and StaticCache, both made from the config's layer types.

The bytes are those of the storages.  A sliding layer of a DynamicCache keeps a view of the tensor
that its last step concatenated, and a view keeps all of that tensor alive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from harness.estimate.geometry import Geometry, KVLayer
from harness.estimate.profiles.base import (
    ALL_STATES,
    Honours,
    Request,
    SlotProfile,
)


class _FromConfig(SlotProfile):
    evidence: ClassVar[str] = "its own storages"
    keeps: ClassVar[frozenset[str]] = ALL_STATES

    def honours(self, geometry: Geometry) -> Honours:
        """Yes for every model: the cache is made from the config, whatever the architecture."""
        return Honours.YES if geometry.bounded else Honours.NOTHING

    def width(self, layer: KVLayer, request: Request) -> int:
        """Bytes of one slot, with every copy of a head that the model's code makes."""
        return layer.repeats * super().width(layer, request)


@dataclass(frozen=True)
class Dynamic(_FromConfig):
    """DynamicCache, with the prompt fed at once, as `generate` does."""

    name: ClassVar[str] = "transformers.dynamic"

    def layer_slots(self, layer: KVLayer, request: Request, *, honoured: bool) -> int:  # noqa: ARG002
        """Slots in the storage: the whole prompt, until the next token.

        That token cuts a sliding layer to the last window - 1 positions and adds its own.
        """
        prompt = request.prompt_len
        if request.phase in {"peak", "prefill"}:
            return prompt
        # A window of 1 cuts nothing: a slice of the last 0 keys, [-0:], is all of them.
        reach = layer.reach if layer.reach != 1 else None
        if request.phase == "first_decode":
            return (prompt if reach is None else min(prompt, reach - 1)) + 1
        return request.context if reach is None else min(request.context, reach)


@dataclass(frozen=True)
class Static(_FromConfig):
    """StaticCache with max_cache_len = context; the first step allocates everything."""

    name: ClassVar[str] = "transformers.static"

    def layer_slots(self, layer: KVLayer, request: Request, *, honoured: bool) -> int:  # noqa: ARG002
        """min(context, window or chunk) slots."""
        return min(request.context, layer.reach or request.context)
