"""The base classes of the profiles, and the request that a profile answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from harness.estimate.elements import Element, element
from harness.estimate.geometry import Geometry, KVLayer, LayerState

#: When the cache is measured.  peak: the most that each layer holds while the prompt is fed.
#: prefill: after the prompt.  first_decode: after the next token.  steady: at `context` positions,
#: where all those after the prompt were fed one at a time.
PHASES = ("peak", "prefill", "first_decode", "steady")

#: No model takes a longer context; a larger figure is a typing error.
MAX_CONTEXT = 1 << 27
MAX_SEQUENCES = 1 << 16


class RequestError(ValueError):
    """A field of a request or a profile is wrong.

    The message names the field, the value and what is allowed.
    """


@dataclass(frozen=True)
class Request:
    """The run whose cache is to be estimated.

    context: positions per sequence; in llama.cpp, which divides them, of all sequences together.
    sequences: how many the cache holds at once.
    prompt: length of the prompt in tokens; None: the whole context.
    phase: when the cache is measured (`PHASES`).
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
        """The storage types of keys and of values."""
        return element(self.k_type), element(self.v_type)


#: Storage types of every runtime.
PLAIN = frozenset({"f32", "f16", "bf16"})


class Honours(StrEnum):
    """Whether a runtime drops the keys that have left a model's windows."""

    YES = "yes"
    NO = "no"  # keeps every position
    UNKNOWN = "unknown"  # nobody has checked; counted as no, so that no figure is too small
    NOTHING = "-"  # the model has no window


#: What `KVLayer.keeps` names, in words.
_KEPT = {
    "conv": "the inputs of a convolution",
    "index": "keys of an indexer",
    "latent": "latents",
    "recurrent": "a recurrent state",
}

#: Every kind of state.
ALL_STATES = frozenset(_KEPT)


class UnsupportedCache(Exception):
    """The runtime has no such cache; the message is one line and says why."""


@dataclass(frozen=True)
class Profile(ABC):
    """How one runtime, with its options, lays out a cache."""

    name: ClassVar[str]
    #: How the figures are known to be right.
    evidence: ClassVar[str]
    #: Names of the storage types that the runtime has.
    stores: ClassVar[frozenset[str]] = PLAIN
    #: Families whose windows the runtime is known to honour, and those it is known to ignore.
    honoured: ClassVar[frozenset[str]] = frozenset()
    ignored: ClassVar[frozenset[str]] = frozenset()
    #: What it is known to keep beside windows of keys and values per head (`KVLayer.keeps`).
    keeps: ClassVar[frozenset[str]] = frozenset()

    def honours(self, geometry: Geometry) -> Honours:
        """Whether this runtime bounds the cache of this model's sliding and chunked layers."""
        if not geometry.bounded:
            return Honours.NOTHING
        if geometry.family in self.honoured:
            return Honours.YES
        return Honours.NO if geometry.family in self.ignored else Honours.UNKNOWN

    @abstractmethod
    def layer_bytes(self, geometry: Geometry, request: Request) -> list[int]:
        """Bytes per layer, 0 for a layer that reads another's cache.

        Raises UnsupportedCache if the runtime has no such cache.
        """

    def check_types(self, request: Request) -> None:
        """Raise UnsupportedCache unless this runtime has the types of the keys and the values."""
        for stored in request.elements:
            if stored.name not in self.stores:
                raise UnsupportedCache(
                    f"{self.name} has no cache of {stored.name}; "
                    f"it has {', '.join(sorted(self.stores))}"
                )

    def check_states(self, geometry: Geometry) -> None:
        """Raise UnsupportedCache if layers keep something that nobody has measured here."""
        unknown = geometry.keeps - self.keeps
        if unknown:
            raise UnsupportedCache(
                f"layers keep {', '.join(_KEPT[kind] for kind in sorted(unknown))}, "
                f"which nobody has measured in {self.name}"
            )

    def total(self, geometry: Geometry, request: Request) -> int:
        """Bytes of the whole cache.  Raises UnsupportedCache if the runtime has no such cache."""
        return sum(self.layer_bytes(geometry, request))


class SlotProfile(Profile):
    """A profile of a runtime that gives each layer a number of slots, one position in each."""

    @abstractmethod
    def layer_slots(self, layer: KVLayer, request: Request, *, honoured: bool) -> int:
        """Slots of one sequence.  honoured: False if a bounded layer is kept like a full one."""

    def layer_bytes(self, geometry: Geometry, request: Request) -> list[int]:
        """Bytes per layer: those of its slots and of its states, times sequences."""
        self.check_types(request)
        self.check_states(geometry)
        honoured = self.honours(geometry) is Honours.YES
        return [
            request.sequences * self._one(layer, request, honoured=honoured) if layer.owns else 0
            for layer in geometry.layers
        ]

    def width(self, layer: KVLayer, request: Request) -> int:
        """Bytes of one slot."""
        return slot_bytes(layer, request)

    def _one(self, layer: KVLayer, request: Request, *, honoured: bool) -> int:
        if not layer.kv_heads:
            return sum(state_bytes(state, request, 0) for state in layer.states)
        slots = self.layer_slots(layer, request, honoured=honoured)
        states = sum(state_bytes(state, request, slots) for state in layer.states)
        return slots * self.width(layer, request) + states


def state_bytes(state: LayerState, request: Request, slots: int) -> int:
    """Bytes of one sequence's state.  slots: of the layer, for a state with one a position.

    A state is never quantized: where keys are, it is stored in f16.
    """
    keys = request.elements[0]
    plain = keys if keys.name in PLAIN else element("f16")
    stored = element(state.stored) if state.stored else plain
    return stored.bytes_of(state.numbers) * (slots if state.per_position else 1)


def slot_bytes(layer: KVLayer, request: Request) -> int:
    """Bytes of one position's keys and values in a layer.

    Quantized types store each head by itself: a block never extends into the next head.
    Raises UnsupportedCache if a head is not a whole number of blocks.
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
    """n, rounded up to a multiple of `step`."""
    return -(-n // step) * step
