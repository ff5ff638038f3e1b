"""What is asked of a profile, and what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from harness.estimate.elements import Element, element
from harness.estimate.geometry import Geometry, KVLayer

#: When the cache is looked at: the most that each layer holds while the prompt is fed; behind the
#: prompt; behind the token that follows it; with `context` positions, the last ones fed singly.
PHASES = ("peak", "prefill", "first_decode", "steady")

#: No model takes a longer context; what is larger is a slip of the keyboard.
MAX_CONTEXT = 1 << 27
MAX_SEQUENCES = 1 << 16


class RequestError(ValueError):
    """A request that cannot be; the message names the field, the value and what is allowed."""


@dataclass(frozen=True)
class Request:
    """For what run the bytes are asked.

    context: positions per sequence, or in all where the runtime divides them (llama.cpp).
    sequences: held side by side.  prompt: tokens of the prompt, the whole context by default.
    k_type, v_type: how keys and values are stored (`elements.ELEMENTS`).
    Raises RequestError naming the field.
    """

    context: int
    sequences: int = 1
    prompt: int | None = None
    phase: str = "steady"
    k_type: str = "f16"
    v_type: str = "f16"

    def __post_init__(self) -> None:
        check_int("context", self.context, MAX_CONTEXT)
        check_int("sequences", self.sequences, MAX_SEQUENCES)
        if self.prompt is not None:
            check_int(f"prompt (context={self.context})", self.prompt, self.context)
        if self.phase not in PHASES:
            raise RequestError(f"phase must be one of {', '.join(PHASES)}, got {self.phase!r}")
        for name in (self.k_type, self.v_type):
            try:
                element(name)
            except ValueError as error:
                raise RequestError(str(error)) from error

    @property
    def prompt_len(self) -> int:
        return self.context if self.prompt is None else self.prompt

    @property
    def elements(self) -> tuple[Element, Element]:
        """Of keys and of values."""
        return element(self.k_type), element(self.v_type)


#: What any runtime can store.
PLAIN = frozenset({"f32", "f16", "bf16"})


class Honours(StrEnum):
    """Whether a runtime forgets what is behind a model's windows."""

    YES = "yes"
    NO = "no"  # keeps every position
    UNKNOWN = "unknown"  # not looked at; taken as no, so that nothing is promised too small
    NOTHING = "-"  # the model has no window


class UnsupportedCache(Exception):
    """The runtime cannot hold such a cache; the reason is one line."""


@dataclass(frozen=True)
class Profile(ABC):
    """How one runtime, with its options, lays out a cache."""

    name: ClassVar[str]
    #: How the figures are known to be right.
    evidence: ClassVar[str]
    #: Names of the element types that it can store.
    stores: ClassVar[frozenset[str]] = PLAIN
    #: Families whose windows the runtime is known to honour, and known to ignore.
    honoured: ClassVar[frozenset[str]] = frozenset()
    ignored: ClassVar[frozenset[str]] = frozenset()

    def honours(self, geometry: Geometry) -> Honours:
        """Whether this runtime keeps no more than the window of this model's bounded layers."""
        if not geometry.bounded:
            return Honours.NOTHING
        if geometry.family in self.honoured:
            return Honours.YES
        return Honours.NO if geometry.family in self.ignored else Honours.UNKNOWN

    @abstractmethod
    def layer_bytes(self, geometry: Geometry, request: Request) -> list[int]:
        """Bytes per layer, 0 for a layer that owns no cache.

        Raises UnsupportedCache for what the runtime cannot hold.
        """

    def check_types(self, request: Request) -> None:
        """Raise UnsupportedCache unless keys and values are of types that this runtime stores."""
        for stored in request.elements:
            if stored.name not in self.stores:
                raise UnsupportedCache(
                    f"{self.name} has no cache of {stored.name}; "
                    f"it has {', '.join(sorted(self.stores))}"
                )

    def total(self, geometry: Geometry, request: Request) -> int:
        """Bytes of the whole cache."""
        return sum(self.layer_bytes(geometry, request))


class SlotProfile(Profile):
    """A profile of a runtime that stores a number of slots per layer, each of the same width."""

    @abstractmethod
    def layer_slots(self, layer: KVLayer, request: Request, *, honoured: bool) -> int:
        """Slots of one sequence.  honoured: False where a bounded layer is kept like a full one."""

    def layer_bytes(self, geometry: Geometry, request: Request) -> list[int]:
        """Slots times the bytes of a position's keys and values, times the sequences."""
        self.check_types(request)
        honoured = self.honours(geometry) is Honours.YES
        return [
            request.sequences
            * self.layer_slots(layer, request, honoured=honoured)
            * slot_bytes(layer, request)
            if layer.owns
            else 0
            for layer in geometry.layers
        ]


def slot_bytes(layer: KVLayer, request: Request) -> int:
    """Bytes of the keys and values of one position.

    Quantized types store each head by itself: a block never reaches into the next head.
    Raises UnsupportedCache where a head is no whole number of blocks.
    """
    keys, values = request.elements
    try:
        k_bytes, v_bytes = keys.bytes_of(layer.k_dim), values.bytes_of(layer.v_dim)
    except ValueError as error:
        raise UnsupportedCache(str(error)) from error
    return layer.kv_heads * (k_bytes + v_bytes)


def check_int(field: str, value: object, most: int = MAX_CONTEXT, least: int = 1) -> None:
    """Raise RequestError naming the field unless the value is an integer in least…most."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise RequestError(f"{field} must be an integer in {least}…{most}, got {value!r}")


def pad(n: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-n // step) * step
