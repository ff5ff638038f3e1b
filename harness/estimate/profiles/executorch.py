"""ExecuTorch: ring caches, attention sinks, and the static caches of its accelerators.

Options of the export decide which layer gets which cache, whatever the architecture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from harness.estimate.geometry import Geometry, KVLayer
from harness.estimate.profiles.base import (
    Honours,
    Request,
    SlotProfile,
    UnsupportedCache,
    check_int,
)


class _Exported(SlotProfile):
    evidence: ClassVar[str] = "its own storages"

    def honours(self, geometry: Geometry) -> Honours:
        """Windows are honoured; a model with chunked layers is not: no such cache knows chunks."""
        if any(layer.law.chunk is not None for layer in geometry.layers):
            return Honours.NO
        return Honours.YES if geometry.bounded else Honours.NOTHING


@dataclass(frozen=True)
class Ring(_Exported):
    """`--local_global_attention`: rings of twice the window in local layers."""

    name: ClassVar[str] = "executorch.ring"

    def layer_slots(self, layer: KVLayer, request: Request, *, honoured: bool) -> int:
        """2W slots, whatever the context; the whole context in a full layer."""
        return 2 * layer.law.window if honoured and layer.law.window else request.context


@dataclass(frozen=True)
class Sink(_Exported):
    """`--use_attention_sink SINK,WINDOW`: every layer becomes a ring that follows the sinks.

    sink: how many sinks.  window: None for each layer's own, which every layer must then have.
    Raises RequestError naming the option.
    """

    sink: int = 4
    window: int | None = None

    name: ClassVar[str] = "executorch.sink"

    def __post_init__(self) -> None:
        check_int("sink", self.sink, least=0)
        if self.window is not None:
            check_int("window", self.window)

    def layer_slots(self, layer: KVLayer, request: Request, *, honoured: bool) -> int:  # noqa: ARG002
        """sink + 2W slots, whatever the context.  Raises UnsupportedCache if there is no window."""
        window = self.window or layer.law.window
        if window is None:
            raise UnsupportedCache("every layer becomes a ring: give its window")
        return self.sink + 2 * window


@dataclass(frozen=True)
class Static(_Exported):
    """Static attention (Core ML, QNN): caches of fixed length that are inputs of the graph.

    input_len: tokens of one step; their keys and values are not in the cache during the step.
    The length of each layer's cache is what `resolve_cache_lens` gives: the window, or the context
    without the step's tokens.
    Raises RequestError naming the option.
    """

    input_len: int = 32

    name: ClassVar[str] = "executorch.static"

    def __post_init__(self) -> None:
        check_int("input_len", self.input_len)

    def layer_slots(self, layer: KVLayer, request: Request, *, honoured: bool) -> int:
        """min(W, context - input_len) slots.

        Raises UnsupportedCache if one step fills the context.
        """
        room = request.context - self.input_len
        if room < 1:
            raise UnsupportedCache(f"a step of {self.input_len} tokens leaves no room for a cache")
        return min(room, layer.law.window) if honoured and layer.law.window else room
