"""The estimator for models of which only the number of parameters is known (whichllm #124).

Bytes per billion of parameters and 1024 positions, with an effective context for the families
whose windows the mainline runtimes honour: r * ctx + (1 - r) * min(ctx, window), r the share of
full layers.  It is a rule of thumb: it has no layers, and `harness kv` shows how far off it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from harness.estimate.geometry import Geometry
from harness.estimate.profiles.base import Honours, Profile, Request, RequestError, UnsupportedCache

_BYTES = 3.5 * 1024 * 1024  # of one billion parameters and 1024 positions
_ACTIVE = 4.0  # a mixture's attention is as large as that of a dense model of so many active parts

_MOST = 1e6  # billions of parameters


def effective_context(context: int, window: int | None, ratio: float | None) -> float:
    """r * ctx + (1 - r) * min(ctx, window); the context itself where no window is honoured."""
    if window is None or ratio is None:
        return float(context)
    ratio = min(max(ratio, 0.0), 1.0)
    return ratio * context + (1.0 - ratio) * min(context, window)


def heuristic_bytes(
    billions: float,
    context: int,
    window: int | None = None,
    ratio: float | None = None,
    active: float | None = None,
) -> int:
    """Bytes of the cache of a model of so many billions of parameters, in fp16.

    active: billions of parameters per token of a mixture of experts.
    """
    size = billions if active is None else active * _ACTIVE
    return max(int(size * (effective_context(context, window, ratio) / 1024) * _BYTES), 0)


@dataclass(frozen=True)
class Heuristic(Profile):
    """The rule of thumb.  billions: parameters of the model, None where they are not known.

    Raises RequestError for parameters that cannot be counted.
    """

    billions: float | None = None
    active: float | None = None

    name: ClassVar[str] = "heuristic"
    evidence: ClassVar[str] = "rule of thumb"
    stores: ClassVar[frozenset[str]] = frozenset({"f16", "bf16"})
    honoured: ClassVar[frozenset[str]] = frozenset({"gemma2", "gemma3", "gpt-oss", "cohere2"})

    def __post_init__(self) -> None:
        for field, value in (("billions", self.billions), ("active", self.active)):
            if value is not None and not 0 < value <= _MOST:  # neither holds for NaN
                raise RequestError(f"{field} must be a number in 0…{_MOST:g}, got {value}")

    def honours(self, geometry: Geometry) -> Honours:
        """Its allowlist; anything else keeps the whole context, Mistral's window included."""
        if not geometry.bounded:
            return Honours.NOTHING
        return Honours.YES if geometry.family in self.honoured else Honours.NO

    def layer_bytes(self, geometry: Geometry, request: Request) -> list[int]:  # noqa: ARG002
        """Raises UnsupportedCache: the rule knows no layers."""
        raise UnsupportedCache("a rule of thumb over the number of parameters knows no layers")

    def total(self, geometry: Geometry, request: Request) -> int:
        """Bytes in fp16.  Raises UnsupportedCache where the number of parameters is not known."""
        self.check_types(request)
        if self.billions is None:
            raise UnsupportedCache("needs the number of parameters, in billions")
        window, ratio = None, None
        if self.honours(geometry) is Honours.YES:
            window = next(layer.law.window for layer in geometry.layers if layer.law.bounded)
            # As a period, (i + 1) % P == 0: the true share of 10 in 62 layers is not 1 in 6.
            kinds = [layer.kind for layer in geometry.layers]
            ratio = 1 / (kinds.index("full") + 1) if "full" in kinds else 0.0
        one = heuristic_bytes(self.billions, request.context, window, ratio, self.active)
        return request.sequences * one
