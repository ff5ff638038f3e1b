"""Two bounds that are not runtimes: only the keys that the law needs, and every key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from harness.estimate.elements import ELEMENTS
from harness.estimate.geometry import Geometry, KVLayer
from harness.estimate.profiles.base import ALL_STATES, Honours, Request, SlotProfile


@dataclass(frozen=True)
class Ideal(SlotProfile):
    """A slot for each key that a query sees: the least that decodes exactly, token by token."""

    name: ClassVar[str] = "ideal"
    stores: ClassVar[frozenset[str]] = frozenset(ELEMENTS)
    evidence: ClassVar[str] = "the law"
    keeps: ClassVar[frozenset[str]] = ALL_STATES

    def honours(self, geometry: Geometry) -> Honours:
        """Yes for every model that has a window or chunk."""
        return Honours.YES if geometry.bounded else Honours.NOTHING

    def layer_slots(self, layer: KVLayer, request: Request, *, honoured: bool) -> int:  # noqa: ARG002
        """min(context, window or chunk) slots."""
        return min(request.context, layer.reach or request.context)


@dataclass(frozen=True)
class Dense(SlotProfile):
    """Every position in every layer that owns a cache, as if there were no windows."""

    name: ClassVar[str] = "dense"
    stores: ClassVar[frozenset[str]] = frozenset(ELEMENTS)
    evidence: ClassVar[str] = "the law"
    keeps: ClassVar[frozenset[str]] = ALL_STATES

    def honours(self, geometry: Geometry) -> Honours:
        """No for every model that has a window or chunk."""
        return Honours.NO if geometry.bounded else Honours.NOTHING

    def layer_slots(self, layer: KVLayer, request: Request, *, honoured: bool) -> int:  # noqa: ARG002
        """A slot for each position of the context."""
        return request.context
