"""No runtime: the keys and values that answers need, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from harness.estimate.elements import ELEMENTS
from harness.estimate.geometry import Geometry, KVLayer
from harness.estimate.profiles.base import Honours, Request, SlotProfile


@dataclass(frozen=True)
class Ideal(SlotProfile):
    """As many slots as a query sees keys: the least with which decoding one by one is exact."""

    name: ClassVar[str] = "ideal"
    stores: ClassVar[frozenset[str]] = frozenset(ELEMENTS)
    evidence: ClassVar[str] = "the law"

    def honours(self, geometry: Geometry) -> Honours:
        """Always."""
        return Honours.YES if geometry.bounded else Honours.NOTHING

    def layer_slots(self, layer: KVLayer, request: Request, *, honoured: bool) -> int:  # noqa: ARG002
        """min(context, window or chunk)."""
        return min(request.context, layer.reach or request.context)


@dataclass(frozen=True)
class Dense(SlotProfile):
    """Every position in every layer that owns a cache, as if there were no windows."""

    name: ClassVar[str] = "dense"
    stores: ClassVar[frozenset[str]] = frozenset(ELEMENTS)
    evidence: ClassVar[str] = "the law"

    def honours(self, geometry: Geometry) -> Honours:
        """Never."""
        return Honours.NO if geometry.bounded else Honours.NOTHING

    def layer_slots(self, layer: KVLayer, request: Request, *, honoured: bool) -> int:  # noqa: ARG002
        """The context."""
        return request.context
