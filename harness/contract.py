"""What a subject implements: the public, stable contract.

A subject is a class with `name`, `schemes` and one of three bodies: `AttentionSubject`
(stateless), `CacheSubject` (one layer's cache, which the harness runs in its small decoder) or
`DecoderSubject` (a whole causal model with its own weights).

`Unsupported` is raised for a case that the subject does not claim; it shows as "not claimed",
never as a pass.  Any other exception is a failure of the check.

Everything else is optional: `OPTIONAL_MEMBERS` lists what the harness looks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor, device, dtype

from harness.law import SCHEMES, Layer

if TYPE_CHECKING:
    from harness.cases.case import Case


class Unsupported(Exception):
    """The subject does not claim this case; the reason is shown in the report."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class CacheShape:
    """The sizes for which a layer's cache is made.

    max_context: the most positions that will be held; max_chunk: tokens of the longest update.
    """

    batch: int
    n_kv_heads: int
    head_dim: int
    max_context: int
    max_chunk: int
    dtype: dtype
    device: device


@runtime_checkable
class AttentionSubject(Protocol):
    """A stateless attention operation."""

    name: str
    schemes: frozenset[str]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        """q (B, Hq, Sq, D); k, v (B, Hkv, Sk, D), Hq % Hkv == 0 -> (B, Hq, Sq, D).

        The queries are the last Sq of the Sk positions; scale 1/sqrt(D).
        """
        ...


class LayerCache(Protocol):
    """One layer's cache.  Optional: ``rewind``."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take k, v (B, Hkv, t, D) of the next t positions, keys already rotated.

        Returns keys, values (B, Hkv, n, D) and a bool mask (t, n) or (B, 1, t, n), True = visible;
        (1, 1, t, n) stands for every row of the batch.
        """
        ...

    def reset(self) -> None:
        """Forget everything; the next update starts at position 0."""
        ...

    def nbytes(self) -> int:
        """Storage bytes held now."""
        ...


@runtime_checkable
class CacheSubject(Protocol):
    """Makes one layer's cache.  Optional: ``profile``."""

    name: str
    schemes: frozenset[str]

    def new_cache(self, layer: Layer, shape: CacheShape) -> LayerCache:
        """An empty cache for `layer`."""
        ...


class Decoder(Protocol):
    """An open causal model.  Optional: ``rewind`` and ``stated_masks``."""

    def feed(self, tokens: Tensor) -> Tensor:
        """tokens (B, t) int64, the next t positions -> logits (B, t, V)."""
        ...

    def reset(self) -> None:
        """Forget everything; the next feed starts at position 0."""
        ...

    def cache_bytes(self) -> list[int]:
        """Storage bytes held now, per layer (0 for a layer that reads another's cache)."""
        ...

    def dense(self, tokens: Tensor, layers: Sequence[Layer] | None = None) -> Tensor:
        """tokens (B, n) -> logits (B, n, V): the same weights without a cache.

        Masks are made from `layers`, by default the case's own laws: the blindness guard asks for
        neighbouring laws.
        """
        ...


@runtime_checkable
class DecoderSubject(Protocol):
    """A whole causal model with its own weights, a function of ``case.weights_seed`` alone.

    Optional: ``profile``, ``dense_key`` and ``stored``.
    """

    name: str
    schemes: frozenset[str]

    def open(self, case: Case) -> Decoder:
        """A fresh decoder for `case`: its model, dtype, batch, context and longest chunk."""
        ...


Subject = AttentionSubject | CacheSubject | DecoderSubject


@dataclass(frozen=True)
class OptionalMember:
    """A member that a subject, or what it opens, may have in addition to its protocol's.

    of: what may have it.  form: how it is written.  default: its value where it is absent.
    """

    name: str
    of: str
    form: str
    meaning: str
    default: Any = None


_ANY, _LOWERED = "any subject", "a subject that runs a lowered program"

#: Every optional member.  The harness reads them by `optional` and in no other way.
OPTIONAL_MEMBERS: tuple[OptionalMember, ...] = (
    OptionalMember(
        "package",
        _ANY,
        'package = "executorch"',
        "the distribution that the subject adapts: its version is in every record, and where it "
        'is missing the subject reads "not installed"',
    ),
    OptionalMember(
        "suite",
        _ANY,
        'suite = "sliced_q"',
        "the suite that runs the subject, instead of the suites of its schemes "
        "(suites/test_sliced_q.py)",
        default="",
    ),
    OptionalMember(
        "device",
        _ANY,
        'device = "cuda:0"',
        "the torch device on which it computes; baselines are kept for each kind of device",
        default="cpu",
    ),
    OptionalMember(
        "checks",
        _ANY,
        'checks = frozenset({"visibility", "values"})',
        "the names of the checks that are planned for it; by default all checks of its kind",
    ),
    OptionalMember(
        "covers",
        _ANY,
        "covers(check, case) -> bool, a static or class method",
        "False leaves a case of a check out of the plan, instead of raising `Unsupported` in a "
        "thousand cases",
    ),
    OptionalMember(
        "exportable",
        _ANY,
        "exportable(case) -> harness.export.exportable.Exportable",
        "the subject's graph, which the export check exports and runs",
    ),
    OptionalMember(
        "lowered",
        _LOWERED,
        "lowered(case) -> harness.export.program_cache.Entry",
        "the program of a case, lowered if need be: `python -m harness.run.prelower` asks for it "
        "before the checks do",
    ),
    OptionalMember(
        "program_bytes",
        _LOWERED,
        "program_bytes(case) -> dict[str, int]",
        "exact planned_bytes, mutable_bytes and pte_bytes of the program",
    ),
    OptionalMember(
        "linear_memory",
        "AttentionSubject",
        "linear_memory = True",
        "a claim that a prefill's peak is linear in its length on bounded layers; peak_bytes "
        "tests it",
        default=False,
    ),
    OptionalMember(
        "profile",
        "CacheSubject, DecoderSubject",
        "profile(layer, shape) -> int of a cache, profile(case) -> list[int] of a decoder",
        "exact storage bytes of a layer's cache in the steady state",
    ),
    OptionalMember(
        "dense_key",
        "DecoderSubject",
        'dense_key = "transformers"',
        "a text that subjects share if their weights and `Decoder.dense` in float64 are the same: "
        "the harness then runs one of them for all",
    ),
    OptionalMember(
        "stored",
        "CacheSubject, DecoderSubject",
        'stored = "float16"',
        "the dtype in which keys and values are held, where it differs from the case's: bounds and "
        "byte counts then are those of that dtype",
    ),
    OptionalMember(
        "rewind",
        "LayerCache, Decoder",
        "rewind(length)",
        "forget all positions >= length, or raise",
    ),
    OptionalMember(
        "first_held",
        "LayerCache, Decoder",
        "first_held() -> int of a cache, list[int] per layer of a decoder",
        "the earliest position from which on every key is held: a rewind must be granted where the "
        "next query needs none before it",
    ),
    OptionalMember(
        "stated_masks",
        "Decoder",
        "stated_masks(n) -> list[Tensor]",
        "one bool (n, n) mask per layer: what each query of the run so far may see by the rule "
        "that the implementation states for itself, where it differs from the exact window",
    ),
)

_DEFAULTS = {member.name: member.default for member in OPTIONAL_MEMBERS}


def optional(of: object, name: str) -> Any:
    """An optional member of a subject, cache or decoder, or its default.

    Raises KeyError for a name that `OPTIONAL_MEMBERS` does not list.
    """
    return getattr(of, name, _DEFAULTS[name])


_BODIES = {"attend": "attention", "new_cache": "cache", "open": "decoder"}


class ContractError(Exception):
    """A subject cannot be used: it lacks a member or has one of the wrong kind."""


def kind_of(subject: object) -> str:
    """ "attention", "cache" or "decoder".

    Raises ContractError naming what is missing or wrong and what is allowed.
    """
    label = f"{type(subject).__module__}:{type(subject).__qualname__}"
    if not isinstance(getattr(subject, "name", None), str):
        raise ContractError(f"{label} needs a class attribute `name: str`")
    schemes = getattr(subject, "schemes", None)
    if not isinstance(schemes, frozenset | set) or not schemes or not schemes <= SCHEMES:
        raise ContractError(
            f"{label}.schemes must be a non-empty frozenset out of {sorted(SCHEMES)}, "
            f"got {schemes!r}"
        )
    bodies = [m for m in _BODIES if callable(getattr(subject, m, None))]
    if len(bodies) != 1:
        raise ContractError(
            f"{label} needs exactly one of the methods attend(q, k, v, layer), "
            f"new_cache(layer, shape) or open(case); it has {bodies or 'none of them'}"
        )
    return _BODIES[bodies[0]]
